"""What publishing needs is there, parses, and names what exists: versions, extras, targets, files and dependencies."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from unseen.version import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEXTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "CITATION.cff", "Dockerfile")
CONDA = {"torch": "pytorch", "huggingface-hub": "huggingface_hub"}
"""Names that conda-forge has for packages of PyPI."""


def jobs(path: Path) -> dict:
    return yaml.safe_load(path.read_text())["jobs"]


def commands() -> list[str]:
    return [step["run"] for path in WORKFLOWS for job in jobs(path).values() for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_reads_only_unless_it_says_so(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow[True]  # YAML reads `on` as true
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        assert all("uses" in step or "run" in step for step in job["steps"])
        assert all(re.search(r"@(v\d|release/v\d)", step["uses"]) for step in job["steps"] if "uses" in step)


def test_pythons_and_systems_are_those_of_the_classifiers():
    named = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    matrix = jobs(ROOT / ".github/workflows/tests.yml")["tests"]["strategy"]["matrix"]
    assert matrix["python"] == named
    assert f">={named[0]}" == PROJECT["requires-python"]
    assert {entry["os"] for entry in matrix["include"]} == {"windows-latest", "macos-latest"}


def test_a_release_goes_to_pypi_without_a_password():
    release = jobs(ROOT / ".github/workflows/release.yml")
    assert release["publish"]["permissions"] == {"id-token": "write"}
    assert release["publish"]["environment"] == "pypi"
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()


def test_addresses_name_one_owner():
    """Which `make owner` replaces wherever it stands."""
    owner = re.fullmatch(r"https://github\.com/([\w-]+)/unseen", PROJECT["urls"]["Source"])
    assert owner is not None
    replaced = re.search(r"^\tsed .*/g' (.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert replaced is not None
    places = [ROOT / name for name in replaced[1].split()]
    others = [*(ROOT / name for name in (*TEXTS, "mkdocs.yml", "Makefile")), *(ROOT / "docs").rglob("*.md")]
    for path in {*places, *others}:
        text = path.read_text(encoding="utf-8")
        named = re.findall(r"github(?:usercontent)?\.com/([\w-]+)/unseen\b|\b([\w-]+)\.github\.io/unseen\b", text)
        assert {a or b for a, b in named} <= {owner[1]}, path
        assert not named or path in places, path
    refused = next(command for command in commands() if "OWNER" in command)
    assert all(name in refused for name in replaced[1].split())


def test_named_targets_and_extras_exist():
    makefile = (ROOT / "Makefile").read_text()
    texts = "\n".join([*commands(), *((ROOT / name).read_text() for name in TEXTS)])
    for target in re.findall(r"\bmake ([\w./]+)", texts):
        assert re.search(rf"^{re.escape(target)}:", makefile, re.M), target
    asked = re.findall(r"'?\"?\.\[([\w,]+)\]", texts)
    docker = re.search(r"^ARG EXTRAS=(\S+)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert docker is not None
    for extra in {e for group in (*asked, docker[1]) for e in group.split(",")}:
        assert extra in PROJECT["optional-dependencies"], extra


@pytest.mark.parametrize("name", [name for name in TEXTS if name.endswith(".md")])
def test_links_lead_to_files(name):
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (ROOT / target).is_file(), target


def test_one_version_and_one_address():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    recipe = (ROOT / "conda" / "recipe.yaml").read_text()
    assert citation["version"] == __version__
    assert f'version: "{__version__}"' in recipe
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    address = PROJECT["urls"]["Source"]
    assert citation["repository-code"] == address
    assert f"repository: {address}" in recipe
    assert f"documentation: {PROJECT['urls']['Documentation']}" in recipe


def test_conda_has_the_same_dependencies():
    recipe = (ROOT / "conda" / "recipe.yaml").read_text()
    found = yaml.safe_load(re.sub(r"\$\{\{.*?\}\}", "x", recipe))["requirements"]["run"]
    wanted = []
    for line in PROJECT["dependencies"]:
        name, version = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?(\S*)(?:;.*)?", line.replace(" ", "")).groups()
        wanted.append(f"{CONDA.get(name, name)} {version}".strip())
    assert found == [f"python {PROJECT['requires-python']}", *wanted]


def test_the_image_serves_as_a_user_without_rights():
    docker = (ROOT / "Dockerfile").read_text()
    last = docker[docker.rindex("FROM ") :]
    assert re.search(r"^USER unseen$", last, re.M)
    assert last.index("USER unseen") < last.index("ENTRYPOINT")
    ignored = (ROOT / ".dockerignore").read_text().split()
    for name in re.findall(r"^COPY ([\w. ]+) \S+$", docker[: docker.rindex("FROM ")], re.M):
        assert all(f"!{file}" in ignored for file in name.split())


def test_settings_of_tools_parse():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["postCreateCommand"] == "make .venv/installed"
    hooks = [
        h["id"]
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for h in repo["hooks"]
    ]
    assert {"ruff-check", "ruff-format", "mypy", "import-linter", "check-added-large-files"} <= set(hooks)


def test_screenshots_are_small():
    images = list((ROOT / "docs" / "images").iterdir())
    assert images
    assert max(image.stat().st_size for image in images) <= 300_000
