"""A folder of this machine as a source."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ragassets.adapters.sources.local_folder import LocalFolder
from ragassets.errors import ChangedDuringReadError, SourceUnavailableError


def write(folder: Path, *names: str) -> None:
    """Write small files."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}", encoding="utf-8")


def listed(folder: Path, *include: str, exclude: tuple[str, ...] = ()) -> set[str]:
    """Names that a complete listing shows."""
    listing = LocalFolder(str(folder), include or ("**/*",), exclude).list_objects()
    assert listing.is_complete
    return {entry.uri.removeprefix(folder.as_uri() + "/") for entry in listing.objects}


def test_files_below_the_folder_are_listed_with_what_changes_when_they_do(tmp_path: Path) -> None:
    """The ETag must move with the time or the size."""
    write(tmp_path, "a.md")
    folder = LocalFolder(str(tmp_path), ("**/*",), ())
    (entry,) = folder.list_objects().objects
    assert entry.uri == (tmp_path / "a.md").as_uri()
    assert entry.size_bytes == len("text of a.md")
    assert abs((datetime.now(UTC) - entry.modified_at).total_seconds()) < 60
    os.utime(tmp_path / "a.md", ns=(1, 1))
    (touched,) = folder.list_objects().objects
    assert touched.etag != entry.etag


def test_patterns_decide_what_is_wanted(tmp_path: Path) -> None:
    """Hidden files only where a pattern names the dot."""
    write(tmp_path, "a.md", "b.txt", "c/d.md", "c/e/f.md", ".git/config", ".hidden.md")
    assert listed(tmp_path) == {"a.md", "b.txt", "c/d.md", "c/e/f.md"}
    assert listed(tmp_path, "**/*.md") == {"a.md", "c/d.md", "c/e/f.md"}
    assert listed(tmp_path, "./c/**/*") == {"c/d.md", "c/e/f.md"}
    assert listed(tmp_path, "*.md", ".*.md") == {"a.md", ".hidden.md"}
    assert listed(tmp_path, exclude=("c/**",)) == {"a.md", "b.txt"}


def test_only_links_to_files_of_the_folder_are_followed(tmp_path: Path) -> None:
    """A link to a parent folder would never end; one that leads outside could publish anything."""
    docs = tmp_path / "docs"
    write(docs, "a.md")
    write(tmp_path, "outside.md")
    (docs / "outside.md").symlink_to(tmp_path / "outside.md")
    (docs / "link.md").symlink_to(docs / "a.md")
    (docs / "loop").symlink_to(docs)
    assert listed(docs) == {"a.md", "link.md"}


def test_a_link_to_nothing_is_no_deletion(tmp_path: Path) -> None:
    """Its volume may not be mounted now: what was made of it must stay, and a person must know."""
    write(tmp_path, "a.md")
    (tmp_path / "dangling.md").symlink_to(tmp_path / "nowhere.md")
    listing = LocalFolder(str(tmp_path), ("**/*",), ()).list_objects()
    assert not listing.is_complete
    assert f"{tmp_path / 'dangling.md'} is a link to a file that is not there" in listing.message
    assert "exclude it" in listing.message
    assert listed(tmp_path, exclude=("dangling.md",)) == {"a.md"}


@pytest.mark.parametrize("name", ["with space.md", "ümlaut.md", "100%.md", "a#b?c;d.md"])
def test_any_name_can_be_listed_and_fetched(tmp_path: Path, name: str) -> None:
    """URIs are percent-encoded, file names are not."""
    write(tmp_path, name)
    folder = LocalFolder(str(tmp_path), ("**/*",), ())
    (entry,) = folder.list_objects().objects
    assert entry.uri == (tmp_path / name).as_uri()
    assert folder.fetch(entry) == f"text of {name}".encode()


def test_a_name_that_is_not_utf8_can_be_fetched_too(tmp_path: Path) -> None:
    """Old archives hold such names."""
    path = os.fsencode(tmp_path) + b"/caf\xe9.md"
    try:
        Path(os.fsdecode(path)).write_bytes(b"latin")
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    folder = LocalFolder(str(tmp_path), ("**/*",), ())
    (entry,) = folder.list_objects().objects
    assert entry.uri.endswith("caf%E9.md")
    assert folder.fetch(entry) == b"latin"


def test_a_file_uri_names_the_folder_as_well(tmp_path: Path) -> None:
    """`uri` in the configuration may be either."""
    docs = tmp_path / "my docs"
    write(docs, "a.md")
    listing = LocalFolder(docs.as_uri(), ("**/*",), ()).list_objects()
    assert [entry.uri for entry in listing.objects] == [(docs / "a.md").as_uri()]


def test_a_missing_folder_is_an_error_and_not_an_empty_listing(tmp_path: Path) -> None:
    """An empty listing would delete everything."""
    with pytest.raises(SourceUnavailableError, match="Nothing was deleted"):
        LocalFolder(str(tmp_path / "gone"), ("**/*",), ()).list_objects()


def test_a_folder_that_cannot_be_read_makes_the_listing_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is below it is unknown, not gone."""
    write(tmp_path, "a.md", "secret/b.md")
    scandir = os.scandir

    def guarded(path: str) -> object:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    listing = LocalFolder(str(tmp_path), ("**/*",), ()).list_objects()
    assert not listing.is_complete
    assert "secret: Permission denied" in listing.message
    assert len(listing.objects) == 1


def test_a_file_that_cannot_be_looked_at_makes_the_listing_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing network drive shows names and nothing else."""
    write(tmp_path, "a.md", "b.md")
    stat = Path.stat

    def failing(self: Path, **options: bool) -> os.stat_result:
        if self.name == "b.md":
            raise OSError(5, "Input/output error")
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", failing)
    listing = LocalFolder(str(tmp_path), ("**/*",), ()).list_objects()
    assert not listing.is_complete
    assert "b.md: Input/output error" in listing.message


def test_a_file_that_vanishes_is_unavailable(tmp_path: Path) -> None:
    """The next listing says whether it is gone."""
    write(tmp_path, "a.md")
    folder = LocalFolder(str(tmp_path), ("**/*",), ())
    (entry,) = folder.list_objects().objects
    (tmp_path / "a.md").unlink()
    with pytest.raises(SourceUnavailableError):
        folder.fetch(entry)


def test_a_file_that_changes_while_it_is_read_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of one version and half of the next is no document."""
    write(tmp_path, "a.md")
    folder = LocalFolder(str(tmp_path), ("**/*",), ())
    (entry,) = folder.list_objects().objects
    fstat = os.fstat
    calls: list[int] = []

    def growing(descriptor: int) -> os.stat_result:
        calls.append(descriptor)
        if len(calls) == 2:
            (tmp_path / "a.md").write_text("longer than it was before")
        return fstat(descriptor)

    monkeypatch.setattr("ragassets.adapters.sources.local_folder.os.fstat", growing)
    with pytest.raises(ChangedDuringReadError):
        folder.fetch(entry)
