""".github: each script that a workflow calls exists and knows its arguments, what .ci/run runs is run, and nothing is done with more rights
or less care than needed."""

import itertools
import os
import re
import shlex
import subprocess

import pytest

import chart

FOLDER = chart.ROOT / ".github"
WORKFLOWS = {path.name: chart.read(path) for path in sorted(FOLDER.glob("workflows/*.yml"))}
ACTIONS = {path.parent.name: chart.read(path) for path in sorted(FOLDER.glob("actions/*/action.yml"))}
JOBS = {f"{file}: {name}": job for file, workflow in WORKFLOWS.items() for name, job in workflow["jobs"].items()}
CONTAINERFILE = (chart.ROOT / "deploy" / "images" / "Containerfile").read_text()


def steps():
    """(where it is, the step) of every job and action."""
    for name, job in JOBS.items():
        for step in job["steps"]:
            yield name, step
    for name, action in ACTIONS.items():
        for step in action["runs"]["steps"]:
            yield f"actions/{name}", step


def variants(name):
    """Each combination of a job's matrix."""
    matrix = JOBS.get(name, {}).get("strategy", {}).get("matrix", {})
    for values in itertools.product(*matrix.values()):
        yield dict(zip(matrix, values))


def calls():
    """Every command that a workflow runs, as words, with each value of its matrix."""
    for name, step in steps():
        for line in step.get("run", "").splitlines():
            for values in variants(name):
                filled = re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda found: values[found[1]], line)
                yield name, shlex.split(filled)


CALLS = list(calls())
SCRIPTS = {words[0] for _, words in CALLS}


def test_there_are_workflows():
    assert {"ci.yml", "images.yml", "nightly.yml"} <= set(WORKFLOWS)
    assert {"scripts/lint", "scripts/check-dependencies", "scripts/test", "scripts/build-images"} <= SCRIPTS


@pytest.mark.parametrize("name,words", CALLS, ids=[f"{name}: {shlex.join(words)}" for name, words in CALLS])
def test_a_command_is_a_script_that_exists(name, words):
    """A workflow repeats nothing of what a script does: it calls the script."""
    script = chart.ROOT / words[0]
    assert words[0].startswith("scripts/") and script.is_file() and os.access(script, os.X_OK)
    options = [word for word in words[1:] if word.startswith("--")]
    helped = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=20)
    assert helped.returncode == 0, helped.stderr
    for option in options:
        assert re.search(rf"{option}(?![\w-])", helped.stdout), f"{words[0]} --help does not name {option}"


def test_what_the_gate_runs_is_run():
    gate = (chart.ROOT / ".ci" / "run").read_text()
    [script] = re.findall(r"^exec (scripts/\S+)$", gate, re.MULTILINE)
    on_a_change = [words for name, words in CALLS if name.startswith("ci.yml")]
    assert script in {words[0] for words in on_a_change}
    # All of its layers, each once.
    source = (chart.ROOT / "scripts" / "test_layers.py").read_text()
    layers = re.findall(r'^    "(\d+)": "', source.split("LAYERS = {", 1)[1].split("}", 1)[0], re.MULTILINE)
    assert len(layers) >= 7
    ran = [layer for words in on_a_change if words[0] == script for layer in words[1:]]
    assert sorted(ran) == layers


def test_every_image_that_the_script_makes_by_default_is_built():
    text = (chart.ROOT / "scripts" / "build-images").read_text()
    default = re.search(r"images=\((serving[^)]*)\)", text)[1].split()
    assert sorted(words[1] for _, words in CALLS if words[0] == "scripts/build-images") == sorted(default)


@pytest.mark.parametrize("file", WORKFLOWS)
def test_rights_are_the_least(file):
    workflow = WORKFLOWS[file]
    assert workflow["permissions"] == {"contents": "read"}
    # YAML 1.1 reads the key `on` as true.
    triggers = workflow[True]
    # It would run the code of a stranger with the rights of the repository.
    assert "pull_request_target" not in triggers
    for name, job in workflow["jobs"].items():
        assert "permissions" not in job, name
        assert 0 < job["timeout-minutes"] <= 180, name
        assert re.fullmatch(r"ubuntu-\d\d\.\d\d", job["runs-on"]), f"{name}: a named release"
    text = (FOLDER / "workflows" / file).read_text()
    assert "secrets." not in text
    # A name of a branch or a title is text of a stranger: no shell may see it.
    for name, step in steps():
        for expression in re.findall(r"\$\{\{\s*(.*?)\s*\}\}", step.get("run", "")):
            assert re.fullmatch(r"matrix\.\w+", expression), f"{name}: {expression}"


def test_actions_are_pinned():
    used = [step["uses"] for _, step in steps() if "uses" in step]
    assert len(used) > 5
    for action in used:
        if action.startswith("./"):
            assert (chart.ROOT / action / "action.yml").is_file(), action
        else:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", action), f"{action}: an action of GitHub at a major version"
    assert {action.removeprefix("./.github/actions/") for action in used if action.startswith("./")} == set(ACTIONS)


def test_caches_are_keyed_by_what_they_depend_on():
    caches = [step["with"] for _, step in steps() if step.get("uses", "").startswith("actions/cache@")]
    compiled = [cache for cache in caches if "builds" in cache["path"]]
    assert len(compiled) == 1 and "'Cargo.lock'" in compiled[0]["key"] and "'rust-toolchain.toml'" in compiled[0]["key"]
    for cache in caches:
        for files in re.findall(r"hashFiles\(([^)]*)\)", cache["key"]):
            for file in re.findall(r"'([^']+)'", files):
                assert (chart.ROOT / file).is_file(), file
    # One key, one content.
    keys = [(name.split(":")[0], step["with"]["key"]) for name, step in steps() if step.get("uses", "").endswith("actions/prepare")]
    assert len(set(keys)) == len(keys)


def test_jobs_compile_in_the_image_of_the_containerfile():
    [image] = re.findall(r"^ARG RUST=(\S+)$", CONTAINERFILE, re.MULTILINE)
    compiling = 0
    for name, job in JOBS.items():
        ran = {words[0] for place, words in CALLS if place == name}
        if ran == {"scripts/build-images"}:
            assert "container" not in job, "a container in a container"
            continue
        container = job["container"]
        assert (container["image"] if isinstance(container, dict) else container) == image, name
        compiling += 1
    assert compiling >= 5
