"""Which Dagster instance the `ragassets` command writes its runs to: the one that the UI shows.

`dagster dev` takes the folder in DAGSTER_HOME, else the `dagster.yaml` of the working directory.
Dagster resolves relative paths in that file against the working directory of each process. Here
they count from the folder that holds the file: that is the same folder when `dagster dev` is
started where it should be, and it stays right when the command is called from elsewhere.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import yaml
from dagster import DagsterInstance, DagsterInvalidConfigError, DagsterRunStatus, RunsFilter

from ragassets.defs.automation import COMMAND_TAG
from ragassets.errors import ConfigurationError

Settings = dict[str, object]

WORKER_TAG = "ragassets/worker"
"""Run tag: which process computes the run, as `host:process id:start time`."""

POOLS = ("embedding", "vector_store")
"""Concurrency pools of the assets: one model in memory, one owner of the embedded vector store."""

_DEFAULT_SETTINGS: Settings = {"telemetry": {"enabled": False}, "nux": {"enabled": False}}

# Where dagster.yaml may name a folder: the path of keys to it.
_FOLDER_KEYS = (
    ("storage", "sqlite", "base_dir"),
    ("local_artifact_storage", "config", "base_dir"),
    ("compute_logs", "config", "base_dir"),
)


def open_instance(project_dir: Path, *, state_dir: Path | None = None) -> DagsterInstance:
    """Open the instance that `dagster dev` uses in this project.

    It is the first of: the folder in DAGSTER_HOME; the `dagster.yaml` of the project; a default
    instance with telemetry off in `state_dir`.

    Args:
        project_dir: The folder of the configuration file.
        state_dir: Where the state goes when no `dagster.yaml` says so: by default
            `.ragassets/dagster` in the project.

    Returns:
        A persistent instance; use it as a context manager.

    Raises:
        ConfigurationError: DAGSTER_HOME is no folder, `dagster.yaml` is wrong, or the folder for
            the state cannot be written.
    """
    home = _dagster_home()
    folder = (home or project_dir).resolve()
    has_settings = home is not None or (folder / "dagster.yaml").is_file()
    settings = _DEFAULT_SETTINGS | _read_settings(folder / "dagster.yaml")
    for keys in _FOLDER_KEYS:
        settings = _with_absolute_folder(settings, keys, folder)
    default_dir = (state_dir or folder / ".ragassets" / "dagster").resolve()
    instance = _open(folder if has_settings else default_dir, settings)
    _create_pools(instance)
    return instance


def worker_tags() -> dict[str, str]:
    """Tags for a run that this process computes itself, without a launcher."""
    return {WORKER_TAG: _worker_name(os.getpid()), COMMAND_TAG: "true"}


def fail_abandoned_runs(instance: DagsterInstance) -> list[str]:
    """Mark the runs as failed whose process on this machine is gone.

    A killed process cannot say so, no launcher watches it, and its run would stay "started" in the
    UI and keep its places in the run queue until the maximum runtime.

    Returns:
        The ids of the runs that were marked.
    """
    abandoned: list[str] = []
    for run in instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTED])):
        worker = run.tags.get(WORKER_TAG)
        if worker is not None and _is_gone(worker):
            instance.report_run_failed(run, f"The process {worker} that computed this run is gone.")
            abandoned.append(run.run_id)
    return abandoned


def _worker_name(process_id: int) -> str:
    """Host, process id and start time: a process id alone is used again.

    Raises:
        psutil.NoSuchProcess: There is no such process.
    """
    import psutil

    started = psutil.Process(process_id).create_time()
    return f"{socket.gethostname()}:{process_id}:{started:.0f}"


def _is_gone(worker: str) -> bool:
    import psutil

    host, process_id, _ = worker.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        return _worker_name(int(process_id)) != worker
    except psutil.NoSuchProcess:
        return True


def _dagster_home() -> Path | None:
    value = os.environ.get("DAGSTER_HOME")
    if not value:
        return None
    home = Path(value).expanduser()
    if not home.is_absolute() or not home.is_dir():
        raise ConfigurationError(
            key="DAGSTER_HOME",
            value=value,
            problem="is not the absolute path of a folder",
            fix="Make the folder, correct the variable or unset it",
        )
    return home


def _read_settings(path: Path) -> Settings:
    if not path.is_file():
        return {}
    try:
        loaded: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _unreadable(path, str(error)) from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise _unreadable(path, "it is not a mapping")
    return cast("Settings", loaded)


def _with_absolute_folder(settings: Settings, keys: tuple[str, ...], folder: Path) -> Settings:
    """Return a copy with an absolute folder under `keys`, where a plain path stands there."""
    key, *rest = keys
    value = settings.get(key)
    if not rest:
        return settings | {key: str(folder / value)} if isinstance(value, str) else settings
    if not isinstance(value, Mapping):
        return settings
    inner = dict(cast("Mapping[str, object]", value))
    return settings | {key: _with_absolute_folder(inner, tuple(rest), folder)}


def _open(base: Path, settings: Settings) -> DagsterInstance:
    try:
        base.mkdir(parents=True, exist_ok=True)
        # The name misleads: given a folder, it is "a regular, fully persistent instance".
        return DagsterInstance.local_temp(str(base), overrides=settings)
    except DagsterInvalidConfigError as error:
        raise _unreadable(Path("dagster.yaml"), str(error)) from error
    except OSError as error:
        raise ConfigurationError(
            key="dagster.yaml",
            value=str(error.filename or base),
            problem=f"cannot be written ({error.strerror})",
            fix="Give the instance a folder that this user may write",
        ) from error


def _create_pools(instance: DagsterInstance) -> None:
    """Give the pools their default limit, which the run queue otherwise learns one round too late.

    The queue reads the limits before it creates the missing ones (Dagster 1.13,
    `dagster/_core/op_concurrency_limits_counter.py`), so the very first runs would not be limited.
    """
    storage = instance.event_log_storage
    if instance.global_op_concurrency_default_limit is None:
        return
    known = {pool.name for pool in storage.get_pool_limits()}
    for pool in POOLS:
        if pool not in known:
            storage.initialize_concurrency_limit_to_default(pool)


def _unreadable(path: Path, detail: str) -> ConfigurationError:
    first_line = " ".join(detail.split())
    return ConfigurationError(
        key="dagster.yaml",
        value=str(path),
        problem=f"cannot be used ({first_line})",
        fix="Correct it, or write a fresh one with `ragassets init`",
    )
