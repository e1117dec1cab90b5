"""What loading the code location must not load: every run and every sensor tick pays for it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ragassets_tests.corpora import REPOSITORY_ROOT

HEAVY = (
    "alembic",
    "boto3",
    "dagster_aws",
    "datasketch",
    "deltalake",
    "ftfy",
    "kubernetes",
    "numpy",
    "obstore",
    "pandas",
    "phonenumbers",
    "polars",
    "py3langid",
    "pyarrow",
    "pypdfium2",
    "qdrant_client",
    "qdrant_edge",
    "scipy",
    "selectolax",
    "sentence_transformers",
    "sklearn",
    "spacy",
    "tokenizers",
    "torch",
    "transformers",
    "unstructured",
)

PROGRAM = """
import json, sys
import {module}
loaded = {{name.partition(".")[0] for name in sys.modules}}
ours = sorted(name for name in sys.modules if name.startswith("ragassets."))
print(json.dumps([sorted(loaded & set({heavy!r})), ours]))
"""


def loaded_by(module: str, folder: Path) -> tuple[set[str], set[str]]:
    """Heavy libraries and modules of ours that a fresh interpreter has after an import."""
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module, heavy=HEAVY)],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY_ROOT), "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    heavy, ours = json.loads(finished.stdout)
    return set(heavy), set(ours)


@pytest.mark.slow
def test_loading_the_definitions_loads_no_heavy_library(tmp_path: Path) -> None:
    """Loading may cost little more than importing Dagster: heavy imports wait for their step."""
    heavy, ours = loaded_by("ragassets.definitions", tmp_path)
    of_dagster, _ = loaded_by("dagster", tmp_path)

    assert heavy <= of_dagster
    core = {name.removeprefix("ragassets.core.") for name in ours if ".core." in name}
    assert {name for name in core if not name.endswith("settings")} == {
        "canaries",
        "collection_config",
        "fingerprints",
        "periods",
        "store_locations",
        "versions",
    }
    assert not [
        name for name in ours if name.startswith(("ragassets.adapters", "ragassets.stages"))
    ]
