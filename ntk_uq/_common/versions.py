"""Versions of what is installed."""

from importlib.metadata import PackageNotFoundError, version


def versions(*packages: str) -> dict[str, str]:
    """The version of this package and of each of the others that is installed."""
    # A source tree has one, installed or not.
    from ntk_uq import __version__

    found = {"ntk_uq": __version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # an optional one
            continue
    return found
