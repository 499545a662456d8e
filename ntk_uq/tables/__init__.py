"""Tables with categories and gaps: read, fitted, saved and predicted as they come."""

import lazy_loader

# A file that cannot be read is said before scikit-learn and JAX are loaded.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
