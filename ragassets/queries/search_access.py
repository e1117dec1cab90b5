"""For whom a search is made: what the caller says, checked against what the sources need.

Where a source has a tenant, nobody searches by accident across all of them. No message here names a
tenant that the caller did not name: whoever reads it may be a user of another one.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from ragassets.config import Config
from ragassets.core.access import Access
from ragassets.errors import ConfigurationError


@dataclass(frozen=True)
class Caller:
    """What was said once for all queries of a call."""

    tenant: str | None = None
    all_tenants: bool = False
    principals: Sequence[str] | None = None


def decide_access(config: Config, caller: Caller = Caller()) -> Access:
    """Return what a caller may see.

    Raises:
        ConfigurationError: It does not say whose documents it wants, or says it wrongly.
    """
    tenants = config.tenants()
    if caller.all_tenants and caller.tenant is not None:
        raise ConfigurationError(
            key="--all-tenants",
            value=None,
            problem="cannot be combined with a tenant",
            fix="Give one of them",
        )
    if caller.tenant is None and tenants and not caller.all_tenants:
        raise ConfigurationError(
            key="--tenant",
            value=None,
            problem="is needed: sources of this configuration belong to tenants",
            fix="Give the tenant that the search is made for, or --all-tenants if whoever reads the"
            " hits may see them all",
        )
    if caller.tenant is not None and caller.tenant not in tenants:
        raise ConfigurationError(
            key="--tenant",
            value=caller.tenant,
            problem="is the tenant of no source",
            fix="Compare it with sources.*.tenant of the configuration",
        )
    return Access(caller.tenant, _principals(caller.principals, key="--as"))


def batch_accesses(config: Config, caller: Caller, text: str, *, origin: str) -> list[Access]:
    """Return what each line of a batch may see, by its own `tenant` and `as`, else by the caller's.

    A line adds what the command line does not say; it never replaces it.

    Args:
        config: The configuration.
        caller: What the command line says, for all lines.
        text: JSON lines, checked already to be queries.
        origin: What to call the file.

    Raises:
        ConfigurationError: As of `decide_access`, naming the line.
    """
    lines = enumerate(text.split("\n"), start=1)
    return [
        _line_access(config, caller, json.loads(line), f"{origin}:{number}")
        for number, line in lines
        if line.strip()
    ]


def _line_access(config: Config, caller: Caller, entry: dict[str, object], place: str) -> Access:
    tenant, principals = entry.get("tenant"), entry.get("as")
    for key, own, given in (
        ("tenant", tenant, caller.tenant),
        ("as", principals, caller.principals),
    ):
        if own is not None and given is not None:
            raise _wrong_line(
                place, f"has {key!r}, which the command line has too", "Say it in one place"
            )
    if not isinstance(tenant, str | None):
        raise _wrong_line(place, "has a 'tenant' that is no text", 'Write "tenant": "name"')
    if principals is not None and not _is_texts(principals):
        raise _wrong_line(
            place, "has an 'as' that is no list of texts", 'Write "as": ["user:bob", "group:hr"]'
        )
    own = Caller(
        tenant=caller.tenant if tenant is None else tenant,
        all_tenants=caller.all_tenants and tenant is None,
        principals=cast("list[str] | None", principals)
        if principals is not None
        else caller.principals,
    )
    try:
        return decide_access(config, own)
    except ConfigurationError as error:
        raise _wrong_line(
            place, f"cannot be asked: {error.key} {error.problem}", error.fix
        ) from error


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, str) for entry in cast("list[object]", value)
    )


def _principals(given: Sequence[str] | None, *, key: str) -> frozenset[str] | None:
    """An empty list is a caller in no group: it sees what everybody sees, not everything."""
    if given is None:
        return None
    if not all(name.strip() for name in given):
        raise ConfigurationError(
            key=key, value="", problem="is empty", fix="Name a user or group as in `acl`"
        )
    return frozenset(given)


def _wrong_line(place: str, problem: str, fix: str) -> ConfigurationError:
    return ConfigurationError(key="--batch", value=place, problem=problem, fix=fix)
