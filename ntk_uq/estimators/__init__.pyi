from .bayesian import BayesianClassifier as BayesianClassifier
from .bayesian import BayesianRegressor as BayesianRegressor
from .ensemble import EnsembleClassifier as EnsembleClassifier
from .ensemble import EnsembleRegressor as EnsembleRegressor
from .ntk import NTKClassifier as NTKClassifier
from .ntk import NTKRegressor as NTKRegressor
