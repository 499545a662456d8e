"""Predictions to files."""

import sys
from pathlib import Path
from typing import IO

import pandas as pd

from ntk_uq._common.files import write_result
from ntk_uq.tables.reading import PARQUET, no_pyarrow

__all__ = ["write_table"]


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table to a CSV or Parquet file, whole or not at all.

    Parameters
    ----------
    table : DataFrame
        What to write, without its index.
    path : path
        The file, or "-" for CSV to standard output.
    """
    if path == "-":
        table.to_csv(sys.stdout, index=False)
        return

    def write(file: IO[bytes]) -> None:
        if Path(path).suffix.lower() in PARQUET:
            try:
                table.to_parquet(file, index=False)
            except ImportError as error:
                raise ImportError(no_pyarrow(path)) from error
        else:
            table.to_csv(file, index=False)

    write_result(Path(path), write)
