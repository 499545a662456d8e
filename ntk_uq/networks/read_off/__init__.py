"""Kernels of an infinitely wide network, read off its module."""

# ruff: noqa: F401, I001  (in the order in which data flows)
from ntk_uq.networks.read_off.values import Given, Layer, NoLimitError, Weights
from ntk_uq.networks.read_off.rules import RULES, Operation, rule
from ntk_uq.networks.read_off.elementwise import elementwise
from ntk_uq.networks.read_off import shapes, sums, products
from ntk_uq.networks.read_off.reader import UnreadableError, check_points_apart, is_users
from ntk_uq.networks.read_off.reader import read_kernel_diag, read_kernels, read_off, rows_at_once

__all__ = [
    "RULES",
    "Given",
    "Layer",
    "NoLimitError",
    "Operation",
    "UnreadableError",
    "Weights",
    "check_points_apart",
    "elementwise",
    "is_users",
    "read_kernel_diag",
    "read_kernels",
    "read_off",
    "rows_at_once",
    "rule",
]
