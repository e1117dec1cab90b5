"""Run the benchmarks and write their tables into docs/benchmarks.md.

Usage: python benchmarks/run.py [NAME …]   (names of the files beside this one; by default all but
those of `BY_NAME_ONLY`)

Every figure stands beside a baseline that was measured in the same run: machines are noisy, and a
ratio survives what a figure does not. A benchmark module has `TITLE` and `measure() -> list[str]`,
the lines of its section.
"""

import importlib.util
import os
import platform
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
REPORT = HERE.parent / "docs" / "benchmarks.md"
NAMES = ("import_time", "stages", "embedding", "ledger", "index_writes", "search_quality")

BY_NAME_ONLY = ("killed_builds", "bucket_listing")
"""Benchmarks that take longer than all the others together."""

INTRODUCTION = """# Benchmarks

Made by `make benchmarks`. Ratios are against a baseline of the same run on the same machine.
"""


def main() -> None:
    """Measure what was asked for; sections of other benchmarks stay as they are."""
    sections = _sections(REPORT.read_text() if REPORT.exists() else "")
    for name in sys.argv[1:] or NAMES:
        module = _load(name)
        print(f"== {module.TITLE}", flush=True)
        lines = module.measure()
        print("\n".join(lines), flush=True)
        sections[name] = "\n".join([f"## {module.TITLE}", "", _machine(), "", *lines])
        body = "\n\n".join(f"<!-- {key} -->\n{text}" for key, text in sections.items())
        REPORT.write_text(f"{INTRODUCTION}\n{body}\n")


def _machine() -> str:
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return (
        f"_{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {cores} cores, Python"
        f" {platform.python_version()}, load average before the last figure {load:.1f}_"
    )


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"<!-- (\w+) -->\n", text)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _load(name: str):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    # Known by its name: processes that a benchmark starts look their work up there.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    main()
