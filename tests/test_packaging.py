"""What an installation is made from fits together: versions, recipes of containers, forms, hooks."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from pipelines.fingerprint import software_version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def base_requirements(python):
    """Requirements of the base install on a Python version."""
    for line in PROJECT["dependencies"]:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            yield requirement


def test_the_lock_holds_a_version_that_fits_for_every_requirement():
    text = (ROOT / "requirements.lock").read_text("utf-8")
    python = re.search(r"Python (\d+\.\d+)", text)[1]
    locked = {
        name.lower().replace("_", "-"): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.M)
    }
    for requirement in base_requirements(python):
        assert requirement.specifier.contains(locked[requirement.name.lower()]), requirement


def test_the_lock_names_no_place_of_this_machine():
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    assert all(line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.+!]+", line) for line in lines)


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert software_version().startswith(PROJECT["version"])
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_every_file_that_a_container_is_made_of_exists_and_is_let_through():
    docker = (ROOT / "Dockerfile").read_text("utf-8")
    copied = {name for line in re.findall(r"^COPY (?!--)(.+) \S+$", docker, re.M) for name in line.split()}
    apptainer = (ROOT / "apptainer.def").read_text("utf-8")
    files = apptainer.split("%files")[1].split("%post")[0].split("\n")
    copied_there = {line.split()[0] for line in files if line.strip()}
    let_through = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.M))
    assert copied == copied_there == let_through
    assert all((ROOT / name).exists() for name in copied)


def test_a_container_starts_the_program_and_not_as_root():
    docker = (ROOT / "Dockerfile").read_text("utf-8")
    assert 'ENTRYPOINT ["wsi-her2"]' in docker
    assert "wsi-her2" in PROJECT["scripts"]
    assert re.findall(r"^USER (\S+)$", docker, re.M)[-1] == "her2"


def test_containers_use_the_python_of_the_lock():
    python = re.search(r"Python (\d+\.\d+)", (ROOT / "requirements.lock").read_text("utf-8"))[1]
    for recipe in ("Dockerfile", "apptainer.def"):
        images = re.findall(r"^From:? (\S+)", (ROOT / recipe).read_text("utf-8"), re.M | re.I)
        assert set(images) == {f"python:{python}-slim"}


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda form: form.name
)
def test_a_form_asks_what_is_needed_to_act(form):
    content = yaml.safe_load(form.read_text("utf-8"))
    if form.name == "config.yml":
        return
    assert content["name"]
    assert content["description"]
    fields = [field for field in content["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert any(field.get("validations", {}).get("required") for field in fields)
    assert "no name of a patient" in form.read_text("utf-8")


def test_continuous_integration_runs_on_every_python_that_is_promised():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    promised = [line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert tested == promised
    assert {"run": ".ci/run"} in workflow["jobs"]["test"]["steps"]


def test_hooks_are_tools_of_the_environment_and_fetch_nothing():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    assert [repository["repo"] for repository in hooks["repos"]] == ["local"]
    checks = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.M)[1]
    for hook in hooks["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        assert Path(hook["entry"].split()[0]).name in checks
