"""The top level is complete, says each thing once, and names nothing of one machine."""

import json
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CORPUS = ROOT / "ragassets" / "demo" / "corpus"

TOP_LEVEL = [
    ".ci/run",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "constraints.txt",
    "dagster.yaml",
    "docs/adr/README.md",
    "pyproject.toml",
    "setup.py",
    "workspace.yaml",
]

# What must not be in any file: the machine's folders, registries, and things shaped like secrets.
FORBIDDEN = {
    "a folder of one machine": re.compile(
        r"/(?:work/(?:main|shared)|home/\w+|Users/\w+|root|opt/(?:wheels|pypi))\b"
    ),
    "a registry host": re.compile(
        r"(?:pypi\.org|pythonhosted\.org|registry\.npmjs|download\.pytorch|index-url)",
        re.IGNORECASE,
    ),
    "a secret": re.compile(r"\b(?:AKIA[0-9A-Z]{16}|ghp_\w{36}|sk-[A-Za-z0-9]{32,}|hf_\w{30,})\b"),
}
THIS_FILE = Path(__file__).relative_to(ROOT)


def tracked_files() -> list[Path]:
    """Files that git has or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def requirements() -> list[Requirement]:
    """All requirements of setup.py, extras included, as setuptools gets them."""
    given: dict[str, Any] = {}
    stand_in = ModuleType("setuptools")
    vars(stand_in).update(setup=given.update, find_packages=lambda **_: [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "setuptools", stand_in)
        runpy.run_path(str(ROOT / "setup.py"))
    extras = given["extras_require"].values()
    return [Requirement(line) for line in [*given["install_requires"], *chain(*extras)]]


def pins() -> dict[str, str]:
    """Canonical name to version of every line in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("name", TOP_LEVEL)
def test_the_top_level_has(name: str) -> None:
    """A checkout without one of these cannot be built, read or run."""
    assert (ROOT / name).is_file()


def test_setup_and_pyproject_do_not_repeat_each_other() -> None:
    """One place for metadata, one for tools: two would drift apart."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    assert "project" not in project
    assert "setuptools" not in project["tool"]
    assert project["build-system"]["build-backend"] == "setuptools.build_meta"


def test_constraints_pin_everything_that_setup_asks_for() -> None:
    """An unpinned dependency changes under our feet; torch unpinned fetches gigabytes."""
    pinned = pins()

    for requirement in requirements():
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_constraints_are_sorted_and_portable() -> None:
    """A local build tag or a path would make the file useless on another machine."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if not line.startswith("#")]

    assert names == sorted(names, key=str.upper)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in names)


def test_no_file_names_this_machine_a_registry_or_a_secret() -> None:
    """The repository is public and is cloned elsewhere."""
    found = [
        f"{path}: {what}"
        for path in tracked_files()
        if path != THIS_FILE and path.suffix not in {".docx", ".pptx", ".xlsx", ".png"}
        for what, pattern in FORBIDDEN.items()
        if pattern.search((ROOT / path).read_text(encoding="utf-8", errors="replace"))
    ]

    assert found == []


def test_a_new_project_gets_the_instance_and_workspace_of_the_repository() -> None:
    """What `make dev` is tested with is what users of `ragassets init` run."""
    for name in ("dagster.yaml", "workspace.yaml"):
        template = ROOT / "ragassets" / "templates" / name
        assert template.read_bytes() == (ROOT / name).read_bytes()


def test_the_configuration_template_is_valid_and_fits_the_demo_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the first file that a new user reads."""
    from ragassets.config import load_config

    monkeypatch.chdir(tmp_path)
    config = load_config(ROOT / "ragassets" / "templates" / "ragassets.yaml")

    assert list(config.sources) == ["handbook"]
    assert config.source_shards() == [f"handbook-{number:03d}" for number in range(4)]
    assert config.aliases["documents"].live in config.index_versions


def test_the_workspace_names_the_definitions() -> None:
    """`dagster dev` without arguments has to find them."""
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text(encoding="utf-8"))
    module = workspace["load_from"][0]["python_module"]["module_name"]

    assert (ROOT / Path(*module.split("."))).with_suffix(".py").is_file()


def test_the_demo_corpus_is_small_and_holds_what_the_demo_shows() -> None:
    """20 to 30 files in 8 formats or more, and one of each thing that can go wrong."""
    files = sorted(path for path in CORPUS.rglob("*") if path.is_file())
    contents = [path.read_bytes() for path in files]

    assert 20 <= len(files) <= 30
    assert len({path.suffix for path in files}) >= 8
    assert sum(map(len, contents)) < 300_000
    assert contents.count(b"") == 1
    assert len(contents) - len(set(contents)) == 1
    broken = (CORPUS / "support" / "warranty-scan.pdf").read_bytes()
    assert broken.startswith(b"%PDF-")
    assert b"%%EOF" not in broken


def test_the_demo_corpus_holds_one_near_duplicate() -> None:
    """Close enough (Jaccard of 5-word shingles at 0.85 or more) for any sound threshold."""
    now, then = (
        shingles((CORPUS / name).read_text(encoding="utf-8"))
        for name in ("policies/leave.md", "archive/leave-2025.md")
    )

    assert 0.85 <= len(now & then) / len(now | then) < 1


def shingles(text: str) -> set[tuple[str, ...]]:
    """Runs of five words."""
    words = text.lower().split()
    return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}


def test_the_demo_edits_a_sentence_that_the_runbook_has_once() -> None:
    """Otherwise the second half of the demo shows nothing."""
    script = (ROOT / "demo" / "demo.sh").read_text(encoding="utf-8")
    edit = re.search(r"'s/(?P<before>[^/]+)/(?P<after>[^/]+)/'", script)
    runbook = (CORPUS / "engineering" / "on-call-runbook.md").read_text(encoding="utf-8")

    assert edit is not None
    assert runbook.count(edit["before"]) == 1
    assert edit["after"] not in runbook


def test_golden_queries_name_files_of_the_demo_corpus() -> None:
    """`init` turns the names into URIs; a name without a file would lower every score."""
    lines = (CORPUS.parent / "golden.jsonl").read_text(encoding="utf-8").splitlines()
    queries = [json.loads(line) for line in lines]

    assert 10 <= len(queries) <= 15
    assert len({query["query"] for query in queries}) == len(queries)
    for query in queries:
        assert query["relevant"]
        for name, grade in query["relevant"].items():
            assert (CORPUS / name).is_file()
            assert grade in {1, 2}


def readme_commands() -> list[tuple[str, ...]]:
    """The words after `ragassets` wherever the README calls it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    calls = re.findall(r"(?:^|`|\$ )ragassets ((?:[a-z-]+ ?)+)", text, re.MULTILINE)
    return sorted({tuple(call.split()) for call in calls})


@pytest.mark.parametrize("words", readme_commands(), ids=" ".join)
def test_every_command_in_the_readme_exists(words: tuple[str, ...]) -> None:
    """A reader types what stands there."""
    import click
    from typer.main import get_command

    from ragassets.cli import app

    command = get_command(app)
    for word in words:
        if not isinstance(command, click.Group):
            break
        assert word in command.commands, f"{word} is none of {sorted(command.commands)}"
        command = command.commands[word]


def test_every_make_target_in_the_readme_exists() -> None:
    """The same for make."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))

    assert named
    assert named <= targets


@pytest.mark.slow
@pytest.mark.integration
def test_the_wheel_holds_data_files_and_migrations(tmp_path: Path) -> None:
    """An editable install hides a data file that the package forgot."""
    # A copy, because setuptools leaves a folder behind from which later wheels would be filled.
    source = tmp_path / "source"
    for path in tracked_files():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, source / path)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, source],
        check=True,
        cwd=tmp_path,
    )
    (wheel,) = tmp_path.glob("ragassets-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(ROOT).as_posix()
        for folder in ("demo", "templates", "adapters/catalog_migrations")
        for path in (ROOT / "ragassets" / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert wanted <= names
    assert "ragassets/py.typed" in names
    assert not any(name.startswith("ragassets_tests") for name in names)
