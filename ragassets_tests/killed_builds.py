"""A build that is killed again and again, against an undisturbed one of the same documents.

The real command, the real model, the real embedded engine: `python -m ragassets_tests.killed_builds
CONFIG LOG [MOMENT N]` is `ragassets ingest`, that notes what the model is given and kills its whole
process group at the Nth time that a moment comes. Both builds live under the same path, one after
the other, because ids follow from paths.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ragassets_tests.generated_corpus import write_document, write_documents
from ragassets_tests.scenario import VOLATILE, Project, watched_effects

SEED = 20261122
N_SHARDS = 8
CHUNKING = "small"
MODEL = "minilm"
WINDOW_TEXTS = 512
"""Texts between two checkpoints of the bundled model on a CPU."""

BATCHES_INTO_THE_WINDOW = 3
"""Of about six that the model makes of a window of short texts."""

IN_MODEL = "in the model"
MODEL_DONE = "the model is done"
"""The window is embedded, and no checkpoint has it."""

MEASUREMENTS = frozenset({"_embedding_speed", "_vector_ledger_upkeep", "_unused_vectors"})
"""Tables that say how fast, and when the daily look at the ledger was taken and what it found."""

TIMES = VOLATILE | {"listed_at"}

PLACEMENT: Mapping[str, frozenset[str]] = {"_vector_ledger": frozenset({"prefix", "embedded_at"})}
"""Columns that say where a row lies, which depends on how many were written with it."""


@dataclasses.dataclass(frozen=True)
class Kill:
    """When a build is killed."""

    moment: str
    at: int
    phase: int
    """0: of the first build; 1: of the build after documents were edited and deleted."""


@dataclasses.dataclass
class Attempt:
    """One run of the command."""

    is_killed: bool
    seconds: float
    n_started: int
    """Texts that the model was given."""
    n_embedded: int
    """Of windows that it was given and finished."""


@dataclasses.dataclass
class Proof:
    """What the two builds were, and where they differ."""

    n_chunks: int
    undisturbed: list[Attempt]
    killed: list[Attempt]
    kills: list[Kill]
    differences: list[str]
    problems: list[str]
    """Where tables, catalog and collections of the killed build contradict each other."""

    @property
    def n_computed(self) -> int:
        """Texts that the undisturbed build embedded."""
        return sum(attempt.n_started for attempt in self.undisturbed)

    @property
    def n_computed_again(self) -> int:
        """Texts that the killed build embedded beyond that."""
        return sum(attempt.n_started for attempt in self.killed) - self.n_computed

    @property
    def share_lost(self) -> float:
        """Time that one kill costs, as a share of the undisturbed build."""
        whole, broken = (
            sum(attempt.seconds for attempt in attempts)
            for attempts in (self.undisturbed, self.killed)
        )
        return (broken - whole) / whole / len(self.kills)


def kills(n_chunks: int) -> list[Kill]:
    """Five moments, spread over a build of so many chunks and the one after it."""
    n_windows = -(-n_chunks // WINDOW_TEXTS)
    n_writes = -(-n_chunks // 1_000)
    return [
        Kill(IN_MODEL, max(2, n_windows // 3), phase=0),
        # Counted from where the build before was taken up: two thirds of all.
        Kill(MODEL_DONE, max(2, n_windows // 3), phase=0),
        Kill("before replace embeddings", 1, phase=0),
        Kill("after upsert", max(1, n_writes // 2), phase=0),
        Kill("after replace indexed_chunks", 1, phase=1),
    ]


def prove(folder: Path, n_chunks: int) -> Proof:
    """Build undisturbed, then again with kills, and compare everything that is stored."""
    project = Project(folder / "project")
    project.configure(
        workers=2,
        chunkings={CHUNKING: {"max_tokens": 32, "overlap_tokens": 0}},
        index_versions={"v1": {"chunking": CHUNKING, "embedding_model": MODEL}},
    )
    project.configure_source(shards=N_SHARDS)
    documents = write_documents(project.documents, n_chunks, seed=SEED)
    project.save()

    undisturbed = [_attempt(project)]
    _change(project, documents)
    undisturbed.append(_attempt(project))
    assert not any(attempt.is_killed for attempt in undisturbed), project.log.read_text()[-3000:]
    expected = stored(project)

    project = project.restore()
    planned = kills(n_chunks)
    killed: list[Attempt] = []
    for phase in (0, 1):
        if phase:
            _change(project, documents)
        for kill in planned:
            if kill.phase == phase:
                killed.append(_attempt(project, kill))
                assert killed[-1].is_killed, f"{kill} never came"
        killed.append(_attempt(project))
        assert not killed[-1].is_killed, project.log.read_text()[-3000:]
    found = stored(project)
    return Proof(
        n_chunks=expected["table embeddings"].height,
        undisturbed=undisturbed,
        killed=killed,
        kills=planned,
        differences=differences(expected, found),
        problems=project.disagreements() + project.audit(),
    )


def _change(project: Project, documents: list[Path]) -> None:
    """Delete a hundredth of the documents and edit another: points that have to go."""
    for path in documents[::100]:
        path.unlink()
    for path in documents[1::100]:
        text = path.read_text(encoding="utf-8").replace(" sacks of ", " bags of ")
        write_document(path, f"{text}\nThis report was corrected by hand.\n", seconds_later=60)


def _attempt(project: Project, kill: Kill | None = None) -> Attempt:
    """Run the command until it is done or killed."""
    log = project.folder.with_name("embedded.jsonl")
    log.unlink(missing_ok=True)
    moment = (kill.moment, str(kill.at)) if kill else ()
    started = time.monotonic()
    process = project.start(
        "-m", "ragassets_tests.killed_builds", str(project.config_file), str(log), *moment
    )
    code = process.wait()
    seconds = time.monotonic() - started
    _wait_for_the_group(process)
    assert code in (0, -signal.SIGKILL), project.log.read_text(encoding="utf-8")[-3000:]
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    calls = [json.loads(line) for line in lines]
    return Attempt(
        is_killed=code != 0,
        seconds=seconds,
        n_started=sum(call["n_texts"] for call in calls if not call["is_done"]),
        n_embedded=sum(call["n_texts"] for call in calls if call["is_done"]),
    )


def _wait_for_the_group(process: subprocess.Popen[bytes]) -> None:
    """A killed group is gone when its last process is; the next attempt must not meet it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)


# What is stored


def stored(project: Project) -> dict[str, pl.DataFrame]:
    """Every row, every point with payload and vectors, the catalog and the aliases, in order."""
    workspace = project.workspace
    frames: dict[str, pl.DataFrame] = {}
    for path in sorted((project.folder / ".ragassets" / "tables").iterdir()):
        if path.name not in MEASUREMENTS:
            frame = pl.read_delta(str(path))
            dropped = TIMES | PLACEMENT.get(path.name, frozenset())
            frames[f"table {path.name}"] = _sorted(frame.drop(dropped, strict=False))
    catalog = [
        {k: repr(v) for k, v in dataclasses.asdict(row).items() if k not in TIMES}
        for row in workspace.catalog.documents()
    ]
    frames["catalog"] = _sorted(pl.DataFrame(catalog))
    with workspace.vector_store() as store:
        aliases = store.aliases()
        names = store.list_collections()
        configs = {name: store.collection_config(name).model_dump_json() for name in names}
    frames["aliases"] = pl.DataFrame({"alias": list(aliases), "target": list(aliases.values())})
    frames["collections"] = pl.DataFrame({"name": names, "config": [*configs.values()]})
    for name in names:
        shard = project.folder / ".ragassets" / "qdrant" / "collections" / name / "shard"
        frames[f"points of {name}"] = pl.DataFrame(list(_points(shard)))
    return frames


def _sorted(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows in one order, lists as what tells them apart."""
    flat = frame.select(sorted(frame.columns))
    keys = [name for name, kind in flat.schema.items() if not kind.is_nested()]
    return flat.sort(keys, nulls_last=True)


def _points(shard: Path) -> Iterator[dict[str, Any]]:
    """Every point as the engine has it, ordered by id; vectors bit by bit."""
    import numpy as np
    from qdrant_edge import EdgeShard, ScrollRequest

    opened = EdgeShard.load(str(shard))
    offset = None
    try:
        while True:
            request = ScrollRequest(offset=offset, limit=1_000, with_payload=True, with_vector=True)
            records, offset = opened.scroll(request)
            for record in records:
                sparse = record.vector["bm25"]
                yield {
                    "point_id": str(record.id),
                    "payload": json.dumps(record.payload, sort_keys=True),
                    "dense": np.asarray(record.vector["dense"], dtype=np.float32).tobytes(),
                    "sparse": repr(sorted(zip(sparse.indices, sparse.values, strict=True))),
                }
            if offset is None:
                return
    finally:
        opened.close()


def differences(
    expected: Mapping[str, pl.DataFrame], found: Mapping[str, pl.DataFrame]
) -> list[str]:
    """Where two stores are not the same, to the bit."""
    lines: list[str] = []
    for name in sorted(expected.keys() | found.keys()):
        ours, theirs = expected.get(name), found.get(name)
        if ours is None or theirs is None:
            lines.append(f"{name}: only in {'the second' if ours is None else 'the first'}")
        elif ours.schema != theirs.schema:
            lines.append(f"{name}: {ours.schema} and {theirs.schema}")
        elif ours.height != theirs.height:
            lines.append(f"{name}: {ours.height} and {theirs.height} rows")
        else:
            differ = [c for c in ours.columns if not ours[c].equals(theirs[c], null_equal=True)]
            if differ:
                lines.append(f"{name}: other values of {', '.join(differ)}")
    return lines


# The command, killed at a moment


class _Killer:
    """Kills this process group at the Nth time that a moment comes."""

    def __init__(self, moment: str = "", at: str = "0") -> None:
        self.moment, self.remaining = moment, int(at)

    def __call__(self, when: str, what: str) -> None:
        self.note(f"{when} {what}")

    def note(self, moment: str) -> None:
        """Say that a moment has come."""
        if self.is_last(moment):
            os.killpg(os.getpgrp(), signal.SIGKILL)

    def is_last(self, moment: str) -> bool:
        """Whether this is the moment, for the Nth time."""
        if moment != self.moment:
            return False
        self.remaining -= 1
        return self.remaining == 0


@contextmanager
def _watched_model(log: Path, killer: _Killer) -> Iterator[None]:
    """Note how many texts the model is given, and how many it has done."""
    from ragassets.adapters.embedders.sentence_transformers import SentenceTransformersEmbedder
    from ragassets.adapters.embedders.torch_encoder import TokenEncoder

    embed, forward = SentenceTransformersEmbedder.embed_documents, TokenEncoder.forward
    inside = _Killer("forward", "0")

    def note(n_texts: int, *, is_done: bool) -> None:
        line = json.dumps({"n_texts": n_texts, "is_done": is_done}) + "\n"
        with log.open("ab", buffering=0) as file:
            file.write(line.encode())

    def watched(self: SentenceTransformersEmbedder, texts: Any) -> Any:
        note(len(texts), is_done=False)
        if killer.is_last(IN_MODEL):
            inside.remaining = BATCHES_INTO_THE_WINDOW
        vectors = embed(self, texts)
        note(len(texts), is_done=True)
        killer.note(MODEL_DONE)
        return vectors

    def watched_forward(self: TokenEncoder, features: Any) -> Any:
        inside.note("forward")
        return forward(self, features)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SentenceTransformersEmbedder, "embed_documents", watched)
        patch.setattr(TokenEncoder, "forward", watched_forward)
        yield


def main(arguments: list[str]) -> None:
    """`CONFIG LOG [MOMENT N]`: ingest, and note what the model is given."""
    from ragassets.cli import app

    config, log, *moment = arguments
    killer = _Killer(*moment)
    sys.argv = ["ragassets", "ingest", "--config", config]
    with watched_effects(killer), _watched_model(Path(log), killer):
        app()


if __name__ == "__main__":
    main(sys.argv[1:])
