"""Uncertainty of wide networks: finite ensembles, their infinite-width limit, and Bayes.

The three take one specification, give one kind of answer, and are compared. The public names are
listed in ``__init__.pyi``, in the order in which data flows; each loads its module when it is first
used.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
