"""Documents of any number, made from a seed: for sizes that no corpus of real files has.

Sentences are drawn from lists of parts. Each has 17 to 32 tokens of the bundled model, so that a
chunking with `max_tokens: 32` makes one chunk of each, and no two are alike.
"""

import os
import random
from pathlib import Path

SENTENCES_PER_DOCUMENT = 50

MODIFIED_AT = 1_767_225_600
"""1 January 2026, of every file: a file's time is part of its ETag."""

_WHEN = (
    "In the first week of March",
    "Shortly before the summer holidays",
    "On a rainy Tuesday in October",
    "At the end of the third quarter",
    "During the annual stock count",
    "After the night shift had left",
    "Two days after the audit",
    "While the bridge was closed",
    "Since the new foreman arrived",
    "Before the harbour froze over",
)
_WHO = (
    "the depot at Kessel",
    "the northern printing works",
    "a carrier from the coast",
    "the laboratory on the hill",
    "our oldest supplier",
    "the workshop behind the station",
    "a grower of apples",
    "the cooperative of weavers",
    "the ferry company",
    "the village observatory",
    "the dairy in the valley",
    "the museum of clocks",
)
_DID = (
    "counted",
    "returned",
    "repaired",
    "ordered",
    "weighed",
    "repainted",
    "sorted",
    "insured",
    "misplaced",
    "auctioned",
    "photographed",
    "unpacked",
)
_WHAT = (
    "crates of copper wire",
    "sacks of rye flour",
    "brass valves",
    "folding chairs",
    "rolls of blue felt",
    "glass lenses",
    "copies of the tide tables",
    "barrels of linseed oil",
    "spare bicycle wheels",
    "boxes of seed potatoes",
    "ceramic insulators",
    "wool blankets",
)


def write_documents(folder: Path, n_sentences: int, *, seed: int) -> list[Path]:
    """Write Markdown documents of `SENTENCES_PER_DOCUMENT` sentences each; their paths, in order.

    The same arguments give the same bytes and times.
    """
    drawn = random.Random(seed)
    paths: list[Path] = []
    for number, start in enumerate(range(0, n_sentences, SENTENCES_PER_DOCUMENT)):
        n_own = min(SENTENCES_PER_DOCUMENT, n_sentences - start)
        sentences = [_sentence(drawn, start + offset) for offset in range(n_own)]
        path = folder / f"reports/{number // 100:03d}/{number:05d}.md"
        write_document(path, f"# Report {number}\n\n" + "\n\n".join(sentences) + "\n")
        paths.append(path)
    return paths


def write_document(path: Path, text: str, *, seconds_later: int = 0) -> None:
    """Write a file whose time does not tell when it was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.utime(path, (MODIFIED_AT + seconds_later,) * 2)


def _sentence(drawn: random.Random, number: int) -> str:
    when, who, did, what = (drawn.choice(parts) for parts in (_WHEN, _WHO, _DID, _WHAT))
    return f"{when} {who} {did} {drawn.randint(2, 999)} {what}, file {number}."
