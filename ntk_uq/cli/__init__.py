"""The ``ntk-uq`` command: compare, fit, predict and lazy."""

from ntk_uq.cli.shell import main

__all__ = ["main"]
