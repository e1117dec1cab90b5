"""Programs that some tests start: skipped with a reason where they are absent, a failure in CI."""

import os
import shutil
from pathlib import Path

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
    reason = f"{name} is not installed (Debian package {package})"
    if IS_CI:
        pytest.fail(f"{reason}; in CI it has to be")
    pytest.skip(reason)
