r"""Fitted estimators in files: data alone, so that opening one runs no code.

A file is a ZIP archive of NumPy arrays (``arrays/0.npy``, ...) and ``ntk_uq.json``, a tree of
typed values that names classes of a closed list. Its last bytes are the SHA-256 sum of all before
them: a file that was cut short or changed is refused before anything in it is read.
"""

import lazy_loader

# A file that cannot be read is said before scikit-learn and JAX are loaded.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
