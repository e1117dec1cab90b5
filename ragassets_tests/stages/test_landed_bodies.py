"""Bytes that came with a listing: kept as long as a listing names them, and no longer."""

from pathlib import Path

import pytest

from ragassets.adapters.workspace import Workspace
from ragassets.core.fingerprints import document_id
from ragassets.core.sources import Listing, SourceObject
from ragassets.errors import MissingRawBytesError
from ragassets.queries.audit_storage import audit_landing_zone, unused_raw_bytes
from ragassets.queries.forgotten import prove_forgotten
from ragassets.stages.forgetting import forget_documents
from ragassets.stages.source_objects import SourceDiscovery, read_known_objects, record_listing
from ragassets.stages.tombstones import Named
from ragassets_tests.scenario import Project
from ragassets_tests.stage_runs import NOW, context

URI = "stream://topic/{}"
HELLO_SHA256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A project that has read nothing yet."""
    project = Project(tmp_path / "project")
    project.configure_source(shards=1)
    return Workspace(project.config)


def land(workspace: Workspace, **bodies: str) -> dict[str, str]:
    """Keep bodies as a source does that reads a stream; their ETags by name."""
    named = {URI.format(name): body.encode() for name, body in bodies.items()}
    etags = workspace.landed_bodies("handbook").land(named)
    return {name: etags[URI.format(name)] for name in bodies}


def record(workspace: Workspace, etags: dict[str, str], *deleted: str) -> SourceDiscovery:
    """Record what was landed."""
    listing = Listing(
        [SourceObject(URI.format(name), etag, 5, NOW) for name, etag in etags.items()],
        is_complete=False,
        deleted=[URI.format(name) for name in deleted],
    )
    return record_listing(workspace, read_known_objects(workspace, "handbook"), listing, now=NOW)


def stored(workspace: Workspace) -> int:
    """How many objects the landing zone has."""
    return len(list(workspace.landing_zone.content_hashes()))


def test_a_body_is_read_back_by_its_etag(workspace: Workspace) -> None:
    etags = land(workspace, a="hello", b="world", c="hello")
    assert etags["a"] == etags["c"] == f"sha256:{HELLO_SHA256}"
    assert workspace.landed_bodies("handbook").read(etags["b"]) == b"world"
    assert stored(workspace) == 2


def test_a_body_that_was_lost_says_so(workspace: Workspace) -> None:
    with pytest.raises(MissingRawBytesError, match=HELLO_SHA256):
        workspace.landed_bodies("handbook").read(f"sha256:{HELLO_SHA256}")


def test_a_repair_keeps_what_a_listing_names_and_no_run_has_fetched(workspace: Workspace) -> None:
    """Nobody could fetch it again."""
    record(workspace, land(workspace, a="hello"))
    land(workspace, never_recorded="was killed before the commit")
    (unused,) = unused_raw_bytes(workspace)
    assert unused != HELLO_SHA256
    found = {finding.name: finding.count for finding in audit_landing_zone(workspace)}
    assert found == {"missing_raw_bytes": 0, "damaged_raw_bytes": 0, "unused_raw_bytes": 1}


def test_what_was_replaced_or_deleted_is_not_kept(workspace: Workspace) -> None:
    record(workspace, land(workspace, a="hello", b="world"))
    record(workspace, land(workspace, a="hello again"), "b")
    assert len(unused_raw_bytes(workspace)) == 2
    assert HELLO_SHA256 in unused_raw_bytes(workspace)


def test_lost_bytes_of_a_listed_body_are_found(workspace: Workspace) -> None:
    record(workspace, land(workspace, a="hello"))
    workspace.landing_zone.delete(HELLO_SHA256)
    missing, *_ = audit_landing_zone(workspace)
    assert (missing.name, missing.count) == ("missing_raw_bytes", 1)


def test_forgetting_removes_bytes_that_never_became_a_document(workspace: Workspace) -> None:
    """Earlier bytes, too; those of another document stay."""
    record(workspace, land(workspace, secret="first", other="hello"))
    record(workspace, land(workspace, secret="second"))
    secret = Named(document_id("handbook", URI.format("secret")), "handbook")
    forgotten = forget_documents(
        workspace, [secret], context(workspace), actor="somebody", reason="they asked"
    )
    assert list(workspace.landing_zone.content_hashes()) == [HELLO_SHA256]
    assert forgotten.n_objects == 2
    assert len(forgotten.traces.content_hashes[secret.document_id]) == 2
    assert prove_forgotten(workspace, [secret], forgotten.traces).left == ()


def test_bytes_that_are_left_of_a_forgotten_document_spoil_the_proof(workspace: Workspace) -> None:
    record(workspace, land(workspace, secret="hello"))
    secret = Named(document_id("handbook", URI.format("secret")), "handbook")
    forgotten = forget_documents(
        workspace, [secret], context(workspace), actor="somebody", reason="they asked"
    )
    workspace.landing_zone.put(b"hello")
    proof = prove_forgotten(workspace, [secret], forgotten.traces)
    assert proof.left == ("bytes in the landing zone",)


def test_a_forgotten_document_is_not_landed_again(workspace: Workspace) -> None:
    """A stream may send it for ever; nothing of it may reach the disk."""
    record(workspace, land(workspace, secret="first"))
    secret = Named(document_id("handbook", URI.format("secret")), "handbook")
    forget_documents(workspace, [secret], context(workspace), actor="somebody", reason="they asked")
    found = record(workspace, land(workspace, secret="hello"))
    assert (found.n_new, found.n_objects, stored(workspace)) == (0, 0, 0)
