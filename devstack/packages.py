"""Where things are: this tree, and the files of installed wheels that we use without importing them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from devstack.process import DevstackError

REPOSITORY = Path(__file__).resolve().parent.parent


def package_folder(package: str) -> Path:
    """The folder of an installed package; DevstackError when it is missing. Nothing of it is imported."""
    spec = find_spec(package)
    locations = list(spec.submodule_search_locations or ()) if spec else []
    if not locations:
        raise DevstackError(
            f"The package {package} is not installed. `make run` installs it; or name a server of your own "
            "(DATABASE_URL, VALKEY_URL, CATALOG_FILE, STRIPE_SECRET_KEY)."
        )
    return Path(locations[0])
