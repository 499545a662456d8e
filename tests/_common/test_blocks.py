"""Functions of points in blocks: the values of one call, in few sizes."""

import jax
import numpy as np
import pytest

from ntk_uq._common.blocks import bucket, in_blocks, placed


def test_buckets_are_powers_of_two():
    assert [bucket(m) for m in (1, 2, 3, 4, 5, 64, 65)] == [1, 2, 4, 4, 8, 64, 128]


@pytest.mark.parametrize("m", [1, 3, 8, 11, 23])
def test_values_of_one_call_in_few_sizes(m):
    sizes = set()

    def function(block):
        sizes.add(len(block))
        return {"squares": block**2, "turned": np.stack([block, -block])[:, :, None]}

    X = np.random.default_rng(m).normal(size=m)
    squares = in_blocks(lambda block: function(block)["squares"], X, 10)
    np.testing.assert_array_equal(squares, X**2)
    turned = in_blocks(lambda block: function(block)["turned"], X, 10, axis=1)
    np.testing.assert_array_equal(turned, np.stack([X, -X])[:, :, None])
    assert sizes <= {1, 2, 4, 8, 10}


def test_an_array_is_placed_without_a_program(caplog):
    x = np.linspace(0, 1, 12347)  # of a shape that nothing else has
    with jax.log_compiles(), jax.enable_x64(True):
        there = placed(x)
    assert there.dtype == np.float64
    assert placed(there) is there
    np.testing.assert_array_equal(there, x)
    assert "Compiling" not in caplog.text
