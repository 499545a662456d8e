"""Every shipped dataclass is saved and loaded by name, or is known to be in no fitted estimator."""

import dataclasses
import importlib
import io
import json
import pkgutil
import zipfile
from dataclasses import dataclass

import numpy as np
import pytest

import ntk_uq
from ntk_uq import likelihoods, networks
from ntk_uq.bayes.samplers import Sampler
from ntk_uq.networks import MLP, Architecture, BaseArchitecture
from ntk_uq.persistence.archive import array_name
from ntk_uq.persistence.classes import CLASSES, class_named, name_of
from ntk_uq.persistence.tree import Reader, Writer

# Rooms above the estimators, whose classes no fitted estimator holds.
ABOVE = ("cli", "compare", "datasets", "distances", "lazy", "metrics", "plots", "report")
# And results, settings and steps of the rooms below that none of them holds.
NOT_HELD = {
    "Architecture", "KernelFunction", "Linearized",  # functions: left out, and given to `load`
    "Expansion", "ParameterLaw",
    "LinearizedEnsemble", "GradientFlow", "Tangent", "TangentProducts",
    "Batches", "GaussianPrediction", "SamplePrediction", "RejectionRule", "ModelFrame",
    "DecisionPlan",
    "CostEstimate", "ConjugateGradients", "FlatDraws", "Optax", "Problem", "Steps", "Support",
    "InfiniteEnsemble", "LaplaceProcess", "FiniteEnsemble", "Posterior", "LaplaceNetwork",
}  # fmt: skip


def shipped():
    for module in pkgutil.walk_packages(ntk_uq.__path__, "ntk_uq."):
        # What a module's forward pass is read as is made anew, and held by no estimator.
        read_off = module.name.startswith("ntk_uq.networks.read_off")
        if module.name.split(".")[1] not in ABOVE and not read_off:
            for name, cls in vars(importlib.import_module(module.name)).items():
                own = isinstance(cls, type) and cls.__module__ == module.name
                if own and dataclasses.is_dataclass(cls) and not name.startswith("_"):
                    yield cls


def test_every_shipped_dataclass_has_a_name_in_files():
    # Draws hold the name of their sampler.
    unnamed = {c.__name__ for c in shipped() if name_of(c) is None and not issubclass(c, Sampler)}
    assert unnamed - NOT_HELD == set()
    for cls in shipped():
        name = name_of(cls)
        assert name is None or class_named(name) is cls


def instance(cls):
    """One of the class, its fields filled without its checks where they have no defaults."""
    try:
        return cls()
    except TypeError:
        value = object.__new__(cls)
        for number, field in enumerate(dataclasses.fields(cls)):
            object.__setattr__(value, field.name, np.arange(number))
        return value


HELD = [
    cls
    for cls in shipped()
    # Estimators, trained networks and tables: `test_files` fits and saves them.
    if name_of(cls) is not None and cls.__name__ not in ("TrainedEnsemble", "TableModel")
]


@pytest.mark.parametrize("cls", HELD, ids=lambda cls: cls.__name__)
def test_written_and_read(cls):
    writer = Writer()
    value = instance(cls)
    node = json.loads(json.dumps(writer.encode(value, "here")))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number, array in enumerate(writer.arrays):
            with archive.open(array_name(number), "w") as entry:
                np.lib.format.write_array(entry, array)
    with zipfile.ZipFile(file) as archive:
        again = Reader(archive, None).decode(node)
    assert type(again) is cls
    for field in dataclasses.fields(cls):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(value, field.name))


def test_contents_pages_are_what_files_know():
    """So a new architecture or likelihood needs no line elsewhere."""
    assert {"MLP", "ConvNet"} <= set(CLASSES["ntk_uq.architectures"])
    for room, page, kind in (
        ("architectures", networks, BaseArchitecture),
        ("likelihoods", likelihoods, object),
    ):
        known = set(CLASSES[f"ntk_uq.{room}"])
        here = [c for c in shipped() if c.__module__.startswith(page.__name__ + ".")]
        there = {c.__name__ for c in here if issubclass(c, kind)}
        assert known == there - NOT_HELD


@dataclass(frozen=True)
class Forgotten(MLP):
    """As if it were shipped."""


def test_a_shipped_architecture_that_files_do_not_know_is_an_error(monkeypatch):
    writer = Writer()
    assert writer.encode(Forgotten(), "here") == {"supplied": "architecture"}  # a user's
    assert writer.encode(Architecture(MLP().module), "here") == {"supplied": "architecture"}
    monkeypatch.setattr(Forgotten, "__module__", "ntk_uq.networks.forgotten")
    with pytest.raises(ValueError, match=r"Forgotten is an architecture of ntk_uq .* do not know"):
        writer.encode(Forgotten(), "here")
    assert issubclass(Forgotten, BaseArchitecture)
