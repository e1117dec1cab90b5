"""What a bucket of 100,000 objects costs the sensors: time, requests, memory, runs.

The server is moto, a process of its own. It sorts all of its keys for every page, which a real
store does not, so a bare loop over the SDK's paginator stands beside each figure: what is left when
its time is taken away is ours.
"""

import json
import logging
import multiprocessing
import os
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import polars as pl
import yaml

from ragassets.adapters.workspace import Workspace
from ragassets.config import load_config
from ragassets.core.asset_tables import SOURCE_OBJECTS
from ragassets.core.stages import RunContext
from ragassets.defs.resources import WorkspaceResource
from ragassets.defs.source_sensors import build_source_sensors
from ragassets.stages.raw_documents import shards_behind, update_raw_documents

TITLE = "A bucket of 100,000 objects"
SIZES = tuple(int(size) for size in os.environ.get("BUCKET_SIZES", "10000,100000").split(","))
N_SHARDS = 64
BURST = 10_000
N_EVENTS = 1000
"""The queue of moto looks at all of its messages for every request."""
BUCKET = "benchmark"
QUEUE = "events"
SOURCE = "handbook"
BODY = b"A tiny body."
FOLDERS = 100

SPAWN = multiprocessing.get_context("spawn")


def measure() -> list[str]:
    """Every size from an empty table on; figures of the largest in full."""
    folder = Path(tempfile.mkdtemp(prefix="ragassets-bucket-"))
    try:
        found = {size: _measure(folder / str(size), size) for size in SIZES}
    finally:
        shutil.rmtree(folder)
    return _report(found)


def _measure(folder: Path, size: int) -> dict[str, dict[str, Any]]:
    folder.mkdir()
    with running_server(size) as (url, counter, commands):
        _configure(folder, url)
        figures: dict[str, dict[str, Any]] = {}

        def put(keys: list[str], *, tells: bool = False) -> None:
            commands.send((keys, tells))
            commands.recv()
            _configure(folder, url, queue=f"{url}/123456789012/{QUEUE}" if tells else None)

        def take(name: str, work: Callable[..., dict[str, Any]], *arguments: object) -> None:
            before = counter.value
            figures[name] = in_own_process(work, str(folder), *arguments)
            figures[name]["requests"] = counter.value - before
            print(name, figures[name], flush=True)

        take("paginator", bare_listing)
        take("dagster_aws", dagster_aws_listing)
        take("first", watch)
        take("idle", watch)
        take("asked", ask)
        in_own_process(settle, str(folder))
        take("nothing", ask)
        take("settled", ask_again)
        put(["folder-050/the-new-one.txt"])
        take("one", watch)
        take("one_asked", ask)
        take("one_run", fetch_one_shard)
        in_own_process(settle, str(folder))
        put(_keys("burst", BURST))
        take("burst", watch)
        take("burst_asked", ask)
        put(_keys("event", N_EVENTS), tells=True)
        take("events", take_events)
    return figures


def _keys(name: str, n_keys: int) -> list[str]:
    return [f"folder-{number % FOLDERS:03d}/{name}-{number:06d}.txt" for number in range(n_keys)]


def _report(found: dict[int, dict[str, dict[str, Any]]]) -> list[str]:
    largest, smallest = found[max(found)], found[min(found)]
    size = max(found)
    bare = largest["paginator"]["seconds"]
    rows = [
        ("bare paginator of the SDK, keys thrown away (baseline)", "paginator"),
        ("`dagster_aws.s3.sensor.get_objects`", "dagster_aws"),
        ("sensor: first pass, everything is new", "first"),
        ("sensor: a pass that finds nothing new", "idle"),
        ("sensor: a pass that finds one new object", "one"),
        (f"sensor: a pass that finds {BURST:,} new objects", "burst"),
        (f"sensor: {N_EVENTS:,} events of new objects in a queue", "events"),
        ("asking for runs: everything is behind", "asked"),
        ("asking for runs: nothing is behind", "nothing"),
        ("asking for runs: the tick after that, nothing was committed", "settled"),
        ("asking for runs: one object is behind", "one_asked"),
        (f"asking for runs: {BURST:,} objects are behind", "burst_asked"),
    ]
    header = (
        "what",
        "ticks",
        "longest tick",
        "seconds in all",
        "baseline = 1",
        "CPU seconds",
        "requests",
        "runs asked for",
        f"memory, {size:,}",
        f"memory, {min(found):,}",
    )
    lines = [
        (
            f"{size:,} objects of {len(BODY)} bytes in {FOLDERS} folders, {N_SHARDS} shards. Every"
            " figure in a fresh process; memory is its peak above what it had when its modules were"
            " loaded. The server is moto in another process, which sorts all keys for every page:"
            " the baseline is its share. A tick looks for 25 s and no longer; Dagster ends it after"
            " 60 s."
            " CPU seconds are those of the sensor's process alone."
        ),
        "",
        f"| {' | '.join(header)} |",
        "|---" * len(header) + "|",
    ]
    for text, name in rows:
        figure = largest[name]
        ticks = figure.get("ticks", [figure["seconds"]])
        lines.append(
            f"| {text} | {len(ticks)} | {max(ticks):.1f} s | {sum(ticks):.1f} |"
            f" {sum(ticks) / bare:.2f} | {figure['cpu_seconds']:.1f} | {figure['requests']:,} |"
            f" {figure.get('runs', '')} |"
            f" {figure['memory_mb']:.0f} MB | {smallest[name]['memory_mb']:.0f} MB |"
        )
    one, run = largest["one"], largest["one_run"]
    return [
        *lines,
        "",
        (
            f"One new object among {size:,}: {one['shards']} shard of {N_SHARDS} changes,"
            f" {one['rows_written']:,} rows ({one['bytes_written'] / 1e3:.0f} kB of"
            f" {one['bytes_table'] / 1e6:.1f} MB) are written by the look,"
            f" {largest['one_asked']['runs']} run is asked for, and its first stage fetches"
            f" {run['computed']} object ({run['requests']} request) and reuses {run['reused']:,} in"
            f" {run['seconds']:.1f} s."
        ),
        "",
        (
            f"{BURST:,} new objects: {largest['burst_asked']['runs']} runs, one a shard, at most"
            f" {max(largest['burst_asked']['runs_by_tick'])} a tick."
        ),
    ]


# --- the server -----------------------------------------------------------------------------------


@contextmanager
def running_server(size: int) -> Iterator[tuple[str, Any, Connection]]:
    """A bucket with so many objects: address, counter of requests, and a way to add objects."""
    counter = SPAWN.Value("q", 0)
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=serve, args=(size, counter, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}", counter, ours
    finally:
        process.terminate()
        process.join()


def serve(size: int, counter: Any, pipe: Connection) -> None:
    """Serve until the process is ended."""
    from moto.backends import get_backend
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    backend: Any = get_backend("s3")["123456789012"]["aws"]
    backend.create_bucket(BUCKET, "us-east-1")
    for number in range(size):
        backend.put_object(BUCKET, f"folder-{number % FOLDERS:03d}/{number:06d}.txt", BODY)
    application: Any = DomainDispatcherApplication(create_backend_app)

    def counting(environ: Any, start_response: Any) -> Any:
        with counter.get_lock():
            counter.value += 1
        return application(environ, start_response)

    listener = make_server("127.0.0.1", 0, counting, threaded=True)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    pipe.send(listener.server_port)
    queues: Any = get_backend("sqs")["123456789012"]["us-east-1"]
    queues.create_queue(QUEUE, {})
    while True:
        keys, tells = pipe.recv()
        for key in keys:
            backend.put_object(BUCKET, key, BODY)
            if tells:
                record = {"s3": {"bucket": {"name": BUCKET}, "object": {"key": key}}}
                queues.send_message(QUEUE, json.dumps({"Records": [record]}))
        pipe.send(len(keys))


# --- what is measured, each in a process of its own -----------------------------------------------


def in_own_process(work: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
    """What the function gives, called in a fresh process, with `memory_mb` and `seconds`."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_measured, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    figures: dict[str, Any] = ours.recv()
    process.join()
    return figures


def _measured(
    pipe: Connection, work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]
) -> None:
    os.environ |= json.loads((Path(arguments[0]) / "environment.json").read_text())
    _load_modules()
    before = _peak_mb()
    started, started_cpu = time.perf_counter(), time.process_time()
    figures = work(*arguments)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    memory_mb = _peak_mb() - before
    pipe.send({"seconds": seconds, "cpu_seconds": cpu_seconds, "memory_mb": memory_mb, **figures})


def _load_modules() -> None:
    import dagster_aws.s3.sensor  # noqa: F401


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _configure(folder: Path, url: str, queue: str | None = None) -> None:

    environment = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "RAGASSETS_CONFIG": str(folder / "ragassets.yaml"),
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    source = {"uri": f"s3://{BUCKET}", "shards": N_SHARDS, "sensor": {"queue": queue}}
    settings = {
        "root": str(folder / "root"),
        "catalog": f"sqlite:///{folder}/catalog.db",
        "vector_store": str(folder / "qdrant"),
        "sources": {SOURCE: source},
    }
    (folder / "ragassets.yaml").write_text(yaml.safe_dump(settings))


def bare_listing(_: str) -> dict[str, Any]:
    """What the SDK needs, if nobody keeps anything."""
    pages: Any = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return {"objects": sum(len(page["Contents"]) for page in pages)}


def dagster_aws_listing(_: str) -> dict[str, Any]:
    """What Dagster's own helper for S3 sensors does."""
    from dagster_aws.s3.sensor import get_objects

    return {"objects": len(get_objects(BUCKET))}


def watch(folder: str) -> dict[str, Any]:
    """Ticks of the source's sensor until a pass is over."""
    tables = Workspace(load_config()).tables
    before = _files(tables)
    figures = _ticks(folder, f"watch_{SOURCE}", lambda result: not result.cursor)
    new = {path: n for path, n in _files(tables).items() if path not in before}
    sizes = tables.partition_sizes(tables.snapshot(SOURCE_OBJECTS))
    return {
        **figures,
        "rows_written": sum(rows for rows, _ in new.values()),
        "bytes_written": sum(n_bytes for _, n_bytes in new.values()),
        "bytes_table": int(sizes["n_bytes"].sum()),
    }


def take_events(folder: str) -> dict[str, Any]:
    """Ticks of the same sensor, which reads a queue now, until one finds nothing."""
    return _ticks(folder, f"watch_{SOURCE}", lambda result: "0 new," in str(result.skip_reason))


def _files(tables: Any) -> dict[str, tuple[int, int]]:

    table = tables.snapshot(SOURCE_OBJECTS).handle
    if table is None:
        return {}
    actions = pl.DataFrame(table.get_add_actions(flatten=True))
    rows = actions.select("path", "num_records", "size_bytes").iter_rows()
    return {path: (n_rows, n_bytes) for path, n_rows, n_bytes in rows}


def ask(folder: str) -> dict[str, Any]:
    """Ticks of the sensor that asks for runs, until it asks for no more."""
    figures = _ticks(folder, "process_changed_documents", lambda result: not result.run_requests)
    return {**figures, "runs": sum(figures["runs_by_tick"])}


def ask_again(folder: str) -> dict[str, Any]:
    """The second of two ticks between which nothing was committed."""
    n_ticks = iter((False, True))
    figures = _ticks(folder, "process_changed_documents", lambda _: next(n_ticks))
    return {"ticks": figures["ticks"][1:], "runs": sum(figures["runs_by_tick"])}


def _ticks(_: str, sensor: str, is_over: Callable[[Any], bool]) -> dict[str, Any]:

    config = load_config()
    (found,) = (one for one in build_source_sensors(config) if one.name == sensor)
    cursor: str | None = None
    ticks: list[float] = []
    runs: list[int] = []
    shards: set[str] = set()
    with dg.DagsterInstance.ephemeral() as instance:
        while True:
            resources = {"workspace": WorkspaceResource(config)}
            context = dg.build_sensor_context(instance, cursor=cursor, resources=resources)
            started = time.perf_counter()
            result: Any = found(context)
            ticks.append(time.perf_counter() - started)
            runs.append(len(result.run_requests or []))
            shards |= {str(event.partition) for event in result.asset_events or []}
            cursor = result.cursor
            if is_over(result):
                return {"ticks": ticks, "runs_by_tick": runs, "shards": len(shards)}


class _Bodies:
    """The source without its server: what a run would have fetched."""

    def fetch(self, _: object) -> bytes:
        return BODY


def settle(_: str) -> dict[str, Any]:
    """Bring the first stage up to date, without 100,000 requests that are not the point."""
    config = load_config()
    workspace = Workspace(config)
    workspace.source = lambda _name: _Bodies()  # type: ignore[assignment]
    update_raw_documents(
        workspace, config.source_shards(), RunContext("run", lambda: datetime.now(UTC))
    )
    return {}


def fetch_one_shard(_: str) -> dict[str, Any]:
    """The first stage of the one run that was asked for."""
    config = load_config()
    workspace = Workspace(config)
    (shard,) = shards_behind(workspace, config.source_shards())
    started = time.perf_counter()
    reports = update_raw_documents(workspace, [shard], RunContext("run", lambda: datetime.now(UTC)))
    report = reports[shard]
    return {
        "seconds": time.perf_counter() - started,
        "computed": report.n_computed,
        "reused": report.n_reused,
    }
