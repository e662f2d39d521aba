"""What values are refused, and that schema, values.yaml and README say the same."""

import json
import subprocess
import sys

import pytest

import chart

SCHEMA = json.loads((chart.FOLDER / "values.schema.json").read_text())
DEFAULTS = chart.read(chart.FOLDER / "values.yaml")
IMAGE = {"releases": {"source": "image", "image": {"reference": "a/b:1"}}, "store": {"existingSecret": "s"}}

# What is wrong, and the path (or the words) that the error must name. Each is laid over the least values.
WRONG = {
    "misspelled": ({"triton": {"replica": 3}}, "/triton"),
    "misspelled at the top": ({"gatway": {"replicas": 3}}, "gatway"),
    "misspelled deep": ({"autoscaling": {"keda": {"prometheusAdress": "http://p"}}}, "/autoscaling/keda"),
    "misspelled in a list": (
        {"gateway": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "a", "namespce": "b"}]}}},
        "/gateway/httpRoute/parentRefs/0",
    ),
    "a target of 0.2": ({"autoscaling": {"target": "200m"}}, "/autoscaling/target"),
    "hpa and keda": ({"autoscaling": {"kind": "hpa,keda"}}, "/autoscaling/kind"),
    "an autoscaler beside": ({"autoscaling": {"hpa": {"enabled": True}}}, "/autoscaling"),
    "another metric": ({"autoscaling": {"metric": "latency"}}, "/autoscaling/metric"),
    "a text as a number": ({"triton": {"replicas": "3"}}, "/triton/replicas"),
    "less than nothing": ({"triton": {"replicas": -1}}, "/triton/replicas"),
    "no workers": ({"updater": {"workers": 0}}, "/updater/workers"),
    "half a GPU": ({"triton": {"gpu": 0.5}}, "/triton/gpu"),
    "root": ({"podSecurity": {"runAsUser": 0}}, "/podSecurity/runAsUser"),
    "a release over http": ({"releases": {"url": "http://shop/saker"}}, "/releases/url"),
    "a store over http": (
        {"store": {"existingSecret": "", "url": "http://store:6379"}},
        "/store/url",
    ),
    "a size without unit": ({"releases": {"claim": {"size": "10"}}}, "/releases/claim/size"),
    "memory with unit": ({"gateway": {"resources": {"memoryMi": "512Mi"}}}, "/gateway/resources/memoryMi"),
    "cpu in words": ({"gateway": {"resources": {"cpu": "two"}}}, "/gateway/resources/cpu"),
    "a digest that is none": ({"image": {"serving": {"digest": "sha256:12"}}}, "/image/serving/digest"),
    "a key that is too short": ({"gateway": {"apiKeys": {"lines": ["shop short 5"]}}}, "/gateway/apiKeys/lines/0"),
    "a slow scrape": ({"monitoring": {"interval": "30s"}}, "/monitoring/interval"),
    "an unknown step": ({"training": {"daily": {"steps": ["retrain"]}}}, "/training/daily/steps/0"),
    "a schedule that is none": ({"training": {"full": {"schedule": "weekly"}}}, "/training/full/schedule"),
    "an argument without dashes": ({"triton": {"extraArgs": ["log-verbose=1"]}}, "/triton/extraArgs/0"),
    "a secret as a text": ({"triton": {"pod": {"secretEnv": [{"name": "A", "value": "b"}]}}}, "/triton/pod/secretEnv/0"),
    "a name with capitals": ({"fullnameOverride": "Shop"}, "/fullnameOverride"),
    "a port that is none": ({"networkPolicy": {"store": {"ports": [0]}}}, "/networkPolicy/store/ports/0"),
    "a toleration that is none": (
        {"gateway": {"pod": {"tolerations": [{"key": "a", "operator": "Equals"}]}}},
        "/gateway/pod/tolerations/0/operator",
    ),
}

# What only the templates can refuse.
CONTRADICTING = {
    "no releases": ({"releases": {"url": ""}}, "releases.url is empty"),
    "a url beside a claim": ({"releases": {"source": "claim", "claim": {"create": True}}}, "releases.url is 's3://shop/saker'"),
    "a claim of nobody": ({"releases": {"source": "claim", "url": ""}}, "releases.claim"),
    "two claims": (
        {"releases": {"source": "claim", "url": "", "claim": {"create": True, "existing": "a"}}},
        "releases.claim",
    ),
    "an image without name": ({"kubeVersion": "1.33", "releases": {"source": "image", "url": ""}}, "releases.image.reference"),
    "an old cluster": ({"kubeVersion": "1.27"}, "1.27 is older than 1.28"),
    "no store": ({"store": {"existingSecret": ""}}, "store: 0 of"),
    "two stores": ({"valkey": {"enabled": True}}, "store: 2 of"),
    "half of the credentials": ({"objectStore": {"accessKeyId": "a"}}, "accessKeyId and secretAccessKey"),
    "credentials twice": (
        {"objectStore": {"accessKeyId": "a", "secretAccessKey": "b", "existingSecret": "c"}},
        "objectStore: give existingSecret or",
    ),
    "an endpoint without TLS": (
        {"objectStore": {"endpoint": "http://objects"}, "networkPolicy": {"objectStore": {"ports": [80]}}},
        "objectStore.allowHttp",
    ),
    "an endpoint that the policy blocks": (
        {"objectStore": {"endpoint": "https://objects:9000/s3"}},
        "networkPolicy.objectStore.ports lacks 9000",
    ),
    "a store that the policy blocks": (
        {"store": {"existingSecret": "", "url": "redis://u:p@store:6380"}},
        "networkPolicy.store.ports lacks 6380",
    ),
    "fewest above most": (
        {"autoscaling": {"kind": "hpa", "metric": "cpu", "minReplicas": 9}},
        "autoscaling: minReplicas 9 is above maxReplicas 6",
    ),
    "fewest gateways above most": (
        {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 9}}},
        "gateway.autoscaling: minReplicas 9",
    ),
    "KEDA without Prometheus": ({"autoscaling": {"kind": "keda"}}, "autoscaling.keda.prometheusAddress"),
    "an HPA without its series": ({"autoscaling": {"kind": "hpa"}}, "set monitoring.rules"),
    "a fallback that KEDA has not": (
        {"autoscaling": {"kind": "keda", "metric": "queue", "keda": {"prometheusAddress": "http://p", "fallbackReplicas": 2}}},
        "autoscaling.keda.fallbackReplicas",
    ),
    "a fallback above most": (
        {"autoscaling": {"kind": "keda", "keda": {"prometheusAddress": "http://p", "fallbackReplicas": 20}}},
        "fallbackReplicas 20 is above",
    ),
    "a budget of one pod": (
        {"triton": {"replicas": 1, "podDisruptionBudget": {"mode": "always"}}},
        "triton.podDisruptionBudget.mode",
    ),
    "a budget of one gateway": (
        {"gateway": {"replicas": 1, "podDisruptionBudget": {"mode": "always"}}},
        "gateway.podDisruptionBudget.mode",
    ),
    "keys twice": (
        {"gateway": {"apiKeys": {"existingSecret": "a", "lines": ["shop 0123456789abcdef 5"]}}},
        "gateway.apiKeys",
    ),
    "a route to nowhere": ({"gateway": {"httpRoute": {"enabled": True}}}, "gateway.httpRoute.parentRefs"),
    "an ingress for nobody": ({"gateway": {"ingress": {"enabled": True}}}, "gateway.ingress.hosts"),
    "a host that the gateway refuses": (
        {"gateway": {"hosts": ["a.shop"], "ingress": {"enabled": True, "hosts": ["b.shop"]}}},
        "gateway.hosts lacks 'b.shop'",
    ),
    "no training": (
        {"training": {"enabled": True, "full": {"enabled": False}, "daily": {"enabled": False}}},
        "neither training.full nor training.daily",
    ),
    "two definitions": (
        {"training": {"enabled": True, "pipeline": {"text": "a", "existingConfigMap": "b"}}},
        "training.pipeline",
    ),
}


def refusal(values, **where):
    with pytest.raises(chart.helm_python.HelmError) as caught:
        chart.render_anew(values, **where)
    return str(caught.value)


def test_the_least_is_accepted():
    chart.render(chart.LEAST)


def test_there_are_enough():
    assert len(WRONG) + len(CONTRADICTING) >= 20


@pytest.mark.parametrize("what", WRONG)
def test_wrong_values_are_refused(what):
    change, path = WRONG[what]
    error = refusal(chart.merged(chart.LEAST, change))
    assert path in error, error


@pytest.mark.parametrize("what", CONTRADICTING)
def test_contradictions_are_refused(what):
    change, words = CONTRADICTING[what]
    error = refusal(chart.merged(chart.LEAST, change))
    assert words in error, error
    assert error.count("\n- ") == 1, f"more than what is wrong is refused: {error}"


def test_all_contradictions_are_named_at_once():
    error = refusal({"objectStore": {"accessKeyId": "a"}})
    assert error.count("\n- ") == 3, error


def test_ports_of_usual_addresses_pass():
    for change in (
        {"objectStore": {"endpoint": "https://objects"}},
        {"objectStore": {"endpoint": "https://objects:443/"}},
        {"store": {"existingSecret": "", "url": "rediss://u:p@store"}},
        {"store": {"existingSecret": "", "url": "redis://store:6380/"}, "networkPolicy": {"enabled": False}},
    ):
        chart.render_anew(chart.merged(chart.LEAST, change))


def test_images_of_releases_need_a_new_cluster_and_no_training():
    assert "1.32 does not mount images" in refusal(chart.merged(IMAGE, {"kubeVersion": "1.32"}))
    training = chart.merged(IMAGE, {"kubeVersion": "1.33", "training": {"enabled": True}})
    assert "trainings cannot publish" in refusal(training)
    chart.render(chart.merged(IMAGE, {"kubeVersion": "1.33"}))


def test_a_name_that_no_service_takes_is_refused():
    assert "begins with a letter" in refusal(chart.LEAST, name="7-saker")


def resolved(node):
    while "$ref" in node:
        node = SCHEMA["$defs"][node["$ref"].removeprefix("#/$defs/")]
    return node


def folders(node, path=()):
    """(path, schema) of every map with fixed keys, lists included."""
    node = resolved(node)
    if "properties" in node:
        yield path, node
        for key, child in node["properties"].items():
            yield from folders(child, (*path, key))
    if "items" in node:
        yield from folders(node["items"], (*path, 0))


def test_no_map_takes_unknown_keys():
    """Every map of the schema has fixed keys, or says of what type its values are. Kubernetes' affinity is its own."""
    own = {("global",), ("nodeAffinity",), ("podAffinity",), ("podAntiAffinity",)}

    def walk(node, path):
        if isinstance(node, dict):
            if node.get("type") == "object" and path[-1:] not in own:
                extra = node.get("additionalProperties")
                assert extra is False or isinstance(extra, dict), f"{path} takes any key"
            for key, child in node.items():
                walk(child, (*path, key))
        elif isinstance(node, list):
            for child in node:
                walk(child, path)

    walk({key: value for key, value in SCHEMA.items() if key != "properties"}, ())
    walk(SCHEMA["properties"], ())


@pytest.mark.parametrize("path", [path for path, _ in folders(SCHEMA) if 0 not in path])
def test_an_unknown_key_is_refused_everywhere(path):
    change = {"zzz": 1}
    for key in reversed(path):
        change = {key: change}
    assert "zzz" in refusal(chart.merged(chart.LEAST, change))


def test_every_value_is_described():
    for path, node in folders(SCHEMA):
        if 0 in path or path[-1:] == ("affinity",):
            continue
        for key, child in node["properties"].items():
            assert child.get("description") or resolved(child).get("description"), (*path, key)


def test_every_value_has_a_default():
    for path, node in folders(SCHEMA):
        if 0 in path or "pod" in path:
            continue
        values = DEFAULTS
        for key in path:
            values = values[key]
        assert list(values) == [key for key in node["properties"] if key != "global"], path


def test_every_value_is_read():
    """Each leaf changes what is rendered: no value without a reader."""
    text = "".join(path.read_text() for path in (chart.FOLDER / "templates").rglob("*.*"))
    for path, node in folders(SCHEMA):
        if 0 in path or path[-1:] == ("affinity",):
            continue
        for key, child in node["properties"].items():
            if key in ("global", "affinity") or "properties" in resolved(child):
                continue
            assert f".{key}" in text or f'"{key}"' in text, (*path, key)


def test_the_readme_is_written_anew():
    script = chart.ROOT / "scripts" / "chart-readme"
    ran = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
