"""``--network FILE.py:NAME``: a network of the user's in each command."""

import argparse

import jax
import pandas as pd
import pytest
from example_tables import shell

import ntk_uq as nuq
from ntk_uq.cli import methods
from ntk_uq.cli.network import own_network

SOURCE = """
import jax
from flax import nnx
import sizes

class Network(nnx.Module):
    def __init__(self, in_features, out_features, *, width=sizes.WIDTH, rngs):
        self.hidden = nnx.Linear(in_features, width, rngs=rngs)
        self.readout = nnx.Linear(width, out_features, rngs=rngs)

    def __call__(self, x):
        return self.readout(nnx.relu(self.hidden(x)))

class Wrong(Network):
    def __call__(self, x):
        return self.readout(x[:, 1:])

trained = Network(4, 2, rngs=nnx.Rngs(0))
"""
FIT = ["fit", "train.csv", "--target", "y", "--reg", "1", "--method", "gaussian"]


@pytest.fixture
def network(folder):
    (folder / "mine.py").write_text(SOURCE)
    (folder / "sizes.py").write_text("WIDTH = 8")
    return "mine.py:Network"


def test_fit_and_predict(network, folder, capsys):
    assert shell(*FIT, "--network", network) == 0
    assert shell("predict", "model.ntk", "train.csv", "--network", network) == 0
    own = pd.read_csv(folder / "predictions.csv")
    assert len(own)
    capsys.readouterr()
    assert shell("predict", "model.ntk", "train.csv") == 2
    assert "give the same --network FILE.py:NAME again" in capsys.readouterr().err
    assert shell(*FIT) == 0
    assert shell("predict", "model.ntk", "train.csv") == 0
    default = pd.read_csv(folder / "predictions.csv")
    assert (own["probability_yes"] - default["probability_yes"]).abs().max() > 1e-3


def test_an_architecture_is_taken_as_it_is(folder):
    (folder / "ours.py").write_text("from ntk_uq import MLP\n\nnet = MLP(width=8, depth=1)")
    assert shell(*FIT, "--network", "ours.py:net") == 0
    assert nuq.load("model.ntk").estimator.architecture_ == nuq.MLP(width=8, depth=1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mine.py", "must be FILE.py:NAME"),
        ("other.py:Network", "there is no file other.py"),
        ("mine.py:Other", "mine.py has no Other; it has Network, Wrong"),
        ("sizes.py:WIDTH", "module must be a function or class"),
        ("broken.py:Network", "broken.py failed, ZeroDivisionError"),
        ("mine.py:Wrong", "Wrong failed, called with points of shape"),
        ("ours.py:MLP", "MLP is a class of architectures: write net = MLP(...) in ours.py"),
    ],
)
def test_mistakes(given, said, network, folder, capsys):
    (folder / "broken.py").write_text("1 / 0")
    (folder / "ours.py").write_text("from ntk_uq import MLP")
    assert shell(*FIT, "--network", given) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "setting"),
    [("compare", ["--depth", "3"]), ("lazy", ["--depth", "3"]), ("lazy", ["--activation", "erf"])],
)
def test_settings_of_the_packages_network_are_refused(command, setting, network, folder, capsys):
    assert shell(command, "--data", "wine", "--network", network, *setting) == 2
    assert f"{' '.join(setting)} is for the package's own network" in capsys.readouterr().err


def test_width_is_the_networks_own_where_none_is_given(network, folder):
    common = argparse.Namespace(network=network, depth=None, members=3)
    for width, expected in ((None, 8), (16, 16)):
        arguments = argparse.Namespace(width=width, **vars(common))
        architecture = methods.network(arguments)
        params = architecture.init(jax.random.key(0), 2, 2)
        assert any(leaf.shape == (2, expected) for leaf in jax.tree.leaves(params))
        words = methods.about("ensemble", arguments, 1.0)
        assert ("of width 16" in words) == (width == 16)
        assert "of width 512" not in words
    (folder / "ours.py").write_text(
        "from flax import nnx\nfrom ntk_uq import MLP\n\nnet = MLP(width=8, depth=1)\n\n"
        "def linear(n, c, *, rngs):\n    return nnx.Linear(n, c, rngs=rngs)"
    )
    assert own_network("ours.py:net", 16) == nuq.MLP(width=16, depth=1)
    with pytest.raises(ValueError, match=r"linear has no width to set .* leave --width out"):
        own_network("ours.py:linear", 16)
    (folder / "theirs.py").write_text(
        "from mine import trained\nfrom ntk_uq import Linearized\n\nnet = Linearized(trained)"
    )
    with pytest.raises(ValueError, match=r"is one trained network, .* give the class"):
        own_network("theirs.py:net", 16)


@pytest.mark.slow
def test_laziness_and_comparison(network, folder):
    quick = ["--members", "2", "--max-iter", "20", "--n-train", "12"]
    assert shell("lazy", "--data", "wine", "--widths", "8", "16", "--network", network, *quick) == 0
    quick = ["--members", "2", "--draws", "8", "--n-train", "12", "--skip", "nuts", "--width", "16"]
    assert shell("compare", "--data", "wine", "--reg", "1", "--network", network, *quick) == 0
