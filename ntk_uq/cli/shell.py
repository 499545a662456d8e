"""What runs a command: its arguments are read, and how it ends becomes an exit status.

What takes seconds to import loads in the functions that use it, after the arguments are read.
"""

import argparse
import os
import sys
import threading
import warnings
from collections.abc import Sequence

from ntk_uq import __version__
from ntk_uq._common.progress import progress_lines
from ntk_uq.cli import compare, fit, info, lazy, predict
from ntk_uq.cli.options import Parser, say

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit status.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    name = f"{parser.prog} {arguments.command}"
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: say(f"{name}: warning: {message}")
        try:
            with progress_lines(name):
                arguments.run(arguments)
        except BrokenPipeError:  # whoever reads has enough, as head has
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            say(f"{name}: interrupted; nothing was written")
            _leave_chains()
            return 130
        except (ValueError, OSError, NotImplementedError, MemoryError, ImportError) as error:
            say(f"{name}: error: {error}")
            return 2
        except Exception as error:
            if "NTK_UQ_TRACEBACK" in os.environ:
                raise
            say(
                f"{name}: error: {type(error).__name__}: {error} (this should not happen; with "
                "NTK_UQ_TRACEBACK=1 in the environment it shows where)"
            )
            return 1
    return 0


def _leave_chains() -> None:
    """End the process where a chain is in a long draw, for which Python's end would wait."""
    chains = sys.modules.get("ntk_uq.bayes.chains")
    if chains is None:
        return
    if any(thread.name.startswith(chains.THREAD_NAMES) for thread in threading.enumerate()):
        sys.stdout.flush()
        os._exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="ntk-uq", description="How sure may a wide neural network be?")
    parser.add_argument("--version", action="version", version=f"ntk_uq {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (compare, fit, predict, info, lazy):
        command.add_parser(commands)
    return parser
