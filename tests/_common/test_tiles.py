"""Tiles of a symmetric matrix, against the whole of it."""

import numpy as np
import pytest

from ntk_uq._common.tiles import SymmetricTiles, tiled_bytes

RNG = np.random.default_rng(0)
N = 19  # two tiles of 8 rows, and one of 3
MATRIX = RNG.standard_normal((N, N))
MATRIX = MATRIX + MATRIX.T


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr("ntk_uq._common.tiles.TILE_ROWS", 8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("in_a_file", [False, True])
def test_products_are_those_of_the_matrix(tmp_path, dtype, in_a_file):
    told = []
    tiles = SymmetricTiles(N, dtype, tmp_path if in_a_file else None)
    tiles.fill(lambda r, c: MATRIX[r, c], lambda *done: told.append(done))
    assert told[-1] == (6, 6)
    held = MATRIX.astype(dtype).astype(np.float64)  # what rounding leaves of it
    v = RNG.standard_normal((N, 5))
    np.testing.assert_allclose(tiles.product(v), held @ v, rtol=0, atol=1e-13)
    single = tiles.product(v.astype(np.float32))
    assert single.dtype == np.float32
    # Sums of n products, each off by a rounding of the size of the terms.
    bound = 2 * N * np.finfo(np.float32).eps * (np.abs(held) @ np.abs(v))
    assert np.all(np.abs(single - held @ v) <= bound)
    np.testing.assert_array_equal(tiles.diagonal(), np.diag(held))


@pytest.mark.parametrize("parts", [2, 7])  # the latter more than there are tiles
def test_parts_add_up(parts):
    tiles = [SymmetricTiles(N, np.float64, part=part, parts=parts) for part in range(parts)]
    for part in tiles:
        part.fill(lambda r, c: MATRIX[r, c])
    v = RNG.standard_normal((N, 5))
    np.testing.assert_allclose(sum(part.product(v) for part in tiles), MATRIX @ v, atol=1e-13)
    np.testing.assert_array_equal(sum(part.diagonal() for part in tiles), np.diag(MATRIX))
    assert sum(len(part._tiles) for part in tiles) == 6


def test_one_triangle_is_stored():
    tiles = SymmetricTiles(N)
    assert sum(tile.size for tile in tiles._tiles.values()) == 3 * 64 + 3 * (16 + 3)
    assert tiled_bytes(N) == 4 * (3 * 64 + 3 * 19)
    assert tiled_bytes(16, np.float64) == 8 * 3 * 64


def test_rounding_is_what_single_precision_does():
    """Its root mean square over many numbers of all sizes, within a factor of two."""
    numbers = np.exp(RNG.uniform(0, 10, 10_000))
    measured = np.sqrt(np.mean((numbers.astype(np.float32) / numbers - 1) ** 2))
    assert measured <= SymmetricTiles(2).rounding <= 2 * measured
    assert SymmetricTiles(2, np.float64).rounding == 0


def test_blocks_are_put_anywhere():
    """Blocks that are no tiles, of one triangle: the matrix."""
    tiles = SymmetricTiles(N, np.float64)
    parts = [slice(0, 5), slice(5, 16), slice(16, N)]
    for i, rows in enumerate(parts):
        for columns in parts[i:]:
            tiles.put(rows.start, columns.start, MATRIX[rows, columns])
    np.testing.assert_array_equal(tiles.product(np.eye(N)), MATRIX)


def test_entries_among_some():
    tiles = SymmetricTiles(N, np.float64).fill(lambda r, c: MATRIX[r, c])
    for some in ([0, 3, 7, 8, 9, 17], [18], []):
        some = np.array(some, int)
        np.testing.assert_array_equal(tiles.among(some), MATRIX[np.ix_(some, some)])
