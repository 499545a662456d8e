"""Architectures under the name that they had; they live in `ntk_uq.networks`."""

from ntk_uq.networks import MLP as MLP
from ntk_uq.networks import Architecture as Architecture
from ntk_uq.networks import BaseArchitecture as BaseArchitecture
from ntk_uq.networks import ConvNet as ConvNet
from ntk_uq.networks import FeatureEmbedding as FeatureEmbedding
from ntk_uq.networks import Kernels as Kernels
from ntk_uq.networks import ModuleFactory as ModuleFactory
from ntk_uq.networks import mlp_kernel_diag as mlp_kernel_diag
from ntk_uq.networks import mlp_kernels as mlp_kernels
