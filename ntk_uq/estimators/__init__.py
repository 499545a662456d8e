"""The scikit-learn face: estimators that answer one question by three routes.

An estimator is a task (`tasks`: what targets are, what users are told) and a producer, which knows
of the task only the targets and the likelihood. Validation happens there, once; below are arrays
only. Kernels and posteriors run in float64 and networks train in float32, whatever the user's JAX
configuration, which is not touched.
"""

import lazy_loader

# Each loads its producer when it is first used: a sampler takes seconds to import.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
