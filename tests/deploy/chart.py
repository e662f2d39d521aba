"""Renders helm/saker with Helm's own engine, and walks over what comes out.

`scripts/check-deploy` runs the tests of this folder in a virtual environment that has the engine (helm-python-sdk).
"""

import copy
import functools
import json
import pathlib
import sys

import helm_python
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "helm" / "saker"
WORKLOADS = ("Deployment", "StatefulSet", "CronJob", "Pod")

# The least that an installation says.
LEAST = {"releases": {"url": "s3://shop/saker"}, "store": {"existingSecret": "shop-valkey"}}


@functools.cache
def chart():
    return helm_python.Chart.load(FOLDER)


# libyaml where PyYAML has it: a set of values is 3,000 lines.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(path):
    return yaml.load(pathlib.Path(path).read_text(), LOADER)


def merged(*layers):
    """Values in which later layers win, key by key."""
    result = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def value_sets():
    """Every set of values that must render, by name: ci/*.yaml, the examples, and variations of them."""
    sets = {path.name.removesuffix("-values.yaml"): read(path) for path in sorted((FOLDER / "ci").glob("*.yaml"))}
    for example in ("kind", "eks"):
        sets[f"example-{example}"] = read(ROOT / "helm" / example / "values.yaml")
    scaling = {"minReplicas": 2, "maxReplicas": 8, "keda": {"prometheusAddress": "https://prometheus:9090"}}
    rules = {"monitoring": {"rules": True}}
    for kind in ("hpa", "keda"):
        for metric in ("concurrency", "queue", "cpu"):
            own = {"autoscaling": {**scaling, "kind": kind, "metric": metric}}
            sets[f"{kind}-{metric}"] = merged(LEAST, rules, own)
    sets["keda-fallback"] = merged(
        LEAST, {"autoscaling": {**scaling, "kind": "keda", "pending": 0, "target": 1.5}}
    )
    sets["keda-fallback"]["autoscaling"]["keda"]["fallbackReplicas"] = 4
    sets["claim-existing"] = merged(
        {"store": LEAST["store"], "releases": {"source": "claim", "claim": {"existing": "shop-releases"}}}
    )
    pod = {
        "annotations": {"example.com/a": "b"},
        "labels": {"team": "search"},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "shop", "effect": "NoSchedule"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "high",
        "env": [{"name": "SAKER_EXTRA", "value": "1"}],
        "secretEnv": [{"name": "SAKER_SEEN_URL", "secret": "shop-seen", "key": "url"}],
    }
    everywhere = {part: {"pod": pod} for part in ("triton", "gateway", "updater", "training", "valkey")}
    sets["pods"] = merged(sets["claim"], everywhere)
    return sets


def render(values, name="shop", namespace="prod", version=None):
    """Every object, as a list of (template, object); NOTES.txt is left out. The same list for the same arguments."""
    if version:
        values = merged(values, {"kubeVersion": version})
    return _rendered(json.dumps(values), name, namespace)


@functools.cache
def _rendered(values, name, namespace):
    return render_anew(json.loads(values), name, namespace)


def render_anew(values, name="shop", namespace="prod"):
    texts = chart().render(values, name=name, namespace=namespace)
    objects = []
    for template, text in sorted(texts.items()):
        if not template.endswith(".txt"):
            objects += [(template, document) for document in yaml.load_all(text, LOADER) if document]
    return objects


def notes(values, name="shop", namespace="prod"):
    return chart().render(values, name=name, namespace=namespace)["saker/templates/NOTES.txt"]


def of_kind(objects, *kinds):
    return [thing for _, thing in objects if thing["kind"] in kinds]


def pod_template(thing):
    """The template (or the object) that holds the pod of a workload, else None."""
    if thing["kind"] not in WORKLOADS:
        return None
    if thing["kind"] == "Pod":
        return thing
    if thing["kind"] == "CronJob":
        return thing["spec"]["jobTemplate"]["spec"]["template"]
    return thing["spec"]["template"]


def pods(objects):
    """(workload, template of its pod) of every workload."""
    return [(thing, pod_template(thing)) for _, thing in objects if pod_template(thing)]


def containers(template):
    """(is it an init container, container) of a pod."""
    spec = template["spec"]
    for kind in ("initContainers", "containers"):
        for container in spec.get(kind, []):
            yield kind == "initContainers", container


def component(thing):
    return thing["metadata"]["labels"]["app.kubernetes.io/component"]


def main():
    """Prints the objects of a file of values, as `helm template` does: `python chart.py VALUES [NAME [NAMESPACE]]`."""
    if len(sys.argv) not in (2, 3, 4):
        sys.exit(main.__doc__)
    objects = render_anew(read(sys.argv[1]), *sys.argv[2:])
    yaml.safe_dump_all([thing for _, thing in objects], sys.stdout, sort_keys=False, width=1000)


if __name__ == "__main__":
    main()
