"""Parse every document of the shared corpus and write docs/documents.md.

Run from the repository root: python -m benchmarks.documents_report
"""

import argparse
import json
import re
import statistics
import sys
import time
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from ragassets.adapters.parsers.registry import default_parsers
from ragassets.core.parsing import Parser, parse_document
from ragassets.errors import (
    CorruptDocumentError,
    DocumentError,
    EmptyDocumentError,
    EncryptedDocumentError,
    NeedsOcrError,
    UnsupportedFormatError,
)
from ragassets_tests.corpora import corpora_root

REPORT = Path(__file__).parents[1] / "docs" / "documents.md"
RIGHT_REFUSALS = {
    "no_text": (EmptyDocumentError, NeedsOcrError),
    "empty": (EmptyDocumentError,),
    "encrypted": (EncryptedDocumentError,),
    "corrupt": (CorruptDocumentError, EmptyDocumentError),
    "unsupported": (UnsupportedFormatError,),
}
COMPARED = (
    "docx/handbook-1p.docx", "docx/test.docx", "pptx/fake-power-point.pptx",
    "xlsx/stanley-cups.xlsx", "eml/fake-email.eml", "msg/fake-email.msg", "odt/simple.odt",
    "rtf/fake-doc.rtf", "epub/test.epub",
)  # fmt: skip
# One of each format, with other texts, so that imports and models are loaded.
WARM_UP = (
    "docx/simple.docx", "pptx/fake-power-point-table.pptx", "xlsx/test.xlsx",
    "eml/family-day.eml", "msg/fake-email-attachment.msg", "odt/eng_spa_mult.odt", "rtf/test.rtf",
    )  # fmt: skip
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


@dataclass(frozen=True)
class Outcome:
    """What became of one document."""

    path: str
    format: str
    expectation: str
    is_right: bool
    parser: str
    """Name of the parser that gave the text; the error's reason where none did."""
    problem: str
    n_optional_missing: int
    milliseconds: float


def normalize(text: str) -> str:
    """The corpus's own rule for comparing phrases."""
    return " ".join(_INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).split())


def judge(entry: dict, root: Path, parsers: tuple[Parser, ...]) -> Outcome:
    """Parse one document and compare the outcome with what the manifest expects."""
    path = root.parent / entry["path"]
    data = path.read_bytes()
    text, parser, problem, is_right = "", "", "", False
    started = time.perf_counter()
    try:
        document = parse_document(data, uri=path.as_uri(), parsers=parsers)
        text, parser = normalize(document.text), document.parser
    except DocumentError as error:
        parser = f"({error.reason})"
        problem = error.detail
        is_right = isinstance(error, RIGHT_REFUSALS.get(entry["expectation"], ()))
    seconds = time.perf_counter() - started
    if text:
        missing = [phrase for phrase in entry["phrases"] if normalize(phrase) not in text]
        found = [phrase for phrase in entry.get("forbidden", ()) if phrase in text]
        is_right = entry["expectation"] in ("text", "ocr") and not missing and not found
        problem = f"missing {missing}, forbidden {found}" if not is_right else ""
    optional = [p for p in entry.get("phrases_optional", ()) if normalize(p) not in text]
    return Outcome(
        entry["path"].removeprefix("documents/"), entry["format"], entry["expectation"], is_right,
        parser, "" if is_right else problem, len(optional), seconds * 1000,
    )  # fmt: skip


def render_table(outcomes: list[Outcome]) -> list[str]:
    """One row for every format and expectation."""
    groups: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.format, outcome.expectation].append(outcome)
    lines = [
        "| format | expected | files | right | not right | by (files) | median ms | longest ms |",
        "| --- | --- | ---: | ---: | --- | --- | ---: | ---: |",
    ]
    for (format_, expectation), group in sorted(groups.items()):
        parsers = Counter(outcome.parser for outcome in group)
        wrong = Counter(outcome.parser for outcome in group if not outcome.is_right)
        times = [outcome.milliseconds for outcome in group]
        lines.append(
            f"| {format_} | {expectation} | {len(group)} | {sum(o.is_right for o in group)} |"
            f" {', '.join(f'{n} {reason}' for reason, n in wrong.items())} |"
            f" {', '.join(f'{name} {n}' for name, n in parsers.items())} |"
            f" {statistics.median(times):.1f} | {max(times):.0f} |"
        )
    return lines


def render_comparison(root: Path, parsers: tuple[Parser, ...]) -> list[str]:
    """Light parsers against `unstructured` on the same files, one run each after a warm-up.

    One run, because `unstructured` remembers what it found for a text, and a second run would show
    nothing but that memory.
    """
    general = tuple(parser for parser in parsers if parser.name == "unstructured")
    lines = [
        "| document | by | ms | unstructured, ms | times faster |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for chain in (parsers, general):
        for name in WARM_UP:
            time_parse(root / name, chain)
    for name in COMPARED:
        light_ms, parser = time_parse(root / name, parsers)
        general_ms, _ = time_parse(root / name, general)
        ratio = general_ms / light_ms
        lines.append(f"| {name} | {parser} | {light_ms:.1f} | {general_ms:.1f} | {ratio:.1f} |")
    return lines


def time_parse(path: Path, parsers: tuple[Parser, ...]) -> tuple[float, str]:
    """Milliseconds and the name of the parser."""
    data = path.read_bytes()
    started = time.perf_counter()
    parser = parse_document(data, uri=path.as_uri(), parsers=parsers).parser
    return (time.perf_counter() - started) * 1000, parser


def render_report(outcomes: list[Outcome], comparison: list[str]) -> str:
    """The whole page."""
    n_right = sum(outcome.is_right for outcome in outcomes)
    lines = [
        "# Documents",
        "",
        (
            "Made by `make documents` (`python -m benchmarks.documents_report`) from the shared"
            " corpus"
            " `documents`: real files of other projects' test suites. Do not edit."
        ),
        "",
        (
            f"**{n_right} of {len(outcomes)} documents are right.** Right means: `text` gives every"
            " phrase of the manifest and nothing forbidden; `encrypted`, `corrupt`, `unsupported`,"
            " `empty` and `no_text` are refused with the matching reason, so that the document"
            " becomes"
            " a dead letter and the run goes on. `ocr` documents hold pictures of text; until OCR"
            " is"
            " built they are refused with the reason `needs_ocr` and counted as not right."
        ),
        "",
        (
            "In the column `by`, a name is the parser that gave the text and a reason in"
            " parentheses is the refusal. Times are of one run on a shared machine, imports"
            " included; they show orders of magnitude."
        ),
        "",
        *render_table(outcomes),
        "",
        "## Not right",
        "",
        "| document | expected | got | why |",
        "| --- | --- | --- | --- |",
        *(
            f"| {o.path} | {o.expectation} | {o.parser} | {o.problem.replace('|', '/')} |"
            for o in outcomes
            if not o.is_right
        ),
        "",
        "## Nice to have",
        "",
        (
            f"{sum(o.n_optional_missing for o in outcomes)} of the manifest's optional phrases"
            " (page"
            " headers, comments, attachments, encoded subjects) are missing."
        ),
    ]
    if comparison:
        lines += [
            "",
            "## Light parsers against `unstructured`",
            "",
            (
                "One run each after a warm-up, on the same machine. `unstructured` runs a language"
                " model"
                " over every paragraph; it stays the fallback of office, mail and e-book formats."
            ),
            "",
            *comparison,
        ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Parse, compare, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--no-comparison", action="store_true", help="leave unstructured out")
    arguments = options.parse_args()
    root = corpora_root() / "documents"
    manifest = root / "manifest.jsonl"
    if not manifest.exists():
        sys.exit(f"the corpus is not on this machine: {manifest} (set RAGASSETS_CORPORA)")
    entries = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]
    parsers = default_parsers()
    outcomes: list[Outcome] = []
    for number, entry in enumerate(entries, 1):
        if sys.stderr.isatty():
            print(f"\r{number}/{len(entries)} {entry['path'][:60]:60}", end="", file=sys.stderr)
        outcomes.append(judge(entry, root, parsers))
    comparison = [] if arguments.no_comparison else render_comparison(root, parsers)
    REPORT.write_text(render_report(outcomes, comparison), encoding="utf-8")
    n_right = sum(outcome.is_right for outcome in outcomes)
    print(f"{n_right} of {len(outcomes)} right; wrote docs/{REPORT.name}")


if __name__ == "__main__":
    main()
