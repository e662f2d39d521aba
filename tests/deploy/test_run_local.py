"""deploy/pipelines/run_local.py on small pipelines of shell commands, compiled by kfp: what Kubeflow does with a graph.

test_trainings.py runs the real ones.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import chart
from test_pipelines import PYTHON

pytestmark = pytest.mark.slow
RUNNER = chart.ROOT / "deploy" / "pipelines" / "run_local.py"

PIPELINES = '''
import sys
from kfp import compiler, dsl, kubernetes


def shell(script, *arguments):
    return dsl.ContainerSpec(image="debian", command=["sh", "-c", script, "sh"], args=list(arguments))


@dsl.container_component
def succeeds_the_third_time(folder: str, out: dsl.OutputPath(str)):
    return shell('echo x >>"$1/attempts"; [ "$(wc -l <"$1/attempts")" -ge 3 ] || { echo not yet >&2; exit 7; }; printf done >"$2"', folder, out)


@dsl.container_component
def fails(folder: str):
    return shell('echo x >>"$1/failed"; echo the reason >&2; exit 3', folder)


@dsl.container_component
def sleeps(folder: str):
    return shell('echo x >>"$1/sleeping"; [ -e "$1/awake" ] || exec sleep 60', folder)


@dsl.container_component
def notes(folder: str, name: str):
    return shell('echo x >>"$1/$2"', folder, name)


@dsl.container_component
def says(text: str, whole: int, half: float, two: float, out: dsl.OutputPath(str), made: dsl.Output[dsl.Metrics], folder: str):
    script = """echo x >>"$7/said"; printf '%s|%s|%s|%s' "$1" "$2" "$3" "$4" >"$5"; printf page >"$6"
    printf '%s' "$8" >"$7/input.json"; printf '%s' "$SECRET-$GIVEN-${UNASKED:-nothing}" >"$7/env"
    python3 - "$8" <<'END'
import json, sys
file = json.loads(sys.argv[1])["outputs"]["outputFile"]
json.dump({"artifacts": {"made": {"artifacts": [{"metadata": {"ndcg_10": 0.5}}]}}}, open(file, "w"))
END"""
    return shell(script, text, whole, half, two, out, made.path, folder, "{{$}}")


@dsl.container_component
def forgets(out: dsl.OutputPath(str)):
    return shell("exit 0")


@dsl.pipeline
def retried(folder: str):
    first = succeeds_the_third_time(folder=folder).set_caching_options(False).set_retry(2, "60s", 2, "3600s")
    with dsl.If(first.outputs["out"] == "done"):
        notes(folder=folder, name="yes").set_caching_options(False)
    with dsl.If(first.outputs["out"] == "other"):
        other = notes(folder=folder, name="no").set_caching_options(False)
        notes(folder=folder, name="never").after(other)


@dsl.pipeline
def failing(folder: str):
    before = notes(folder=folder, name="before").set_caching_options(False)
    first = fails(folder=folder).after(before).set_retry(1, "0s")
    notes(folder=folder, name="after").after(first)


@dsl.pipeline
def late(folder: str):
    task = sleeps(folder=folder).set_caching_options(False)
    kubernetes.set_timeout(task, 1)


@dsl.pipeline
def stopped(folder: str):
    before = notes(folder=folder, name="before").set_caching_options(False)
    sleeps(folder=folder).after(before).set_caching_options(False)


@dsl.pipeline
def values(folder: str, text: str = "plain", two: float = 2.0):
    task = says(text=text, whole=3, half=0.5, two=two, folder=folder)
    task.set_env_variable("GIVEN", "given")
    kubernetes.use_secret_as_env(task, "a-secret", {"key": "SECRET"})
    kubernetes.mount_pvc(task, "claim", "/state")


@dsl.pipeline
def forgetful():
    forgets()


@dsl.pipeline
def looping(folder: str):
    with dsl.ParallelFor(["a", "b"]) as name:
        notes(folder=folder, name=name)


for pipeline in (retried, failing, late, stopped, values, forgetful, looping):
    compiler.Compiler().compile(pipeline, f"{sys.argv[1]}/{pipeline.name}.yaml")
'''


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    assert PYTHON.is_file(), f"{PYTHON} is missing; scripts/install --pipelines makes it"
    subprocess.run([PYTHON, "-c", PIPELINES, folder], check=True, timeout=120)
    return folder


class Bench:
    """A folder in which a pipeline runs."""

    def __init__(self, compiled, folder):
        self.compiled, self.folder = compiled, folder

    def command(self, name, *arguments, run="run", parameters=None):
        given = {"folder": self.folder} if parameters is None else parameters
        return [
            *(sys.executable, RUNNER, self.compiled / f"{name}.yaml", "--run", self.folder / run, "--cache", self.folder / "cache"),
            *(f"--parameter={key}={value}" for key, value in given.items()),
            *arguments,
        ]

    def run(self, name, *arguments, env=None, **options):
        command = self.command(name, *arguments, **options)
        env = {**os.environ, "SECRET": "s3cret", "UNASKED": "seen", **(env or {})}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)

    def lines(self, name):
        path = self.folder / name
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def bench(compiled, tmp_path):
    return Bench(compiled, tmp_path)


def test_a_step_is_repeated_and_conditions_decide(bench):
    ran = bench.run("retried", "--backoff-scale", "0.001")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert bench.lines("attempts") == 3
    assert "| not yet" in ran.stdout and "ended with 7, attempt 2 of 3" in ran.stdout
    # 60 s, then twice that, each times 0.001.
    assert "again in 0.06 s" in ran.stdout and "again in 0.12 s" in ran.stdout
    assert (bench.lines("yes"), bench.lines("no"), bench.lines("never")) == (1, 0, 0)
    assert "left out: succeeds-the-third-time-out=done" in ran.stdout
    # What is done is not done again.
    again = bench.run("retried")
    assert again.returncode == 0
    assert "done before: out=done" in again.stdout
    assert (bench.lines("attempts"), bench.lines("yes")) == (3, 1)


def test_a_step_that_fails_ends_the_run_and_says_why(bench):
    ran = bench.run("failing")
    assert ran.returncode == 1
    assert "| the reason" in ran.stdout
    assert "ended with 3, attempt 2 of 2" in ran.stdout
    assert (bench.lines("before"), bench.lines("failed"), bench.lines("after")) == (1, 2, 0)
    bench.run("failing")
    assert (bench.lines("before"), bench.lines("failed"), bench.lines("after")) == (1, 4, 0)


def test_a_step_that_takes_too_long_is_ended(bench):
    start = time.monotonic()
    ran = bench.run("late")
    assert ran.returncode == 1
    assert "took longer than 1 s" in ran.stdout
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("number,code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_run_that_is_stopped_goes_on(bench, number, code):
    process = subprocess.Popen(bench.command("stopped"), stdout=subprocess.PIPE, text=True)
    until = time.monotonic() + 20
    while not bench.lines("sleeping"):
        assert time.monotonic() < until, "the step does not start"
        time.sleep(0.02)
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == code, output
    # The step has ended with it, since the lock and the pipe that it would hold are free.
    (bench.folder / "awake").touch()
    ran = bench.run("stopped")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "done before" in ran.stdout
    assert (bench.lines("before"), bench.lines("sleeping")) == (1, 2)


def test_values_are_those_of_kubeflow(bench):
    ran = bench.run("values")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    # A whole number has no point, as in Kubeflow's launcher.
    assert "out=plain|3|0.5|2" in ran.stdout
    given = json.loads((bench.folder / "input.json").read_text())
    assert given["inputs"]["parameterValues"]["whole"] == 3
    [artefact] = given["outputs"]["artifacts"]["made"]["artifacts"]
    assert artefact["type"]["schemaTitle"] == "system.Metrics"
    # A step sees what the pipeline gives it, and nothing else.
    assert (bench.folder / "env").read_text() == "s3cret-given-nothing"
    done = json.loads((bench.folder / "run/steps/says/done.json").read_text())
    assert done["artefacts"]["made"]["metadata"] == {"ndcg_10": 0.5}


def test_the_cache_knows_inputs_and_artefacts(bench):
    assert bench.run("values").returncode == 0
    folder = {"folder": bench.folder}
    second = bench.run("values", run="second")
    assert "cached: out=plain|3|0.5|2" in second.stdout and bench.lines("said") == 1
    other = bench.run("values", run="third", parameters={**folder, "text": "other"})
    assert "out=other|3" in other.stdout and bench.lines("said") == 2
    assert bench.run("values", "--no-cache", run="fourth").returncode == 0
    assert bench.lines("said") == 3
    # An artefact that is gone is made again.
    (bench.folder / "run/steps/says/artefacts/made").unlink()
    assert bench.run("values", run="fifth").returncode == 0
    assert bench.lines("said") == 4


def test_a_text_that_looks_like_a_placeholder_stays_one(bench):
    text = "{{$.inputs.parameters['whole']}}"
    ran = bench.run("values", parameters={"folder": bench.folder, "text": text})
    assert f"out={text}|3" in ran.stdout, ran.stdout + ran.stderr


def test_an_output_that_is_not_written_is_an_error(bench):
    ran = bench.run("forgetful", parameters={})
    assert ran.returncode == 1
    assert "wrote no out" in ran.stdout


def test_wrong_arguments_are_refused(bench):
    def refused(name, *arguments, **options):
        ran = bench.run(name, *arguments, **options)
        assert ran.returncode == 2, ran.stdout + ran.stderr
        return ran.stderr

    folder = {"folder": bench.folder}
    assert "folder has no default; give --parameter folder=VALUE" in refused("values", parameters={})
    assert "txt is no parameter of values; there are folder, text, two" in refused("values", parameters={**folder, "txt": "x"})
    assert "two=x: a NUMBER_DOUBLE is expected" in refused("values", parameters={**folder, "two": "x"})
    assert "the variable is not set here" in refused("values", "--env", "SAKER_NO_SUCH_VARIABLE")
    assert "which this cannot run" in refused("looping")
    # Nothing has begun.
    assert not (bench.folder / "run").exists()
    assert "cannot read" in refused("no-such-pipeline")
    assert bench.run("values").returncode == 0
    assert "with other parameters; give another folder" in refused("values", parameters={**folder, "text": "other"})
    secret = {"SECRET": ""}
    env = {name: value for name, value in os.environ.items() if name not in secret}
    ran = subprocess.run(bench.command("values", run="bare"), capture_output=True, text=True, timeout=60, env=env)
    assert ran.returncode == 2
    assert "takes SECRET from the Secret a-secret; set the variable here" in ran.stderr


def test_the_help_names_every_option():
    ran = subprocess.run([sys.executable, RUNNER, "--help"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0
    for option in ("--parameter", "--env", "--run", "--cache", "--no-cache", "--backoff-scale", "--verbose"):
        assert option in ran.stdout and f'"{option}"' in RUNNER.read_text()
