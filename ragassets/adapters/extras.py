"""Packages that only some projects need: imported when used, named where they are missing."""

import importlib
import importlib.util
from typing import Any, cast

from ragassets.core.store_locations import WAYS, StoreKind
from ragassets.errors import ConfigurationError


def require_extra(kind: StoreKind, module: str, *, extra: str) -> None:
    """Refuse a vector store whose package is absent; it costs no import.

    Raises:
        ConfigurationError: naming what to install.
    """
    if importlib.util.find_spec(module) is None:
        raise ConfigurationError(
            key="vector_store",
            value=WAYS[kind],
            problem=f"needs the package {module}, which is not installed",
            fix=f"pip install 'ragassets[{extra}]'",
        )


def import_untyped(module: str) -> Any:
    """Return a module without type information."""
    return cast("Any", importlib.import_module(module))
