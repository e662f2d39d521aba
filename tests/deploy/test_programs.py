"""Every argument and variable of the rendered containers is known to the program that gets it."""

import functools
import os
import pathlib
import re
import subprocess

import pytest

import chart

SETS = chart.value_sets()
PROGRAMS = os.environ.get("SAKER_PROGRAMS")
OURS = ("saker", "saker-gateway", "saker-updater", "saker-follow")
# Read by the object store's client, by logging, or by Triton's C library; not by an argument.
FREE = re.compile(r"AWS_\w+|RUST_LOG|POD_NAME|MALLOC_MMAP_THRESHOLD_|SAKER_EXTRA|SAKER_SEEN_URL")


def runs():
    """{(program, subcommand or ""): (arguments that begin with --, names of variables)} over all sets of values."""
    found = {}
    for values in SETS.values():
        for _, template in chart.pods(chart.render(values)):
            for _, container in chart.containers(template):
                program = container["command"][0]
                subcommand = container["args"][0] if program == "saker" else ""
                options, variables = found.setdefault((program, subcommand), (set(), set()))
                options |= {text.split("=")[0] for text in container.get("args", []) if text.startswith("--")}
                variables |= {variable["name"] for variable in container.get("env", [])}
    return found


RUNS = runs()


@functools.cache
def help_of(path, *subcommand):
    ran = subprocess.run([path, *subcommand, "--help"], capture_output=True, text=True, timeout=60)
    return ran.stdout + ran.stderr


@functools.cache
def sources():
    """The Rust code of programs and crates: some variables are read without an argument of that name."""
    folders = ("src", "crates", "backends")
    return "".join(path.read_text() for folder in folders for path in (chart.ROOT / folder).rglob("*.rs"))


def unknown(options, text):
    return {option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", text)}


def test_these_programs_run():
    assert {program for program, _ in RUNS} == {*OURS, "tritonserver", "valkey-server", "sh"}


@pytest.mark.skipif(not PROGRAMS, reason="SAKER_PROGRAMS is not set")
@pytest.mark.parametrize("program,subcommand", [run for run in RUNS if run[0] in OURS])
def test_arguments_of_ours(program, subcommand):
    options, variables = RUNS[program, subcommand]
    path = pathlib.Path(PROGRAMS) / program
    assert path.is_file(), f"{path} is missing: SAKER_PROGRAMS names the folder with {', '.join(OURS)}"
    text = help_of(path, *filter(None, [subcommand]))
    assert "Usage" in text, text
    assert not unknown(options, text), f"{program} {subcommand} does not know {unknown(options, text)}"
    missing = {
        name
        for name in variables
        if not FREE.fullmatch(name) and not re.search(rf"\b{name}\b", text) and f'"{name}"' not in sources()
    }
    assert not missing, f"{program} {subcommand} does not read {missing}"


def test_arguments_of_triton():
    server = os.environ.get("SAKER_TRITON", "")
    if not pathlib.Path(server).is_file():
        pytest.skip("Triton is not installed: scripts/install installs it")
    options, _ = RUNS["tritonserver", ""]
    text = help_of(server)
    assert "--model-control-mode" in text
    assert not unknown(options, text), f"tritonserver does not know {unknown(options, text)}"


def test_restrictions_are_those_of_saker_serve():
    """The control API's services and its header, as crates/saker-serving/src/control.rs names them."""
    control = (chart.ROOT / "crates/saker-serving/src/control.rs").read_text()
    [services] = re.findall(r'const RESTRICTED: &str = "([^"]+)"', control)
    [header] = re.findall(r'const CONTROL_HEADER: &str = "([^"]+)"', control)
    wanted = f"{services}:{header}=$(SAKER_CONTROL_KEY)"
    for values in SETS.values():
        [triton] = [t for w, t in chart.pods(chart.render(values)) if chart.component(w) == "triton"]
        arguments = [c for _, c in chart.containers(triton) if c["name"] == "triton"][0]["args"]
        assert f"--http-restricted-api={wanted}" in arguments
        assert f"--grpc-restricted-protocol={wanted}" in arguments
