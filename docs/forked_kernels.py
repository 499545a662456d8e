"""Kernels of pages, forked from one process that has imported what they all import.

Imports take longer than most pages' own work. `setup` starts the process, where the system can
fork, and puts it in the place of the kernel "python3"; elsewhere kernels start as they always do.
"""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

MODULES = """
jax jax.numpy numpy pandas scipy.optimize scipy.stats sklearn.datasets sklearn.ensemble
sklearn.model_selection sklearn.pipeline sklearn.preprocessing sklearn.gaussian_process
matplotlib.pyplot matplotlib_inline.backend_inline flax.nnx optax numpyro arviz
arviz_plots ipykernel.kernelapp ipywidgets
ntk_uq.architectures ntk_uq.bayes ntk_uq.calibration ntk_uq.cli ntk_uq.compare ntk_uq.ensemble
ntk_uq.estimators.bayesian ntk_uq.estimators.ensemble ntk_uq.estimators.ntk ntk_uq.lazy
ntk_uq.plots ntk_uq.report ntk_uq.selection ntk_uq.tables
""".split()


def serve(listening: str, ready: str) -> None:
    """Import, then fork a kernel for each that asks, until ended."""
    with socket.socket(fileno=int(listening)) as server:
        for name in MODULES:
            importlib.import_module(name)
        # JAX has not looked for devices: a process that has cannot be forked.
        assert not sys.modules["jax._src.xla_bridge"].backends_are_initialized()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        os.close(int(ready))
        # Of threads, which OpenBLAS has, and ends before a fork.
        warnings.simplefilter("ignore", DeprecationWarning)
        while True:
            asked, _ = server.accept()
            if os.fork() == 0:
                server.close()
                return _become_a_kernel(asked)
            asked.close()


def _become_a_kernel(asked: socket.socket) -> None:
    """`asked` is closed by the end of this process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    request = json.loads(asked.makefile().readline())
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    asked.sendall(f"{os.getpid()}\n".encode())
    # It ends with the process that it is of.
    arguments = [*request["arguments"], f"--IPKernelApp.parent_handle={os.getppid()}"]
    sys.modules["ipykernel.kernelapp"].launch_new_instance(argv=arguments)


def launch(address: str, *arguments: str) -> None:
    """What Jupyter takes for the kernel: has one forked, and ends when it does."""
    request = {
        "arguments": arguments,
        "directory": os.getcwd(),
        "environment": dict(os.environ),
    }
    with socket.socket(socket.AF_UNIX) as kernel:
        kernel.connect(address)
        kernel.sendall(f"{json.dumps(request)}\n".encode())
        answers = kernel.makefile()
        process = int(answers.readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda sent, _: os.kill(process, sent))
        answers.read()


def setup(app: Any) -> dict[str, bool]:
    if sys.platform == "linux":
        folder = tempfile.TemporaryDirectory()
        address = str(Path(folder.name) / "kernels")
        spec = Path(folder.name) / "kernels.d" / "kernels" / "python3"
        spec.mkdir(parents=True)
        command = [sys.executable, __file__, "launch", address, "-f", "{connection_file}"]
        text = {"argv": command, "display_name": "Python 3", "language": "python"}
        (spec / "kernel.json").write_text(json.dumps(text))
        before = os.environ.get("JUPYTER_PATH")
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(spec.parents[1]), before]))
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(address)
            listening.listen(64)
            imported, ready = os.pipe()
            numbers = [listening.fileno(), ready]
            server = subprocess.Popen(
                [sys.executable, __file__, "serve", *map(str, numbers)], pass_fds=numbers
            )
        # Jupyter waits a minute for a kernel, and a busy machine may take longer to import.
        os.close(ready)
        os.read(imported, 1)
        os.close(imported)

        def end(*_: Any) -> None:
            server.terminate()
            server.wait()
            folder.cleanup()

        app.connect("build-finished", end)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    {"serve": serve, "launch": launch}[sys.argv[1]](*sys.argv[2:])
