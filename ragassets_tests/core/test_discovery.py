"""Listings to known objects: what is new, changed and gone, and when nothing may go."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragassets.core.asset_tables import SOURCE_OBJECTS
from ragassets.core.discovery import KNOWN_COLUMNS, Discovery, EarlierLooks, Known, apply_listing
from ragassets.core.sources import Listing, SourceObject

START = datetime(2026, 1, 1, tzinfo=UTC)
N_SHARDS = 4


def objects(**etags: str) -> list[SourceObject]:
    """Objects by name and ETag."""
    return [
        SourceObject(f"file:///docs/{name}.md", etag, len(name), START)
        for name, etag in etags.items()
    ]


@dataclass(frozen=True)
class Applied:
    """A listing's changes, and all rows of the source after it."""

    found: Discovery
    rows: pl.DataFrame

    def __getattr__(self, name: str) -> Any:
        """What the listing changes."""
        return getattr(self.found, name)


def apply(
    known: pl.DataFrame,
    listed: list[SourceObject],
    *,
    is_complete: bool = True,
    is_confirmed: bool = False,
    share: float = 0.2,
    n_shards: int = N_SHARDS,
    day: int = 1,
    earlier: EarlierLooks | None = None,
) -> Applied:
    """Fold a listing of the source `docs` into what is known."""
    found = apply_listing(
        Known(known.select(KNOWN_COLUMNS), known.filter(~pl.col("is_deleted")).height),
        Listing(listed, is_complete=is_complete),
        source="docs",
        n_shards=n_shards,
        now=START + timedelta(days=day),
        max_delete_share=share,
        is_confirmed=is_confirmed,
        earlier=earlier,
    )
    is_changed = pl.col("source_shard").is_in(found.changed_shards)
    changed = found.rows_after(known.filter(is_changed))
    assert set(changed["source_shard"]) <= set(found.changed_shards)
    return Applied(found, pl.concat([known.filter(~is_changed), changed]).sort("document_id"))


def nothing() -> pl.DataFrame:
    """A source that was never listed."""
    return SOURCE_OBJECTS.empty_frame()


def alive(found: Applied) -> set[str]:
    """Names of the living objects."""
    rows = found.rows.filter(~pl.col("is_deleted"))
    return {uri.rpartition("/")[2].removesuffix(".md") for uri in rows["uri"]}


def ten(**changes: str) -> list[SourceObject]:
    """Ten objects a to j, some with another ETag."""
    return objects(**({name: f"1-{name}" for name in "abcdefghij"} | changes))


def test_a_first_listing_makes_every_object_new() -> None:
    """And gives each a shard that depends on its own name only."""
    found = apply(nothing(), ten())
    assert (found.n_objects, found.n_new, found.n_changed, found.n_removed) == (10, 10, 0, 0)
    again = apply(nothing(), list(reversed(ten()))[:5])
    shards = dict(found.rows.select("uri", "source_shard").iter_rows())
    assert all(shards[uri] == shard for uri, shard in again.rows["uri", "source_shard"].iter_rows())
    assert set(shards.values()) <= {f"docs-{number:03d}" for number in range(N_SHARDS)}


def test_the_same_listing_changes_nothing() -> None:
    """Not even the times: a table that is written for nothing wakes everything downstream."""
    first = apply(nothing(), ten())
    second = apply(first.rows, ten(), day=2)
    assert second.rows.equals(first.rows)
    assert (second.n_new, second.n_changed, second.n_removed) == (0, 0, 0)


def test_another_etag_is_a_change() -> None:
    """`changed_at` moves, `first_seen_at` stays."""
    first = apply(nothing(), ten())
    second = apply(first.rows, ten(c="2"), day=5)
    assert (second.n_new, second.n_changed, second.n_removed) == (0, 1, 0)
    row = second.rows.filter(pl.col("uri").str.ends_with("c.md")).row(0, named=True)
    assert row["etag"] == "2"
    assert (row["first_seen_at"], row["changed_at"]) == (
        START + timedelta(days=1),
        START + timedelta(days=5),
    )


def test_a_vanished_object_becomes_a_tombstone_and_can_come_back() -> None:
    """The tombstone is what `why` shows of a document that is gone."""
    first = apply(nothing(), ten())
    second = apply(first.rows, ten()[1:], day=2)
    assert second.n_removed == 1
    assert second.rows.height == 10
    assert alive(second) == set("bcdefghij")
    third = apply(second.rows, ten(), day=3)
    assert (third.n_new, alive(third)) == (1, set("abcdefghij"))


class TestGuard:
    @pytest.mark.parametrize(
        ("n_left", "is_refused"), [(9, False), (8, False), (7, True), (0, True)]
    )
    def test_more_than_the_share_is_refused(self, n_left: int, is_refused: bool) -> None:
        """A fifth of ten are two."""
        first = apply(nothing(), ten())
        found = apply(first.rows, ten()[:n_left], day=2)
        assert (found.refusal is not None) == is_refused
        assert len(alive(found)) == (10 if is_refused else n_left)
        assert found.n_removed == (0 if is_refused else 10 - n_left)

    def test_a_refusal_says_how_to_confirm(self) -> None:
        """And how many documents it is about."""
        first = apply(nothing(), ten())
        refusal = apply(first.rows, ten()[:2], day=2).refusal
        assert refusal is not None
        assert "8 of 10" in str(refusal)
        assert "ragassets ingest docs --confirm-deletions" in str(refusal)

    def test_new_and_changed_objects_are_taken_all_the_same(self) -> None:
        """A refused deletion must not hold back the rest of the source."""
        first = apply(nothing(), ten())
        found = apply(first.rows, objects(a="2", z="9"), day=2)
        assert found.refusal is not None
        assert (found.n_new, found.n_changed) == (1, 1)
        assert alive(found) == set("abcdefghijz")

    def test_a_confirmed_listing_deletes(self) -> None:
        """However much it is."""
        first = apply(nothing(), ten())
        found = apply(first.rows, [], is_confirmed=True, day=2)
        assert found.refusal is None
        assert (found.n_removed, alive(found)) == (10, set())

    def test_an_incomplete_listing_deletes_nothing(self) -> None:
        """Not even one object, not even confirmed."""
        first = apply(nothing(), ten())
        found = apply(first.rows, ten()[1:], is_complete=False, is_confirmed=True, day=2)
        assert (found.n_removed, found.refusal, found.n_objects) == (0, None, 10)
        assert alive(found) == set("abcdefghij")

    def test_one_object_may_always_go_unless_it_is_the_last(self) -> None:
        """In a source of three files a share of a fifth would forbid every deletion."""
        three = objects(a="1", b="2", c="3")
        first = apply(nothing(), three)
        assert apply(first.rows, three[1:], day=2).refusal is None
        one = apply(nothing(), three[:1])
        assert apply(one.rows, [], day=2).refusal is not None

    def test_moved_objects_are_not_lost(self) -> None:
        """A renamed folder changes every URI and removes nothing."""
        first = apply(nothing(), ten())
        moved = [
            SourceObject(entry.uri.replace("docs/", "docs/new/"), entry.etag, 1, START)
            for entry in ten()
        ]
        found = apply(first.rows, moved, day=2)
        assert found.refusal is None
        assert (found.n_new, found.n_removed) == (10, 10)


def test_another_number_of_shards_moves_rows_and_tombstones() -> None:
    """A row in a shard that is not configured would never be read again."""
    first = apply(nothing(), ten())
    gone = apply(first.rows, ten()[1:], day=2)
    found = apply(gone.rows, ten()[1:], n_shards=2, day=3)
    assert set(found.rows["source_shard"]) <= {"docs-000", "docs-001"}
    assert found.rows.height == 10
    assert (found.n_new, found.n_changed, found.n_removed) == (0, 0, 0)


names = st.sets(st.sampled_from("abcdefghij"))


@given(st.lists(st.tuples(names, st.booleans()), max_size=6))
def test_without_the_guard_the_last_complete_listing_decides(
    listings: list[tuple[set[str], bool]],
) -> None:
    """Whatever came before; an incomplete one only adds."""
    rows, expected = nothing(), set[str]()
    for day, (listed, is_complete) in enumerate(listings):
        entries = objects(**dict.fromkeys(sorted(listed), "1"))
        found = apply(rows, entries, is_complete=is_complete, share=1.0, day=day)
        rows = found.rows
        expected = set(listed) if is_complete else expected | listed
        assert alive(found) == expected
        assert found.n_objects == len(expected)


def test_one_arrival_excuses_one_disappearance_only() -> None:
    """Files of one build share time and size; a single new name must not explain them all away."""
    same = {f"file{number}": "same" for number in range(100)}
    known = apply(nothing(), objects(**same)).rows
    found = apply(known, objects(renamed="same"))
    assert found.refusal is not None
    assert found.refusal.n_removed == 99
    assert found.n_removed == 0
