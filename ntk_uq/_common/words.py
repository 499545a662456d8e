"""Values in messages."""

from typing import Any

import numpy as np

__all__ = ["shown"]


def shown(value: Any) -> str:
    """A value as code, NumPy's numbers and texts in it as the plain ones that they are."""
    with np.printoptions(legacy="1.25"):
        return repr(value)
