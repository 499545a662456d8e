"""A model, and its file."""

import pytest
from saved_models import fit

import ntk_uq as nuq


@pytest.fixture(scope="module")
def fitted():
    return fit(nuq.NTKClassifier, {"method": "gaussian", "uncertainty": "none", "reg": 1.0})


@pytest.fixture(scope="module")
def whole(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "model.ntk"
    nuq.save(fitted, path)
    return path.read_bytes()


@pytest.fixture
def refuses(tmp_path):
    def check(content, message):
        path = tmp_path / "model.ntk"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            nuq.load(path)

    return check
