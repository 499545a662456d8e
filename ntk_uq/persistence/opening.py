"""A file is looked at before what takes seconds to import: mistakes are said at once."""

import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntk_uq.persistence.archive import TREE, check_whole, stored

if TYPE_CHECKING:
    from ntk_uq.networks.architecture import BaseArchitecture

__all__ = ["load", "model_card", "table_columns"]


def load(path: str | os.PathLike, *, architecture: "BaseArchitecture | None" = None) -> Any:
    """Load what `save` wrote.

    No code of the file is run, whoever wrote it: it can only fill in the attributes of classes that
    this package knows.

    Parameters
    ----------
    path : path
        The file.
    architecture : Architecture, optional
        The network, where the estimator was given one of your own: files do not hold functions. It
        is refused if its outputs are not those of the one that was used to fit. Of a trained
        network, `Linearized`, the file holds the parameters: any model of the same class will do.

    Returns
    -------
    estimator
        Its predictions are those of the estimator that was saved, to the last bit, on the same
        machine and versions of packages.

    Raises
    ------
    ValueError
        If the file is damaged, or none of `save`, or of a newer format; or needs an architecture.
    OSError
        If there is no such file, or it cannot be read.

    Warns
    -----
    UserWarning
        If the file was written with another minor version of scikit-learn, which makes no promise
        for attributes of its own steps.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import ntk_uq as nuq
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "model.ntk")
    ...     nuq.save(nuq.NTKClassifier(reg=1.0).fit([[0.0], [1.0]], ["no", "yes"]), path)
    ...     again = nuq.load(path)
    >>> again.predict([[2.0]])
    array(['yes'], dtype='<U3')
    """
    path = Path(path)
    with open(path, "rb") as file:
        check_whole(file, path)
        from ntk_uq.persistence.files import read

        return read(file, path, architecture)


def model_card(path: Path) -> dict[str, Any]:
    """What a file says of its model, without loading it; of earlier versions' it is loaded.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict
        As of `card.card_of`, with ``format``, ``written_by`` (versions) and ``written`` (when).

    Raises
    ------
    ValueError
        If it is damaged, or none of `save`; or of an earlier version and needs an architecture.
    """
    with open(path, "rb") as file:
        check_whole(file, path)
        with zipfile.ZipFile(file) as archive:
            tree = json.loads(stored(archive, TREE).read())
    card = tree.get("card")
    if card is None:
        from ntk_uq.persistence.card import card_of

        card = card_of(load(path))
    about = {"format": tree["version"], "written_by": tree["written by"]}
    return {**about, "written": tree.get("written"), **card}


def table_columns(path: Path) -> tuple[str, ...]:
    """The columns that a model of a table in a file takes, without loading it.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    ValueError
        If it holds another model, or none.
    """
    with open(path, "rb") as file:
        check_whole(file, path)
        with zipfile.ZipFile(file) as archive:
            model = json.loads(stored(archive, TREE).read())["model"]
    kind = str(model.get("object", "")).rpartition(".")[2]
    if kind != "TableModel":
        raise ValueError(
            f"{path} holds one {kind}, saved from Python, where nuq.load reads it; predict takes "
            "what ntk-uq fit wrote"
        )
    held = model["parameters"]
    return tuple(held["numeric"]["tuple"] + held["categorical"]["tuple"])
