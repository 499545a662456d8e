"""One specification of a network: the finite Flax module, and its kernels at infinite width."""

from ntk_uq.networks.architecture import BaseArchitecture as BaseArchitecture
from ntk_uq.networks.architecture import Kernels as Kernels
from ntk_uq.networks.architecture import ModuleFactory as ModuleFactory
from ntk_uq.networks.convnet import ConvNet as ConvNet
from ntk_uq.networks.empirical import empirical_nngp as empirical_nngp
from ntk_uq.networks.empirical import empirical_ntk as empirical_ntk
from ntk_uq.networks.infinite_width import mlp_kernel_diag as mlp_kernel_diag
from ntk_uq.networks.infinite_width import mlp_kernels as mlp_kernels
from ntk_uq.networks.mlp import MLP as MLP
from ntk_uq.networks.own import Architecture as Architecture
