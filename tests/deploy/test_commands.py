"""The commands of docs/deploying.md: bash runs each block, and each command in it is run, or is in a list of what is not.

A block runs without programs on its path. Every program that it calls is noted with its arguments, as bash expands them, and with what
is piped into it. A command that is in no list fails: enter it below, in RUN if this machine can run it.
"""

import functools
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile

import pytest
import yaml

import chart
import test_schemas

FILE = chart.ROOT / "docs" / "deploying.md"
# What a reader sets before the commands, and the files that the commands read.
VARIABLES = {"ACCOUNT": "123456789012", "VALKEY_URL": "rediss://saker:password@store.shop:6379"}
FILES = {"api-keys": "storefront  6f2c0b9a1d3e4f50a7b8  500\n", "pipeline.toml": "# what sed writes\n"}
# Where the Python of Kubeflow's SDK is, below SAKER_CACHE. The second block of that section takes the variable of the first.
PIPELINES = "runtime/pipelines/bin/python"
# Programs that run as they are: they change nothing.
REAL = ("sed", "cat")

PRELUDE = r"""
note() {
    local input=
    case " $* " in *" - "*) input=$(</dev/stdin) ;; esac
    { printf '%s\0' "$@"; printf '\1%s' "$input"; } >"$NOTES/$EPOCHREALTIME-$BASHPID"
}
command_not_found_handle() { note "$@"; }
sleep() { :; }
"""


class Command(list):
    """The words of a command as its program gets them, and what is piped into it."""

    def __init__(self, words, given):
        super().__init__(words)
        self.given = given

    def option(self, name):
        for place, word in enumerate(self):
            if word == name:
                return self[place + 1]
            if word.startswith(f"{name}="):
                return word.split("=", 1)[1]
        return None

    def __str__(self):
        return shlex.join(self)


def blocks():
    """{number of the line: text} of every block of commands."""
    text = FILE.read_text()
    found = {text[: each.start()].count("\n") + 2: each[1] for each in re.finditer(r"^```(?:bash|sh|shell)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)}
    assert text.count("```bash\n") == len(found), "a block of commands begins with ```bash at the start of a line"
    return found


@functools.cache
def noted(block):
    """Every command that bash would start, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "notes").mkdir()
        place = folder / "checkout"
        place.mkdir()
        for each in ("helm", "deploy", "examples", "docs"):
            if (chart.ROOT / each).exists():
                (place / each).symlink_to(chart.ROOT / each)
        for name, text in FILES.items():
            (place / name).write_text(text)
        prelude = folder / "prelude"
        prelude.write_text(PRELUDE + "".join(f'{name}() {{ {shutil.which(name)} "$@"; }}\n' for name in REAL))
        bash = shutil.which("bash")
        (place / "scripts").mkdir()
        for script in (chart.ROOT / "scripts").iterdir():
            if script.is_file():
                copy = place / "scripts" / script.name
                copy.write_text(f'#!{bash}\n. {prelude}\nnote scripts/{script.name} "$@"\n')
                copy.chmod(0o755)
        stub = folder / "cache" / PIPELINES
        stub.parent.mkdir(parents=True)
        stub.write_text(f'#!{bash}\n. {prelude}\nnote pipelines-python "$@"\n')
        stub.chmod(0o755)
        environment = {"PATH": str(folder / "nothing"), "NOTES": str(folder / "notes"), "HOME": str(folder), **VARIABLES}
        environment |= {"SAKER_CACHE": str(folder / "cache"), "python": str(stub)}
        script = f"set -euo pipefail\n. {prelude}\n{block}\nwait\n"
        ran = subprocess.run([bash, "-c", script], capture_output=True, text=True, cwd=place, env=environment, timeout=60)
        assert ran.returncode == 0, f"{block}\n{ran.stdout}{ran.stderr}"
        found = []
        for note in sorted((folder / "notes").iterdir()):
            words, given = note.read_text().split("\1")
            found.append(Command(words.split("\0")[:-1], given))
        return found


def commands():
    return [command for block in blocks().values() for command in noted(block)]


def helm_install(command):
    """Helm's own engine, as a dry run of the client."""
    name, folder = command[2:4]
    values = chart.read(chart.ROOT / command.option("-f")) if command.option("-f") else {}
    config = chart.helm_python.Config(kube_apiserver="http://127.0.0.1:1")
    namespace = command.option("--namespace") or command.option("-n") or "default"
    release = config.install(str(chart.ROOT / folder), name, values, dry_run="client", namespace=namespace)
    objects = [thing for thing in yaml.safe_load_all(release["manifest"]) if thing]
    assert {"Deployment", "StatefulSet", "Service"} <= {thing["kind"] for thing in objects}


def kubectl_create(command):
    """The real kubectl, which needs no cluster to make a Secret, a ConfigMap or a Namespace."""
    program = shutil.which("kubectl") or pathlib.Path(os.environ.get("SAKER_KUBECTL", ""))
    if not pathlib.Path(program).is_file():
        pytest.skip("kubectl is not installed: scripts/install --deploy installs it")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in FILES.items():
            (pathlib.Path(folder) / name).write_text(text)
        ran = subprocess.run(
            [program, *command[1:], "--dry-run=client", "-o", "yaml"], capture_output=True, text=True, cwd=folder, timeout=60
        )
    assert ran.returncode == 0, ran.stderr
    thing = yaml.safe_load(ran.stdout)
    if thing["kind"] == "Secret":
        name = thing["metadata"]["name"]
        [file] = [path for path in chart.ROOT.glob("helm/*/values.yaml") if name in path.read_text() and path.parent.name != "saker"]
        wanted = {found["name"]: found["key"] for found in secrets(chart.read(file))}
        assert wanted[name] in thing["data"], f"{file} reads another key of {name}"


def secrets(values):
    """The Secrets that a rendered set of values reads: {name, key} of each."""
    for _, template in chart.pods(chart.render(values)):
        for _, container in chart.containers(template):
            for variable in container.get("env", []):
                if "secretKeyRef" in variable.get("valueFrom", {}):
                    yield variable["valueFrom"]["secretKeyRef"]
        for volume in template["spec"].get("volumes", []):
            if "secret" in volume:
                for item in volume["secret"].get("items", [{"key": "api-keys"}]):
                    yield {"name": volume["secret"]["secretName"], "key": item["key"]}


def kubectl_apply(command):
    """What is piped into it is accepted by the schemas of the custom resources."""
    objects = [thing for thing in yaml.safe_load_all(command.given) if thing]
    assert objects and all(thing["kind"] in test_schemas.CUSTOM for thing in objects)
    assert not re.search(r"\b[A-Z]{6,}\b", re.sub(r"#.*", "", command.given)), "a name to replace is left"
    for thing, errors in zip(objects, test_schemas.custom_errors(objects), strict=True):
        assert not errors, thing["metadata"]["name"]


# Commands that this machine runs, as far as the function says.
RUN = {
    r"helm install \S+ \S+": helm_install,
    r"kubectl (-n \S+ )?create (secret generic|configmap|namespace) ": kubectl_create,
    r"kubectl apply -f -$": kubectl_apply,
}
# Commands that another test runs against real servers.
ELSEWHERE = {
    r"curl '?127\.0\.0\.1:8080/recommendations\?user_id=\d+'?$": "test_live.py::test_the_documented_request",
    r"saker ((publish|promote|rollback) retail --to|prune --from) s3://": "test_live.py::test_the_documented_commands_of_releases",
    r"helm test ": "test_engine.py::test_the_test_asks_for_a_release",
    r"scripts/build-images serving saker$": "test_images.py::test_names_are_those_of_kind",
    r"pipelines-python deploy/pipelines/(compile|schedule|run_local)\.py ": "test_pipelines.py::test_the_commands_of_the_docs_are_known",
    r"kubectl -n kubeflow apply -f deploy/pipelines/claim.yaml$": "test_pipelines.py::test_the_claim_is_that_of_the_steps",
}
# Commands that nobody runs here, and what they need. The names that they give are compared with the chart in test_docs.py.
NEEDS = {
    r"kind create cluster$": "a cluster",
    r"kind load docker-image ": "a cluster",
    r"kubectl (-n \S+ )?create job --from=cronjob/": "a cluster",
    r"kubectl (-n \S+ )?wait ": "a cluster",
    r"kubectl (-n \S+ )?rollout status ": "a cluster",
    r"kubectl (-n \S+ )?port-forward ": "a cluster",
    r"scripts/install --pipelines$": "the network; scripts/check-deploy installs the same",
    r"podman (build|run) ": "a registry of images",
    r"aws (s3api|iam) ": "an AWS account",
    r"eksctl ": "an AWS account",
}


def kind_of(command):
    """The patterns, of all lists, that a command matches."""
    return [pattern for pattern in (*RUN, *ELSEWHERE, *NEEDS) if re.match(pattern, str(command))]


def test_every_command_is_in_one_list():
    assert len(commands()) >= 20
    for command in commands():
        found = kind_of(command)
        assert len(found) == 1, f"`{command}` is in {len(found)} lists of tests/deploy/test_commands.py: enter it in one, RUN if it can run here"


def test_the_lists_hold_no_other():
    used = {pattern for command in commands() for pattern in kind_of(command)}
    assert used == {*RUN, *ELSEWHERE, *NEEDS}


@pytest.mark.parametrize("pattern", RUN)
def test_commands_that_run_here(pattern):
    for command in commands():
        if re.match(pattern, str(command)):
            RUN[pattern](command)


def test_those_that_run_elsewhere_have_a_test():
    for place in ELSEWHERE.values():
        file, name = place.split("::")
        assert f"\ndef {name}(" in (pathlib.Path(__file__).parent / file).read_text(), place


def test_files_that_commands_read():
    """Documents of AWS are valid JSON; files of values exist."""
    documents = [word.removeprefix("file://") for command in commands() for word in command if word.startswith("file://")]
    assert len(documents) == 4
    for path in documents:
        policy = json.loads((chart.ROOT / path).read_text())
        assert policy["Version"] == "2012-10-17" and policy["Statement"], path
    for command in commands():
        if command.option("-f") not in (None, "-"):
            assert (chart.ROOT / command.option("-f")).is_file(), command


def test_bash_expands_what_it_should():
    """The recorder sees what the programs would: loops, variables, quotes."""
    assert noted("for a in x 'y z'; do p $a \"$a\"; done") == [["p", "x", "x"], ["p", "y", "z", "y z"]]
    [command] = noted("printf 'a\\nb' | sed s/a/c/ | q -f -")
    assert (command, command.given) == (["q", "-f", "-"], "c\nb")
    with pytest.raises(AssertionError):
        noted("p $NOT_SET")
    with pytest.raises(AssertionError):
        noted("for a in x; p; done")
