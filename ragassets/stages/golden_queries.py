"""Who judges an index version: which aliases, by which queries, gates, and against which version.

An alias judges the version that it starts at or serves, and its canary. A version of no alias is a
candidate, and is judged by the first alias that has golden queries.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import ALIAS_SWITCHES
from ragassets.core.evaluation import GoldenQuery, parse_golden_queries
from ragassets.core.gates import strictest
from ragassets.core.settings import GatesConfig
from ragassets.core.tables import Tables
from ragassets.errors import ConfigurationError
from ragassets.stages.alias_history import running_canaries


@dataclass(frozen=True)
class Judges:
    """Everything that a version is judged by."""

    aliases: tuple[str, ...]
    queries: tuple[GoldenQuery, ...] | None
    """None where no golden queries are configured."""
    gates: GatesConfig
    rival: str | None
    """The version that the first of the aliases serves, or starts at, when it is another one."""
    was_served: bool
    """Whether one of the aliases has served the version before."""


def find_judges(
    workspace: Workspace, index_version: str, tables: Tables, alias: str | None = None
) -> Judges:
    """Who judges a version; only the named alias where one is named.

    Raises:
        UnknownNameError: There is no such alias.
        ConfigurationError: A file cannot be read, or a line is wrong.
    """
    config = workspace.config
    with workspace.vector_store() as store:
        targets = store.aliases()
    canaries = {canary.alias: canary.index_version for canary in running_canaries(tables, targets)}
    own = [
        name
        for name, entry in config.aliases.items()
        if index_version in (entry.live, targets.get(name), canaries.get(name))
    ]
    if alias is not None:
        config.alias(alias)
        own, judging = [], [alias]
    else:
        with_file = [name for name, entry in config.aliases.items() if entry.golden_queries]
        judging = [name for name in own if name in with_file] or with_file[:1]
        judging = judging or own or list(config.aliases)[:1]
    served = [targets.get(name, config.alias(name).live) for name in judging]
    switches = tables.read(
        ALIAS_SWITCHES,
        columns=["alias", "to_version"],
        # A canary answers a few searches to be compared: it has to keep the gates itself.
        where=~pl.col("action").is_in(["canary", "canary_off"]),
    )
    moves = set(switches.iter_rows())
    return Judges(
        aliases=tuple(judging),
        queries=_queries_of(workspace, judging),
        gates=strictest([config.gates_of(name) for name in dict.fromkeys([*judging, *own])])
        if judging
        else config.gates,
        rival=next((name for name in served if name != index_version), None),
        was_served=any((name, index_version) in moves for name in judging),
    )


def golden_queries(workspace: Workspace, index_version: str) -> list[GoldenQuery] | None:
    """The queries that a version is judged by; None where none are configured.

    Raises:
        ConfigurationError: A file cannot be read, or a line is wrong.
    """
    queries = find_judges(workspace, index_version, workspace.tables).queries
    return None if queries is None else list(queries)


def check_golden_queries(workspace: Workspace) -> None:
    """Read all golden queries, so that a wrong file is noticed before anything is computed.

    Raises:
        ConfigurationError: A file cannot be read, or a line is wrong.
    """
    _queries_of(workspace, list(workspace.config.aliases))


def _queries_of(workspace: Workspace, aliases: list[str]) -> tuple[GoldenQuery, ...] | None:
    """The queries of some aliases; two may share a file."""
    alias_of = {
        file: name
        for name in aliases
        if (file := workspace.config.alias(name).golden_queries) is not None
    }
    found = [query for file, name in alias_of.items() for query in _read(file, name)]
    return tuple(found) if alias_of else None


def _read(file: str, alias: str) -> list[GoldenQuery]:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(
            key=f"aliases.{alias}.golden_queries",
            value=file,
            problem=f"cannot be read ({reason}), so no index version can be judged",
            fix="Mend the path, or remove the key",
        ) from error
    return parse_golden_queries(text, origin=file)
