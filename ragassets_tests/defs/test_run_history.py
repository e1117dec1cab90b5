"""What the UI showed of a document goes from the history of runs, and nothing else."""

import json
from pathlib import Path

import dagster as dg
from dagster import DagsterInstance

from ragassets.defs.instance import open_instance
from ragassets.defs.metadata import markdown_table
from ragassets.defs.run_history import scrub_run_history

SECRET = "file:///srv/documents/people/a%20secret%20letter%20about%20a%20zeppelin.md"
OTHER = "file:///srv/documents/people/an%20invitation%20to%20a%20summer%20party.md"


def _record(instance: DagsterInstance) -> None:
    @dg.asset
    def chunks() -> dg.MaterializeResult[None]:
        rows = [{"uri": SECRET, "text": "zeppelin words"}, {"uri": OTHER, "text": "party words"}]
        return dg.MaterializeResult(metadata={"preview": markdown_table(rows), "n_chunks": 2})

    assert dg.materialize([chunks], instance=instance).success


def _bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_lines_that_name_the_document_go_and_the_rest_stays(tmp_path: Path) -> None:
    with open_instance(tmp_path) as instance:
        _record(instance)
        assert b"zeppelin words" in _bytes(tmp_path)

        scrubbed = scrub_run_history(instance, [SECRET])

        assert scrubbed.n_changed > 0
        assert scrubbed.note == ""
        assert b"zeppelin" not in _bytes(tmp_path)
        event = instance.get_latest_materialization_event(dg.AssetKey("chunks"))
        assert event is not None
        made = event.asset_materialization
        assert made is not None
        assert made.metadata["n_chunks"].value == 2
        preview = str(made.metadata["preview"].value)
        assert "party words" in preview
        assert len(preview.splitlines()) == 3
        assert scrub_run_history(instance, [SECRET]).n_changed == 0


def test_no_name_changes_nothing(tmp_path: Path) -> None:
    with open_instance(tmp_path) as instance:
        _record(instance)
        assert scrub_run_history(instance, []).n_changed == 0
        assert json.dumps("zeppelin words").encode()[1:-1] in _bytes(tmp_path)
