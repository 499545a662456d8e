from importlib.metadata import version

import ntk_uq
from ntk_uq._common.versions import versions


def test_versions_are_those_of_what_is_installed():
    found = versions("numpy", "no-such-package", "scikit-learn")
    assert found == {
        "ntk_uq": ntk_uq.__version__,
        "numpy": version("numpy"),
        "scikit-learn": version("scikit-learn"),
    }
