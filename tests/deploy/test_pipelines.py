"""deploy/pipelines: the compiled files, what the steps are given, and the options."""

import functools
import os
import pathlib
import re
import subprocess
import sys

import pytest
import yaml
from kubernetes_validate import utils

import chart
import test_programs

FOLDER = chart.ROOT / "deploy" / "pipelines"
sys.path.insert(0, str(FOLDER))
from options import merged  # noqa: E402
COMPILED = FOLDER / "compiled"
RUNTIME = pathlib.Path(os.environ.get("SAKER_CACHE", pathlib.Path.home() / ".cache" / "saker")) / "runtime"
# The environment with kfp; that of the tests has Helm's engine.
PYTHON = RUNTIME / "pipelines" / "bin" / "python"
KINDS = ("full", "daily")
SCHEDULES = {"full": "0 1 * * 0", "daily": "0 3 * * 1-6"}


def kfp(script, *arguments, **options):
    assert PYTHON.is_file(), f"{PYTHON} is missing; scripts/install --pipelines makes it"
    command = [PYTHON, FOLDER / script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def read(path):
    """(specification, executors of Kubernetes) of a compiled pipeline."""
    spec, platform = yaml.load_all(path.read_text(), chart.LOADER)
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def compiled_with(folder, options):
    (folder / "options.yaml").write_text(yaml.safe_dump(options))
    ran = kfp("compile.py", "--options", folder / "options.yaml", "--output", folder)
    assert ran.returncode == 0, ran.stderr
    return {kind: read(folder / f"{kind}.yaml") for kind in KINDS}


@functools.cache
def committed(kind):
    return read(COMPILED / f"{kind}.yaml")


def tasks(spec):
    """Every task that is a container, by the name of its step, in the order in which they run."""
    found = {}

    def walk(dag):
        rest = dict(dag["tasks"])
        done = []
        while rest:
            name = next(name for name, task in rest.items() if set(task.get("dependentTasks", [])) <= set(done))
            task = rest.pop(name)
            done.append(name)
            component = spec["components"][task["componentRef"]["name"]]
            if "dag" in component:
                walk(component["dag"])
            else:
                executor = component["executorLabel"]
                found[task["taskInfo"]["name"]] = (task, executor, spec["deploymentSpec"]["executors"][executor]["container"])

    walk(spec["root"]["dag"])
    return found


def options_of(arguments):
    return {text for text in arguments if text.startswith("--")}


def test_the_compiled_files_are_what_would_be_compiled():
    ran = kfp("compile.py", "--check")
    assert ran.returncode == 0, ran.stderr
    assert {path.name for path in COMPILED.iterdir()} == {f"{kind}.yaml" for kind in KINDS}


@pytest.mark.slow
def test_a_file_that_differs_is_noticed(tmp_path):
    for kind in KINDS:
        (tmp_path / f"{kind}.yaml").write_text((COMPILED / f"{kind}.yaml").read_text())
    with open(tmp_path / "daily.yaml", "a") as file:
        file.write("# by hand\n")
    ran = kfp("compile.py", "--check", "--output", tmp_path)
    assert ran.returncode == 1
    assert "daily.yaml" in ran.stderr and "full.yaml" not in ran.stderr


@pytest.mark.parametrize(
    "text,says",
    [
        ("imge: saker:1", "imge is no option"),
        ("gpu: {cuont: 1}", "gpu.cuont is no option; there are count"),
        ("gpu: {count: many}", "gpu.count is 'many'; a value like 0 is expected"),
        ("resources: {memoryMi: 8Gi}", "resources.memoryMi is '8Gi'"),
        ("claims: state", "claims is 'state'; a table is expected"),
        ("[image]", "a table of options is expected"),
        ("image: [", "cannot read"),
    ],
)
def test_wrong_options_are_refused_by_their_path(tmp_path, text, says):
    path = tmp_path / "options.yaml"
    path.write_text(text)
    ran = kfp("compile.py", "--options", path, "--output", tmp_path / "out")
    assert ran.returncode == 1
    assert says in ran.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_the_steps_are_those_of_the_chart(kind):
    """The same commands in the same order, given at least what the chart's CronJob gives them."""
    values = chart.merged(chart.LEAST, {"training": {"enabled": True, "gpu": 1}})
    [job] = [
        thing for thing in chart.of_kind(chart.render(values), "CronJob") if thing["metadata"]["name"].endswith(f"-{kind}")
    ]
    template = chart.pod_template(job)
    containers = {container["name"]: container for _, container in chart.containers(template)}
    steps = tasks(committed(kind)[0])
    assert list(steps)[0] == "data-version"
    assert list(steps)[1:] == list(containers)
    for name, container in containers.items():
        _, _, own = steps[name]
        assert own["command"] == container["command"]
        assert own["args"][0] == container["args"][0]
        given = options_of(container["args"]) - {"--device"}
        # A promotion needs no state: it knows its release.
        given -= {"--state"} if name == "promote" else set()
        assert given <= options_of(own["args"]), name
    assert job["spec"]["schedule"] == SCHEDULES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cached_is_named_by_the_version_of_the_data(kind):
    spec, _ = committed(kind)
    cached = [name for name, (task, _, _) in tasks(spec).items() if task["cachingOptions"].get("enableCache")]
    assert cached == (["prepare", "train", "index", "evaluate"] if kind == "full" else [])
    for name in cached:
        task, _, container = tasks(spec)[name]
        inputs = task["inputs"]["parameters"]
        assert inputs["version"]["taskOutputParameter"]["outputParameterKey"] == "version"
        assert {"dataset", "state", "version", "fresh"} == set(inputs)
        assert any("inputs.parameters['version']" in text for text in container["args"])


@pytest.mark.parametrize("kind", KINDS)
def test_promotion_depends_on_the_verdict(kind):
    spec, _ = committed(kind)
    [condition] = [task for task in spec["root"]["dag"]["tasks"].values() if "triggerPolicy" in task]
    assert condition["triggerPolicy"]["condition"].endswith("== 'promote'")
    inside = spec["components"][condition["componentRef"]["name"]]["dag"]["tasks"]
    assert {"assemble", "publish", "promote"} <= set(inside)
    outside = set(spec["root"]["dag"]["tasks"])
    assert not outside & {"assemble", "publish", "materialize", "promote"}
    promote = inside["promote"]["inputs"]["parameters"]["release"]
    assert promote["taskOutputParameter"] == {"producerTask": "publish", "outputParameterKey": "release"}


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_repeated_and_bounded(kind):
    spec, platform = committed(kind)
    for name, (task, executor, container) in tasks(spec).items():
        assert int(platform[executor]["activeDeadlineSeconds"]) >= 600
        assert container["resources"]["resourceMemoryLimit"] == container["resources"]["resourceMemoryRequest"]
        assert platform[executor]["securityContext"]["runAsNonRoot"] is True
        # Servers that refuse a release would refuse it again.
        policy = task.get("retryPolicy")
        assert (policy is None) == (name == "promote")
        if policy:
            assert policy["maxRetryCount"] == 2 and policy["backoffDuration"] != "0s"
        has_state = name != "promote" and not (kind == "daily" and name == "data-version")
        mounts = [mount["mountPath"] for mount in platform[executor].get("pvcMount", [])]
        assert mounts == (["/state"] if has_state else [])


@pytest.mark.parametrize("kind", KINDS)
def test_artefacts_are_for_people(kind):
    spec, _ = committed(kind)
    outputs = {name: spec["components"][task["componentRef"]["name"]].get("outputDefinitions", {}) for name, (task, _, _) in tasks(spec).items()}
    kinds = {name: thing["artifactType"]["schemaTitle"] for name, thing in outputs["evaluate"]["artifacts"].items()}
    assert kinds == {"metrics": "system.Metrics", "report": "system.HTML"}
    assert set(outputs["gate"]["parameters"]) == {"verdict", "reason"}
    assert set(outputs["publish"]["parameters"]) == {"release"}


def test_options_reach_the_pods(tmp_path):
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    options = {
        "image": "registry.example/saker@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "imagePullSecrets": ["pull"],
        "definition": {"configMap": "shop-definition"},
        "claims": {"state": "shop-state", "data": "shop-data", "releases": "shop-releases"},
        "store": {"secret": "valkey-of-the-shop"},
        "objectStore": {"region": "eu-central-1", "endpoint": "http://s3:9000", "allowHttp": True, "secret": "shop-s3"},
        "gpu": {"count": 1, "nodeSelector": {"pool": "gpu"}, "tolerations": [toleration]},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "podLabels": {"team": "search"},
        "env": {"RUST_LOG": "debug"},
        "retries": {"count": 0},
    }
    for kind, (spec, platform) in compiled_with(tmp_path, options).items():
        for name, (task, executor, container) in tasks(spec).items():
            learns = name in ("train", "finetune")
            pod = platform[executor]
            assert container["image"] == options["image"]
            assert "retryPolicy" not in task
            env = {entry["name"]: entry["value"] for entry in container["env"]}
            assert env == {
                "SAKER_PIPELINE": "/etc/saker/pipeline/pipeline.toml",
                "AWS_REGION": "eu-central-1",
                "AWS_ENDPOINT_URL": "http://s3:9000",
                "AWS_ALLOW_HTTP": "true",
                "RUST_LOG": "debug",
            }
            secrets = {entry["envVar"]: secret["secretName"] for secret in pod["secretAsEnv"] for entry in secret["keyToEnv"]}
            assert secrets == {"SAKER_REDIS_URL": "valkey-of-the-shop", "AWS_ACCESS_KEY_ID": "shop-s3", "AWS_SECRET_ACCESS_KEY": "shop-s3"}
            claims = {mount["mountPath"]: mount["constant"] for mount in pod["pvcMount"]}
            assert claims.get("/releases") == "shop-releases"
            if name != "promote" and (kind, name) != ("daily", "data-version"):
                assert claims == {"/state": "shop-state", "/data": "shop-data", "/releases": "shop-releases"}
            assert pod["configMapAsVolume"][0]["configMapName"] == "shop-definition"
            assert ("accelerator" in container["resources"]) == learns
            assert ("--device" in container["args"]) == learns
            assert pod["nodeSelector"]["labels"] == {"kubernetes.io/arch": "amd64", **({"pool": "gpu"} if learns else {})}
            assert len(pod.get("tolerations", [])) == (1 if learns else 0)
            assert pod["podMetadata"]["labels"] == {"team": "search"}
            assert pod["imagePullSecret"][0]["secretName"] == "pull"


def test_the_claim_is_that_of_the_steps():
    claim, job = yaml.load_all((FOLDER / "claim.yaml").read_text(), chart.LOADER)
    for version in ("1.28", "1.33", "1.37"):
        for thing in (claim, job):
            utils.validate(thing, version, strict=True)
    options = chart.read(FOLDER / "options.yaml")
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert claim["metadata"]["name"] == options["claims"]["state"] == pod["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert container["image"] == options["image"]
    security = pod["securityContext"]
    # The volume's group is one that the steps have.
    assert security["fsGroup"] == options["runAsGroup"]
    spec, platform = committed("full")
    for _, executor, _ in tasks(spec).values():
        own = platform[executor]["securityContext"]
        assert int(own["runAsUser"]) == security["runAsUser"] and int(own["runAsGroup"]) == security["fsGroup"]


def test_the_commands_of_the_docs_are_known():
    text = (chart.ROOT / "docs" / "deploying.md").read_text()
    section = text.split("\n## Kubeflow\n", 1)[1].split("\n## ", 1)[0]
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", section, re.DOTALL)).replace("\\\n", " ")
    found = re.findall(r"deploy/pipelines/(\w+\.(?:py|yaml))(.*)", blocks)
    assert {name for name, _ in found} == {"compile.py", "schedule.py", "run_local.py", "claim.yaml"}
    for name, arguments in found:
        script = FOLDER / name
        assert script.is_file()
        known = script.read_text()
        unknown = [option for option in re.findall(r"(?<!\S)--[a-z-]+", arguments) if f'"{option}"' not in known]
        assert not unknown, f"{name} does not know {unknown}"
    # What sed writes finds nothing in a state any more.
    [change] = re.findall(r"sed '(\S+)' examples/retail/pipeline.toml", blocks)
    definition = subprocess.run(["sed", change, chart.ROOT / "examples/retail/pipeline.toml"], capture_output=True, text=True, check=True).stdout
    assert "/data/users.parquet" in definition
    assert not [line for line in definition.splitlines() if "SAKER_STATE" in line and not line.startswith("#")]
    [own] = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    options = merged(chart.read(FOLDER / "options.yaml"), yaml.safe_load(own), "docs/deploying.md")
    assert f"create configmap {options['definition']['configMap']} --from-file={options['definition']['key']}" in blocks
    assert f"create secret generic {options['store']['secret']} --from-literal={options['store']['key']}=" in blocks


@pytest.mark.skipif(not test_programs.PROGRAMS, reason="SAKER_PROGRAMS is not set")
@pytest.mark.parametrize("kind", KINDS)
def test_arguments_are_known_to_the_program(kind):
    path = pathlib.Path(test_programs.PROGRAMS) / "saker"
    for name, (_, _, container) in tasks(committed(kind)[0]).items():
        subcommand = container["args"][0]
        text = test_programs.help_of(path, subcommand)
        unknown = test_programs.unknown(options_of(container["args"]), text)
        assert not unknown, f"{name}: saker {subcommand} does not know {unknown}"
