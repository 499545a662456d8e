"""Kernels of an infinitely wide network, read off its module."""

# ruff: noqa: I001  (in the order in which data flows)
from ntk_uq.networks.read_off.values import Given, Layer, NoLimitError, Weights
from ntk_uq.networks.read_off.rules import RULES, Operation, elementwise, rule
from ntk_uq.networks.read_off.reader import UnreadableError, kernels, read_off

__all__ = [
    "RULES",
    "Given",
    "Layer",
    "NoLimitError",
    "Operation",
    "UnreadableError",
    "Weights",
    "elementwise",
    "kernels",
    "read_off",
    "rule",
]
