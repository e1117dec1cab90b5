"""The command and `dagster dev` write to one instance, whatever folder they are started in."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from ragassets.defs.instance import (
    WORKER_TAG,
    fail_abandoned_runs,
    open_instance,
    worker_tags,
)
from ragassets.errors import ConfigurationError

TEMPLATES = Path(__file__).parents[2] / "ragassets" / "templates"

# What `dagster dev` does without DAGSTER_HOME: a temporary base, the configuration of the
# working directory (dagster._cli.utils.get_possibly_temporary_instance_for_cli).
COUNT_RUNS_AS_DAGSTER_DEV = """
from dagster._cli.utils import get_possibly_temporary_instance_for_cli
with get_possibly_temporary_instance_for_cli("dagster dev") as instance:
    print(instance.get_runs_count())
"""


@dg.asset
def greeting() -> str:
    return "hello"


@pytest.fixture(autouse=True)
def no_dagster_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dagster.yaml").write_bytes((TEMPLATES / "dagster.yaml").read_bytes())
    return folder


def test_dagster_dev_in_the_project_sees_the_runs_of_the_command(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason for this module: runs of the command appear in the UI."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    with open_instance(project) as instance:
        assert dg.materialize([greeting], instance=instance).success

    seen = subprocess.run(
        [sys.executable, "-c", COUNT_RUNS_AS_DAGSTER_DEV],
        cwd=project,
        env={k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.strip() == "1"
    assert list(elsewhere.iterdir()) == []
    assert sorted(path.name for path in project.iterdir()) == [".dagster", "dagster.yaml"]


def test_dagster_home_wins_over_the_project(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A platform that sets DAGSTER_HOME has one instance for everything."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("storage: {sqlite: {base_dir: state}}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))

    with open_instance(project) as instance:
        dg.materialize([greeting], instance=instance)

    assert (home / "state" / "history" / "runs.db").is_file() or list(
        (home / "state").rglob("*.db")
    )
    assert not (project / ".dagster").exists()


def test_without_dagster_yaml_the_state_goes_under_the_root_and_telemetry_is_off(
    tmp_path: Path,
) -> None:
    """A bare configuration file is enough to run."""
    with open_instance(tmp_path, state_dir=tmp_path / "root" / "dagster") as instance:
        dg.materialize([greeting], instance=instance)
        assert not instance.telemetry_enabled

    assert list((tmp_path / "root" / "dagster").rglob("*.db"))


def test_the_project_queue_runs_one_run_per_shard_and_pools_hold_one(project: Path) -> None:
    """The settings that the design promises are the ones that Dagster understood."""
    with open_instance(project) as instance:
        queue = instance.get_concurrency_config().run_queue_config
        pools = instance.get_concurrency_config().pool_config
        limits = {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure

    assert queue is not None
    assert [(limit["key"], limit["limit"]) for limit in queue.tag_concurrency_limits] == [
        ("dagster/partition", 1),
        ("dagster/partition/source_shard", 1),
        ("ragassets/backfill", 2),
    ]
    assert pools.default_pool_limit == 1
    assert limits == {"embedding": 1, "vector_store": 1}
    assert pools.pool_granularity is not None
    assert pools.pool_granularity.value == "run"


def test_a_pool_limit_that_a_person_set_stays(project: Path) -> None:
    """Two GPUs are a reason to raise a limit in the UI; the next command must not undo it."""
    with open_instance(project) as instance:
        instance.event_log_storage.set_concurrency_slots("embedding", 2)

    with open_instance(project) as instance:
        limits = {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}

    assert limits == {"embedding": 2, "vector_store": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("storage: [", "cannot be used"),
        ("- a list", "not a mapping"),
        ("storag: {}", "storag"),
    ],
)
def test_a_wrong_dagster_yaml_is_one_clear_error(tmp_path: Path, text: str, said: str) -> None:
    """A person mends it from the message, without a stack trace."""
    (tmp_path / "dagster.yaml").write_text(text)

    with pytest.raises(ConfigurationError, match=r"dagster\.yaml") as caught:
        open_instance(tmp_path)

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_dagster_home_that_does_not_exist_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster itself would answer with a stack trace."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "missing"))

    with pytest.raises(ConfigurationError, match="DAGSTER_HOME"):
        open_instance(tmp_path)


def test_a_state_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    """The folder is a file here, so that the test also holds for root."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="cannot be written"):
        open_instance(tmp_path, state_dir=tmp_path / "file" / "dagster")


def test_a_run_whose_process_was_killed_is_marked_and_a_living_one_is_not(tmp_path: Path) -> None:
    """Otherwise it stays "started" in the UI and holds its place in the queue."""
    gone = worker_tags()[WORKER_TAG].rsplit(":", 2)[0] + ":999999999:0"
    with open_instance(tmp_path) as instance:
        dead, alive, foreign = (
            instance.create_run_for_job(
                dg.define_asset_job("job").resolve(
                    asset_graph=dg.Definitions(assets=[greeting]).resolve_asset_graph()
                ),
                status=dg.DagsterRunStatus.STARTED,
                tags=tags,
            ).run_id
            for tags in ({WORKER_TAG: gone}, worker_tags(), {})
        )

        assert fail_abandoned_runs(instance) == [dead]
        statuses = {run.run_id: run.status for run in instance.get_runs()}

    assert statuses == {
        dead: dg.DagsterRunStatus.FAILURE,
        alive: dg.DagsterRunStatus.STARTED,
        foreign: dg.DagsterRunStatus.STARTED,
    }
