from . import analytic as analytic
from . import bayes as bayes
from . import ensemble as ensemble
from . import kernels as kernels
from . import metrics as metrics
from . import plots as plots
from . import selection as selection
from .architectures import MLP as MLP
from .architectures import ConvNet as ConvNet
from .architectures import Architecture as Architecture
from .architectures import Kernels as Kernels
from .likelihoods import Bernoulli as Bernoulli
from .likelihoods import Categorical as Categorical
from .likelihoods import Gaussian as Gaussian
from .likelihoods import Poisson as Poisson
from .likelihoods import Weighted as Weighted
from .likelihoods import Likelihood as Likelihood
from .predictions import GaussianPrediction as GaussianPrediction
from .predictions import SamplePrediction as SamplePrediction
from .estimators import EnsembleClassifier as EnsembleClassifier
from .estimators import NTKClassifier as NTKClassifier
from .estimators import BayesianClassifier as BayesianClassifier
from .estimators import NTKRegressor as NTKRegressor
from .estimators import EnsembleRegressor as EnsembleRegressor
from .compare import Comparison as Comparison
from .compare import compare as compare

__version__: str
