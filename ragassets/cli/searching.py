"""`ragassets search` and `ragassets show`."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast
from urllib.parse import unquote

import typer

from ragassets.cli.failures import wrong_use
from ragassets.cli.output import (
    console,
    hint,
    is_terminal,
    note,
    write_json,
    write_json_line,
    write_line,
)
from ragassets.cli.progress import waiting
from ragassets.cli.session import ConfigOption, JsonOption, Session
from ragassets.errors import ConfigurationError

if TYPE_CHECKING:
    from ragassets.core.access import Access
    from ragassets.core.searching import SearchMode
    from ragassets.queries.answers import Answer
    from ragassets.queries.questions import Question
    from ragassets.queries.search import Hit
    from ragassets.queries.search_access import Caller
    from ragassets.queries.search_recorder import SearchRecorder

MAX_HITS = 1_000
"""More than anybody reads; every hit carries its text."""

SNIPPET_CHARS = 400
"""About five lines of a terminal."""


class Mode(StrEnum):
    """How chunks are ranked."""

    dense = "dense"
    sparse = "sparse"
    hybrid = "hybrid"


class TextStage(StrEnum):
    """Stages that make text."""

    parsed = "parsed"
    clean = "clean"
    chunks = "chunks"


def search(
    context: typer.Context,
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", help="What to look for.", show_default=False)
    ] = None,
    alias: Annotated[
        str | None, typer.Option("--alias", help=r"The alias to ask. \[default: documents]")
    ] = None,
    index_version: Annotated[
        str | None, typer.Option("--index", help="An index version, instead of an alias.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-k", min=1, max=MAX_HITS, help="Hits of each query.")
    ] = 5,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="KEY=VALUE",
            help="Only hits with this value: source, uri, language, document_type, title, page, or"
            " a key of the source's metadata, acl included. May be repeated.",
        ),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(help="Only this tenant's documents. Needed where sources have tenants."),
    ] = None,
    all_tenants: Annotated[
        bool, typer.Option("--all-tenants", help="The documents of all tenants, and of none.")
    ] = False,
    principals: Annotated[
        list[str] | None,
        typer.Option(
            "--as",
            metavar="PRINCIPAL",
            help="Only what this user or group may read (user:bob, group:hr), or everybody. May be"
            " repeated. Without it access lists do not count.",
        ),
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help=r"Ranking. \[default: hybrid where there are sparse vectors]", show_default=False
        ),
    ] = None,
    reranker: Annotated[
        str | None,
        typer.Option("--rerank", metavar="NAME", help="Order the best hits anew by this reranker."),
    ] = None,
    no_rerank: Annotated[
        bool, typer.Option("--no-rerank", help="Leave out the alias's reranker.")
    ] = False,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help='JSON lines {"query": text}, also with "tenant", "as": [...] and "user"; - for'
            " standard input; writes one JSON line for each.",
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            metavar="ID",
            help="Who asks: during a canary all searches of a user have one arm.",
        ),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find chunks by meaning, by words, or both."""
    session = Session(context, config=config, as_json=as_json)
    if (query is None) == (batch is None):
        raise wrong_use(option="QUERY", problem="give either a query or --batch FILE")
    from ragassets.queries.answers import answer
    from ragassets.queries.reranking import find_reranking
    from ragassets.queries.search import choose_mode, resolve_target
    from ragassets.queries.search_access import Caller
    from ragassets.queries.search_recorder import SearchRecorder

    caller = Caller(tenant, all_tenants=all_tenants, principals=principals or None)
    questions, accesses = _questions(session, query, batch, caller, user)
    conditions = _parse_filters(filters or [])
    target = resolve_target(session.workspace, alias=alias, index_version=index_version)
    if target.note:
        note(f"attention: {target.note}")
    wanted = cast("SearchMode | None", mode and mode.value)
    chosen = choose_mode(session.workspace, target, wanted)
    if wanted not in (None, chosen):
        note(f"attention: this vector store holds no sparse vectors: {chosen} instead of {wanted}")
    recorder = SearchRecorder(session.workspace.search_log) if target.canary else None
    answers = answer(
        session.workspace,
        target,
        questions,
        mode=wanted,
        limit=limit,
        filters=conditions,
        accesses=accesses,
        reranking=find_reranking(session.workspace, target.alias, reranker, is_off=no_rerank),
        recorder=recorder,
    )
    if batch is not None:
        _write_batch(session, answers, conditions)
        _note_unwritten(recorder)
        return
    with waiting("Searching; the first search of a process loads the model ..."):
        found = next(answers)
    _note_fallback(found)
    if session.as_json:
        write_json(_as_json(found))
    else:
        _write_hits(found.hits, questions[0].text)
    if not found.hits:
        _note_unknown_filters(session, conditions)
    _note_unwritten(recorder)


def _note_unwritten(recorder: "SearchRecorder | None") -> None:
    """Say that a comparison will miss these searches, once they are answered."""
    problems = [] if recorder is None else recorder.close()
    if problems:
        note(f"attention: searches were answered and not written down: {problems[0]}")


def _write_batch(
    session: Session, answers: Iterator["Answer"], conditions: Mapping[str, str]
) -> None:
    has_hits, has_noted = False, False
    for found in answers:
        has_hits |= bool(found.hits)
        if found.fallback and not has_noted:
            _note_fallback(found)
            has_noted = True
        write_json_line({"query": found.question.text, **_as_json(found)})
    if not has_hits:
        _note_unknown_filters(session, conditions)


def _as_json(found: "Answer") -> dict[str, object]:
    """The public shape; only during a canary is there a choice to tell of."""
    hits = [hit.as_json() for hit in found.hits]
    if found.arm is None:
        return {"hits": hits}
    return {
        "hits": hits,
        "index_version": found.index_version,
        "arm": found.arm,
        "search_id": found.search_id,
    }


def _note_fallback(found: "Answer") -> None:
    if found.fallback:
        note(f"attention: {found.fallback}; {found.index_version!r} answered instead")


def _note_unknown_filters(session: Session, conditions: Mapping[str, str]) -> None:
    """Say that a filter key is misspelt: without it, no hits look like no documents."""
    from ragassets.queries.search import filter_keys, unknown_filter_keys

    for key, near in unknown_filter_keys(session.workspace, conditions).items():
        advice = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        note(
            f"attention: --filter {key!r} is no key of any hit; {advice}known:"
            f" {', '.join(filter_keys(session.workspace))}"
        )


def _parse_filters(filters: list[str]) -> dict[str, str]:
    conditions: dict[str, str] = {}
    for text in filters:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise wrong_use(option="--filter", problem=f"{text!r} is not KEY=VALUE")
        if key in conditions:
            raise wrong_use(option="--filter", problem=f"{key!r} is given twice")
        conditions[key] = value
    return conditions


def _questions(
    session: Session, query: str | None, batch: str | None, caller: "Caller", user: str | None
) -> "tuple[list[Question], list[Access]]":
    """What is asked, and for whom; lines that name no user are of the one that is named."""
    from ragassets.queries.questions import Question, parse_batch
    from ragassets.queries.search_access import batch_accesses, decide_access

    config = session.workspace.config
    if batch is None:
        return [Question(query or "", user)], [decide_access(config, caller)]
    text, origin = _read_batch(batch), "standard input" if batch == "-" else batch
    lines = parse_batch(text, origin=origin)
    questions = [line if line.user is not None else Question(line.text, user) for line in lines]
    return questions, batch_accesses(config, caller, text, origin=origin)


def _read_batch(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(
            key="--batch", value=file, problem=f"cannot be read ({reason})", fix="Name a text file"
        ) from error


def _write_hits(hits: "Sequence[Hit]", query: str) -> None:
    if not hits:
        write_line("No hits.")
        hint("Is the document there? ragassets status, ragassets why PATH")
        return
    for rank, hit in enumerate(hits, start=1):
        page = f" page {hit.page}" if hit.page else ""
        score = hit.score if hit.rerank_score is None else hit.rerank_score
        heading = f"{rank}. {score:.4f}  {hit.uri}{page}  [{hit.source}]"
        if is_terminal():
            _write_rich_hit(heading, hit, query)
        else:
            write_line(heading)
            write_line(f"   {_snippet(hit.text)}")
    hint(f"More of a hit: ragassets show '{unquote(hits[0].uri.removeprefix('file://'))}'")


def _write_rich_hit(heading: str, hit: "Hit", query: str) -> None:
    from rich.padding import Padding
    from rich.text import Text

    snippet = Text(_snippet(hit.text))
    words = [re.escape(word) for word in re.findall(r"\w{3,}", query)]
    if words:
        snippet.highlight_regex(rf"(?i)\b({'|'.join(words)})", style="bold yellow")
    screen = console()
    screen.print(Text(heading, style="bold"))
    screen.print(Padding(snippet, (0, 0, 1, 3)))


def _snippet(text: str) -> str:
    """The text on one line, cut at a word."""
    line = " ".join(text.split())
    if len(line) <= SNIPPET_CHARS:
        return line
    return f"{line[:SNIPPET_CHARS].rsplit(' ', 1)[0]} …"


def show(
    context: typer.Context,
    document: Annotated[str, typer.Argument(metavar="URI", help="A URI, or a path.")],
    stage: Annotated[TextStage, typer.Option(help="Which stage's text to show.")] = TextStage.clean,
    chunking: Annotated[
        str | None,
        typer.Option(help=r"Which chunking's chunks. \[default: of the first automatic index]"),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the text that a stage made of a document."""
    session = Session(context, config=config, as_json=as_json)
    from ragassets.queries import show as showing

    if stage is not TextStage.chunks:
        text = showing.show_text(session.workspace, document, stage=stage.value)
        if session.as_json:
            write_json(text.as_json())
        else:
            write_line(text.text)
        return
    chunks = showing.show_chunks(session.workspace, document, chunking=chunking)
    if session.as_json:
        write_json(chunks.as_json())
        return
    for number, chunk in enumerate(chunks.chunks, start=1):
        page = f", page {chunk.page}" if chunk.page else ""
        write_line(
            f"--- {number} of {len(chunks.chunks)}: {chunk.chunk_id}, characters"
            f" {chunk.start_char}-{chunk.end_char}, {chunk.n_tokens} tokens{page}"
        )
        write_line(chunk.text)
