"""The vector ledger gives back what it was given, at a cost that does not follow its size."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragassets.adapters import vector_ledger
from ragassets.adapters.tables import DeltaTables
from ragassets.adapters.vector_ledger import VectorLedger
from ragassets.core import vector_ledger as shape
from ragassets.core.vector_ledger import VECTOR_LEDGER, depth_of, places_of
from ragassets.errors import ConcurrentWriteError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIM = 4


def text_hash(number: int) -> str:
    """A hash that is as evenly spread as a real one."""
    return np.random.default_rng(number).bytes(16).hex()


def rows(*numbers: int, of: str = "m") -> pl.DataFrame:
    """Vectors that say which text and model they belong to."""
    seed = sum(of.encode())
    vectors = [[float(n), float(seed), 0.0, 1.0] for n in numbers]
    return pl.DataFrame(
        {"text_hash": [text_hash(n) for n in numbers], "vector": vectors},
        schema={"text_hash": pl.String, "vector": pl.List(pl.Float32)},
    )


def held(ledger: VectorLedger, model: str, numbers: range) -> dict[int, list[float]]:
    """What the ledger has of these texts."""
    names = {text_hash(n): n for n in numbers}
    found = ledger.vectors(model, list(names))
    assert found.height == found["text_hash"].n_unique()
    assert ledger.known(model, list(names)) == set(found["text_hash"])
    return {names[name]: vector for name, vector in found.iter_rows()}


@pytest.fixture
def tables(tmp_path: Path) -> DeltaTables:
    """An empty root."""
    return DeltaTables(str(tmp_path))


@pytest.fixture
def small_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partitions of a few rows and files, so that a small ledger has all its shapes."""
    for name, value in {"ROOT_ROWS": 6, "NODE_ROWS": 6, "ROOT_FILES": 2, "NODE_FILES": 2}.items():
        monkeypatch.setattr(shape, name, value)
    monkeypatch.setattr(vector_ledger, "BATCH_ROWS", 8)


def test_an_empty_ledger_knows_nothing(tables: DeltaTables) -> None:
    """The first run of all asks it too."""
    ledger = VectorLedger(tables)
    assert ledger.known("m", [text_hash(1)]) == set()
    assert ledger.vectors("m", []).is_empty()
    assert ledger.models() == []
    assert ledger.forget([text_hash(1)]) == 0
    assert ledger.compact("m") == 0
    assert tables.tables() == []


def test_models_do_not_share_vectors(tables: DeltaTables) -> None:
    """Vectors of two models never mix."""
    ledger = VectorLedger(tables)
    ledger.add("m", rows(1, 2), now=NOW)
    ledger.add("n", rows(2, of="n"), now=NOW)
    assert held(ledger, "m", range(4)) == {1: [1, 109, 0, 1], 2: [2, 109, 0, 1]}
    assert held(ledger, "n", range(4)) == {2: [2, 110, 0, 1]}
    assert ledger.models() == ["m", "n"]


STEP = st.one_of(
    st.tuples(st.just("add"), st.sets(st.integers(0, 60), min_size=1, max_size=25)),
    st.tuples(st.just("forget"), st.sets(st.integers(0, 60), min_size=1, max_size=5)),
)


@pytest.mark.usefixtures("small_nodes")
@settings(max_examples=8, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=8))
def test_whatever_happened_it_holds_what_was_added_and_not_forgotten(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, set[int]]]
) -> None:
    """Merging and pushing down rows must not lose one, nor bring a forgotten one back."""
    ledger = VectorLedger(DeltaTables(str(tmp_path_factory.mktemp("ledger"))))
    expected: dict[int, list[float]] = {}
    for kind, numbers in steps:
        if kind == "add":
            new = sorted(numbers - expected.keys())
            ledger.add("m", rows(*new), now=NOW)
            expected |= {n: [float(n), 109.0, 0.0, 1.0] for n in new}
        else:
            gone = ledger.forget([text_hash(n) for n in numbers])
            assert gone == len(numbers & expected.keys())
            expected = {n: v for n, v in expected.items() if n not in numbers}
    assert held(ledger, "m", range(61)) == expected
    listed = {name for part in ledger.hashes("m") for name in part["text_hash"]}
    assert listed == {text_hash(n) for n in expected}


@pytest.mark.usefixtures("small_nodes")
def test_files_stay_few_at_every_level(tables: DeltaTables) -> None:
    """A lookup opens the files of the wanted partitions: their number must be bounded."""
    ledger = VectorLedger(tables)
    for number in range(24):
        ledger.add("m", rows(number), now=NOW)
    sizes = tables.partition_sizes(tables.snapshot(VECTOR_LEDGER))
    assert sizes["n_files"].max() <= 2
    assert sizes["n_rows"].sum() == 24
    assert sizes["prefix"].str.len_chars().max() == 1
    assert len(held(ledger, "m", range(50))) == 24


@pytest.mark.usefixtures("small_nodes")
@pytest.mark.parametrize("moment", [0, 1, 3, 5, 6])
def test_a_kill_while_rows_move_down_leaves_them_readable(
    tables: DeltaTables, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """They are copied before they leave, and a row twice counts once."""
    ledger = VectorLedger(tables)
    with monkeypatch.context() as patch:
        patch.setattr(shape, "ROOT_FILES", 100)
        for start in (0, 3, 6):
            ledger.add("m", rows(start, start + 1, start + 2), now=NOW + timedelta(hours=start))
    before = held(ledger, "m", range(20))
    effects: list[str] = []
    with monkeypatch.context() as patch:

        def dying(name: str, original: Callable[..., int], *args: object) -> int:
            if len(effects) == moment:
                raise KeyboardInterrupt
            effects.append(name)
            return original(tables, *args)

        for name in ("append", "replace"):
            patch.setattr(tables, name, partial(dying, name, getattr(DeltaTables, name)))
        with pytest.raises(KeyboardInterrupt):
            ledger.compact("m")
    assert effects == ["append"] * moment
    assert held(ledger, "m", range(20)) == before
    ledger.compact("m")
    assert held(ledger, "m", range(20)) == before
    assert ledger.forget([text_hash(n) for n in range(9)]) >= 9
    assert held(ledger, "m", range(20)) == {}


def test_a_merge_that_is_overtaken_loses_nothing(tables: DeltaTables) -> None:
    """Two runs write at once: the one that only tidies up gives way."""
    ledger = VectorLedger(tables)
    ledger.add("m", rows(1), now=NOW)
    base = tables.snapshot(VECTOR_LEDGER)
    ledger.add("m", rows(2), now=NOW)
    with pytest.raises(ConcurrentWriteError, match="_vector_ledger"):
        tables.replace(base, [{"model": "m", "prefix": "-"}], tables.read_at(base))
    assert sorted(held(ledger, "m", range(4))) == [1, 2]


def test_a_lookup_reads_only_the_files_of_the_wanted_texts(
    tables: DeltaTables, tmp_path: Path
) -> None:
    """Bounded means that the other files may as well not be there."""
    ledger = VectorLedger(tables)
    ledger.add("m", rows(*range(17_000)), now=NOW)
    ledger.add("n", rows(1), now=NOW)
    wanted = text_hash(7)
    for file in (tmp_path / "tables" / "_vector_ledger").glob("model=*/prefix=*/*.parquet"):
        if f"model=m/prefix={wanted[0]}/" not in str(file):
            file.unlink()
    assert ledger.vectors("m", [wanted])["vector"].to_list() == [[7, 109, 0, 1]]


def test_sizes_decide_how_deep_a_write_goes() -> None:
    """A small write is one file; a large one is laid out as lookups want it at once."""
    assert [depth_of(n) for n in (1, 16_384, 16_385, 262_144, 262_145, 10**12)] == [
        0,
        0,
        1,
        1,
        2,
        4,
    ]
    assert places_of(["abcdef", "ab0000"]) == ["-", "a", "ab", "ab0", "ab00", "abc", "abcd"]
