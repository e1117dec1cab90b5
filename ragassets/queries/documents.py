"""Finds the document that a person means by a path or a URI, or says why there is none."""

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import polars as pl

from ragassets.adapters.sources.registry import base_uri, open_source
from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import SOURCE_LISTINGS, SOURCE_OBJECTS
from ragassets.core.sources import Source
from ragassets.errors import SourceUnavailableError, UnknownDocumentError

MAX_NEAR = 3
MAX_COMPARED = 20_000
"""URIs that are compared letter by letter: about a second."""


@dataclass(frozen=True)
class KnownDocument:
    """A document as its source was last seen to hold it."""

    document_id: str
    uri: str
    source: str
    source_shard: str
    etag: str
    size_bytes: int
    modified_at: datetime
    is_deleted: bool
    changed_at: datetime
    other_sources: tuple[str, ...] = ()
    """Sources that hold the same URI too."""


def find_document(workspace: Workspace, argument: str) -> KnownDocument:
    """The document with this URI or path; a living one where several sources have it.

    Raises:
        UnknownDocumentError: No source has it, as far as the last listings tell; the message says
            why and names near matches.
    """
    wanted = candidate_uris(argument)
    columns = [field for field in KnownDocument.__dataclass_fields__ if field != "other_sources"]
    where = pl.col("uri").is_in(wanted)
    rows = workspace.tables.read(SOURCE_OBJECTS, columns=columns, where=where)
    if rows.is_empty():
        known = workspace.tables.read(SOURCE_OBJECTS, columns=["uri", "is_deleted"])
        same = [uri for uri in known["uri"] if _normalized(uri) in wanted]
        if not same:
            alive = known.filter(~pl.col("is_deleted"))["uri"].to_list()
            raise _unknown(workspace, wanted, alive)
        rows = workspace.tables.read(
            SOURCE_OBJECTS, columns=columns, where=pl.col("uri").is_in(same)
        )
    rank = {uri: place for place, uri in enumerate(wanted)}
    # Of a link and its target, both known, the one that was named.
    first, *others = sorted(
        rows.iter_rows(named=True),
        key=lambda row: (row["is_deleted"], rank.get(row["uri"], len(rank)), row["source"]),
    )
    return KnownDocument(
        **first, other_sources=tuple(row["source"] for row in others if not row["is_deleted"])
    )


def candidate_uris(argument: str) -> list[str]:
    """The URIs that an argument may mean, most literal first.

    A path counts from the working directory. A URI may lack its percent-encoding.
    """
    if "://" in argument and not argument.startswith("file://"):
        return list(dict.fromkeys([argument, quote(argument, safe=":/%?#[]@!$&'()*+,;=~")]))
    is_uri = argument.startswith("file://")
    literal = Path(unquote(urlsplit(argument).path)) if is_uri else Path(argument)
    paths = [literal]
    if is_uri:
        # Not encoded: `#`, `?` and `%` are part of the name.
        paths.append(Path(argument.removeprefix("file://")))
    uris = [argument] if is_uri else []
    for path in paths:
        absolute = path.expanduser().absolute()
        plain = Path(os.path.normpath(absolute))
        uris += [plain.as_uri(), absolute.as_uri(), plain.resolve().as_uri()]
    return list(dict.fromkeys(uris))


def near_matches(uri: str, known: Sequence[str]) -> list[str]:
    """Known URIs that were probably meant: of the same file name, else of similar spelling."""
    name = _file_name(uri)
    same = [entry for entry in known if _file_name(entry) == name]
    if same:
        return sorted(same)[:MAX_NEAR]
    by_name = {_file_name(entry): entry for entry in known[:MAX_COMPARED]}
    near = difflib.get_close_matches(name, list(by_name), n=MAX_NEAR)
    return [by_name[entry] for entry in near]


def _file_name(uri: str) -> str:
    return unquote(uri).rstrip("/").rpartition("/")[2].casefold()


def _normalized(uri: str) -> str:
    """The URI without `..` in its path."""
    if not uri.startswith("file://") or "/../" not in uri:
        return uri
    return Path(os.path.normpath(unquote(urlsplit(uri).path))).as_uri()


def _unknown(
    workspace: Workspace, wanted: Sequence[str], alive: Sequence[str]
) -> UnknownDocumentError:
    """Why no table has the document: which source would hold it, and what keeps it out."""
    sources = workspace.config.sources
    inside = [name for name, config in sources.items() if _may_hold(config.uri, wanted)]
    near = near_matches(wanted[0], alive)
    if not inside:
        places = ", ".join(f"{name} ({_shown(config.uri)})" for name, config in sources.items())
        explanation = f"it lies outside of every source: {places}"
    elif not any(_exists(workspace, name, wanted) for name in inside):
        explanation = f"there is no such object in source {inside[0]!r}"
    else:
        # It exists, so nothing else was meant.
        explanation, near = "; ".join(_keeps_out(workspace, name, wanted) for name in inside), []
    return UnknownDocumentError(uri=wanted[0], explanation=explanation, near=near)


def _may_hold(source_uri: str, wanted: Sequence[str]) -> bool:
    base = base_uri(source_uri)
    return any(
        _normalized(uri) == base or _normalized(uri).startswith(f"{base}/") for uri in wanted
    )


def _shown(uri: str) -> str:
    return unquote(urlsplit(uri).path) if uri.startswith("file://") else uri


def _exists(workspace: Workspace, name: str, wanted: Sequence[str]) -> bool:
    if workspace.config.source(name).lands_bodies:
        return False  # what was read of it is known; looking for more would take bodies in
    if workspace.config.source(name).scheme != "file":
        return _holds(workspace.source(name), wanted)
    paths = [Path(unquote(urlsplit(uri).path)) for uri in wanted if uri.startswith("file://")]
    return any(path.is_file() for path in paths)


def _keeps_out(workspace: Workspace, name: str, wanted: Sequence[str]) -> str:
    config = workspace.config.source(name)
    if _holds(workspace.source(name), wanted):
        listed = workspace.tables.read(SOURCE_LISTINGS, [{"source": name}])
        since = f"since {listed['listed_at'][0]:%Y-%m-%d %H:%M:%SZ}" if listed.height else "ever"
        return f"source {name!r} was not listed {since}; run `ragassets ingest {name}`"
    whole = config.model_copy(update={"exclude": ()})
    place = workspace.landed_bodies(name), workspace.crawl_memory(name)
    if _holds(open_source(whole, *place), wanted):
        return f"sources.{name}.exclude {list(config.exclude)} leaves it out"
    return f"sources.{name}.include {list(config.include)} leaves it out (hidden files need a dot)"


def _holds(source: Source, wanted: Sequence[str]) -> bool:
    try:
        listing = source.list_objects()
    except SourceUnavailableError:
        return False
    return any(_normalized(entry.uri) in wanted for entry in listing.objects)
