"""Every rendered object against the schemas of Kubernetes, and custom resources against theirs."""

import copy
import functools
import json
import os
import pathlib
import subprocess

import pytest
from kubernetes_validate import utils

import chart

SETS = chart.value_sets()
HERE = pathlib.Path(__file__).parent
CUSTOM = {
    "ScaledObject": "keda",
    "PodMonitor": "prometheus-operator",
    "PrometheusRule": "prometheus-operator",
    "HTTPRoute": "gateway-api",
    "NodePool": "karpenter",
    "EC2NodeClass": "karpenter",
}
# The library reads a megabyte of definitions for each object otherwise.
utils.schema_contents = functools.cache(utils.schema_contents)


def examples():
    """The objects of helm/karpenter."""
    files = sorted((chart.ROOT / "helm" / "karpenter").glob("*.yaml"))
    return [(path.name, thing) for path in files for thing in chart.yaml.safe_load_all(path.read_text())]


@functools.cache
def custom_resources():
    """All of them, of every set of values and of the examples."""
    objects = [thing for values in SETS.values() for _, thing in chart.render(values)]
    objects += [thing for _, thing in examples()]
    return [thing for thing in objects if thing["kind"] in CUSTOM]


def custom_errors(objects):
    """What the schemas of the custom resources say of each."""
    schemas = os.environ["SAKER_CR_SCHEMAS"]
    asked = [{"package": CUSTOM[thing["kind"]], "object": thing} for thing in objects]
    command = ["node", str(HERE / "custom_resources.cjs"), schemas]
    answer = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True)
    return json.loads(answer.stdout)


def test_there_are_enough_sets_of_values():
    assert len(SETS) >= 12


@pytest.mark.parametrize("name", ["claim", *(pytest.param(each, marks=pytest.mark.slow) for each in SETS if each != "claim")])
def test_lint_is_silent(name):
    for values in ({}, SETS[name]):
        report = chart.helm_python.lint(chart.FOLDER, values, strict=True)
        assert not report["messages"] and not report["errors"], report


@pytest.mark.parametrize("version", ["1.33", *(pytest.param(each, marks=pytest.mark.slow) for each in ("1.28", "1.37"))])
def test_objects_are_accepted_by_kubernetes(version):
    seen = set()
    for name, values in SETS.items():
        if int(version.split(".")[1]) < 33 and values["releases"].get("source") == "image":
            continue
        for template, thing in chart.render(values, version=version):
            text = json.dumps(thing, sort_keys=True)
            if thing["kind"] in CUSTOM or text in seen:
                continue
            seen.add(text)
            try:
                utils.validate(thing, version, strict=True)
            except utils.ValidationError as error:
                where = ".".join(str(part) for part in error.path)
                pytest.fail(f"{name}: {template}: {thing['kind']} {where}: {error.message}")
    assert seen


def test_custom_resources_are_accepted():
    objects = custom_resources()
    assert {thing["kind"] for thing in objects} == set(CUSTOM), "a kind that no set of values renders"
    for thing, errors in zip(objects, custom_errors(objects), strict=True):
        assert not errors, f"{thing['kind']} {thing['metadata']['name']}"


def test_the_check_of_custom_resources_finds_mistakes():
    def broken(kind, change):
        found = next(thing for thing in custom_resources() if thing["kind"] == kind)
        found = copy.deepcopy(found)
        change(found["spec"])
        return found

    mistakes = [
        broken("ScaledObject", lambda spec: spec["scaleTargetRef"].pop("name")),
        broken("ScaledObject", lambda spec: spec["triggers"][0]["metadata"].update(threshold=5)),
        broken("ScaledObject", lambda spec: spec.update(pollingIntervall=5)),
        broken("PodMonitor", lambda spec: spec["podMetricsEndpoints"][0].update(interval="10")),
        broken("HTTPRoute", lambda spec: spec["rules"][0]["matches"][0]["path"].update(type="Prefix")),
        broken("NodePool", lambda spec: spec["disruption"].update(consolidationPolicy="WhenUnderutilized")),
        broken("NodePool", lambda spec: spec["template"]["spec"].pop("nodeClassRef")),
    ]
    for mistake, errors in zip(mistakes, custom_errors(mistakes), strict=True):
        assert errors, mistake


def test_every_kind_is_checked():
    kinds = {thing["kind"] for values in SETS.values() for _, thing in chart.render(values)}
    for kind in ("Deployment", "StatefulSet", "CronJob", "Pod", "Service", "Secret", "ConfigMap", "NetworkPolicy",
                 "PodDisruptionBudget", "HorizontalPodAutoscaler", "Ingress", "ServiceAccount", "PersistentVolumeClaim"):
        assert kind in kinds
