"""What loading the code location costs: every run and every sensor tick pays it."""

import subprocess
import sys

TITLE = "Import time of the code location"
ROUNDS = 7
GOAL = 1.3


def measure() -> list[str]:
    """Alternate the two imports in fresh interpreters and compare the minima."""
    statements = {
        "`import dagster` (baseline)": "import dagster",
        "`import ragassets.definitions`": "import ragassets.definitions",
        "`import ragassets.cli`": "import ragassets.cli",
    }
    seconds: dict[str, list[float]] = {name: [] for name in statements}
    for _ in range(ROUNDS):
        for name, statement in statements.items():
            seconds[name].append(_time(statement))
    baseline = min(seconds["`import dagster` (baseline)"])
    lines = ["| import | seconds (minimum of 7) | ratio |", "|---|---|---|"]
    lines += [
        f"| {name} | {min(times):.2f} | {min(times) / baseline:.2f} |"
        for name, times in seconds.items()
    ]
    return [*lines, "", f"Goal: `ragassets.definitions` at most {GOAL} times `import dagster`."]


def _time(statement: str) -> float:
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    return float(done.stdout)
