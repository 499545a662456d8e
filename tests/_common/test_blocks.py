"""Functions of points in blocks: the values of one call, in few sizes."""

import numpy as np
import pytest

from ntk_uq._common.blocks import bucket, in_blocks


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
