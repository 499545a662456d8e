"""Empirical kernels of finite networks; they live in `ntk_uq.networks`."""

from ntk_uq.networks.empirical import empirical_nngp, empirical_ntk

__all__ = ["empirical_nngp", "empirical_ntk"]
