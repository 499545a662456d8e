"""The samplers, one file each, and the table that finds them by name.

Markov chains, right in the limit of many draws:

"nuts"
    The No-U-Turn sampler.
"ess"
    Elliptical slice sampling, slower but on the smallest data sets. A draw is 20 transitions.

And approximations:

"vi"
    Variational inference: independent draws from the nearest Gaussian with independent whitened
    variables. It has no warm-up.
"laplace"
    The Gaussian at the mode, in closed form, of a finite network linearised there. It has no draws.
"""

from ntk_uq.bayes.samplers.interface import ChainSampler as ChainSampler
from ntk_uq.bayes.samplers.interface import DrawSampler as DrawSampler
from ntk_uq.bayes.samplers.interface import Sampler as Sampler
from ntk_uq.bayes.samplers.interface import StepSeconds as StepSeconds
from ntk_uq.bayes.samplers.laplace import Laplace as Laplace
from ntk_uq.bayes.samplers.nuts import NoUTurn as NoUTurn
from ntk_uq.bayes.samplers.slices import EllipticalSlices as EllipticalSlices
from ntk_uq.bayes.samplers.table import SAMPLERS as SAMPLERS
from ntk_uq.bayes.samplers.table import sampler_named as sampler_named
from ntk_uq.bayes.samplers.table import samplers_of as samplers_of
from ntk_uq.bayes.samplers.variational import Variational as Variational
