"""One specification of a network: the finite Flax module, and its kernels at infinite width."""

# ruff: noqa: I001  (in the order in which data flows)
from ntk_uq.networks.architecture import BaseArchitecture, ModuleFactory, Kernels
from ntk_uq.networks.mlp import MLP
from ntk_uq.networks.convnet import ConvNet
from ntk_uq.networks.own import Architecture
from ntk_uq.networks.linearized import Linearized
from ntk_uq.networks.embedding import FeatureEmbedding
from ntk_uq.networks.normal_scores import NormalScores
from ntk_uq.networks.kernel_function import KernelFunction
from ntk_uq.networks.infinite_width import mlp_kernels, mlp_kernel_diag
from ntk_uq.networks.empirical import empirical_ntk, empirical_nngp
from ntk_uq.networks.function_prior import FunctionPrior
from ntk_uq.networks.random_functions import RandomFunctions
from ntk_uq.networks.problem import Problem

__all__ = [
    "MLP",
    "Architecture",
    "BaseArchitecture",
    "ConvNet",
    "FeatureEmbedding",
    "FunctionPrior",
    "KernelFunction",
    "Kernels",
    "Linearized",
    "ModuleFactory",
    "NormalScores",
    "Problem",
    "RandomFunctions",
    "empirical_nngp",
    "empirical_ntk",
    "mlp_kernel_diag",
    "mlp_kernels",
]
