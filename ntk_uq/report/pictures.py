"""Pictures as they are embedded: data URIs, with captions and descriptions."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, with the words under it and those in its place."""

    source: str
    caption: str
    description: str


def svg(plot: Callable[..., Axes], *arguments: Any, height: float = 3.3, **options: Any) -> str:
    """What a plot draws, as an SVG of so many inches."""
    figure = Figure(figsize=(3.4, height), layout="constrained")
    plot(*arguments, **options, ax=figure.subplots())
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", dpi=200, metadata={"Date": None})
    return data_uri("image/svg+xml", buffer.getvalue())


def png(image: NDArray) -> str:
    """An image as the reader sees it in print: grey values run from white to black."""
    buffer = BytesIO()
    imsave(buffer, image, cmap="gray_r", format="png")
    return data_uri("image/png", buffer.getvalue())


def data_uri(media_type: str, content: bytes) -> str:
    """Bytes as an address that holds them."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
