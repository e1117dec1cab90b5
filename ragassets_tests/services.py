"""Programs that some tests start: skipped with a reason where they are absent, a failure in CI."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

IS_CI = os.environ.get("CI", "").lower() in {"1", "true"}


def program(name: str, *, package: str, also_in: str = "") -> Path:
    """The path of a program.

    Args:
        name: What to look for on PATH.
        package: The Debian package to name where it is absent.
        also_in: A glob of folders outside PATH, newest last: `/usr/lib/postgresql/*/bin`.
    """
    found = shutil.which(name)
    if found:
        return Path(found)
    elsewhere = sorted(Path("/").glob(f"{also_in.lstrip('/')}/{name}")) if also_in else []
    if elsewhere:
        return elsewhere[-1]
    return _absent(f"{name} is not installed (Debian package {package})")


def npm_program(name: str, *, package: str) -> Path:
    """The path of a program that `make test` gets from npm.

    Args:
        name: Of the program.
        package: The npm package to name where it is absent.
    """
    program("node", package="nodejs")
    found = Path(sys.prefix) / "npm" / "node_modules" / ".bin" / name
    if found.exists():
        return found
    return _absent(f"{name} is not installed (npm package {package}; `make test` gets it)")


def package_file(package: str, name: str) -> Path:
    """The path of a file inside an installed package of PyPI that only tests need."""
    spec = importlib.util.find_spec(package)
    found = Path(spec.origin).parent / name if spec and spec.origin else None
    if found and found.exists():
        return found
    return _absent(f"{name} is not there (PyPI package {package.replace('_', '-')})")


def _absent(reason: str) -> NoReturn:
    if IS_CI:
        pytest.fail(f"{reason}; in CI it has to be")
    pytest.skip(reason)
