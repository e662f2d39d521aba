"""What must hold for the objects of every set of values."""

import base64
import json
import re

import pytest

import chart

SETS = chart.value_sets()
LONG = "a-release-with-a-name-of-fifty-three-letters-as-helm-"[:52] + "s"
EVERY = pytest.mark.parametrize("name", SETS)
# Ports of Triton, of the operators and of metrics.
INTERNAL = {8000, 8001, 8002, 8003, 8004, 8081}


def objects_of(values, **where):
    return chart.render(SETS[values], **where)


def key(thing):
    return thing["kind"], thing["metadata"]["name"]


def matches(selector, labels):
    assert "matchExpressions" not in selector
    return selector["matchLabels"].items() <= labels.items()


def ports_of(template):
    found = {}
    for _, container in chart.containers(template):
        for port in container.get("ports", []):
            assert port["name"] not in found, f"two ports are named {port['name']}"
            found[port["name"]] = port["containerPort"]
    return found


def argument(container, name):
    """The value of --name VALUE or --name=VALUE."""
    arguments = container["args"]
    for place, text in enumerate(arguments):
        if text == f"--{name}":
            return arguments[place + 1]
        if text.startswith(f"--{name}="):
            return text.split("=", 1)[1]
    raise AssertionError(f"{container['name']} has no --{name}")


@EVERY
def test_probes(name):
    for workload, template in chart.pods(objects_of(name)):
        for is_init, container in chart.containers(template):
            probes = {probe for probe in container if probe.endswith("Probe")}
            if is_init or workload["kind"] in ("CronJob", "Pod"):
                assert not probes
                continue
            wanted = {"startupProbe", "livenessProbe", "readinessProbe"}
            # The pod serves whether or not the follower reaches the object store.
            wanted -= {"readinessProbe"} if container["name"] == "follow" else set()
            assert probes == wanted, f"{key(workload)} {container['name']}"
            named = {port["name"] for port in container["ports"]}
            for probe in probes:
                check = container[probe].get("httpGet") or container[probe].get("tcpSocket")
                assert check is None or check["port"] in named
                # False during a promotion.
                assert not (container["name"] == "triton" and check["path"] == "/v2/health/ready")


@EVERY
def test_resources(name):
    for workload, template in chart.pods(objects_of(name)):
        for _, container in chart.containers(template):
            resources = container["resources"]
            assert resources["requests"]["cpu"] and "cpu" not in resources["limits"]
            memory = resources["requests"]["memory"]
            assert memory == resources["limits"]["memory"]
            assert int(memory.removesuffix("Mi")) >= 32, f"{key(workload)} {container['name']}"


@EVERY
def test_security(name):
    for workload, template in chart.pods(objects_of(name)):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["securityContext"].get("runAsUser", 10001) != 0
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert not any("hostPath" in volume for volume in spec.get("volumes", []))
        for _, container in chart.containers(template):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, f"{key(workload)} {container['name']}"
            assert not any("hostPort" in port for port in container.get("ports", []))


@EVERY
def test_a_catalogue_can_be_written(name):
    """The root is read-only: what gateway and updater fetch of a release goes into a volume."""
    for _, template in chart.pods(objects_of(name)):
        writable = {volume["name"] for volume in template["spec"].get("volumes", []) if {"emptyDir", "ephemeral"} & volume.keys()}
        writable |= {"state"}  # of a StatefulSet or a training
        for _, container in chart.containers(template):
            if container["command"][0] in ("saker-gateway", "saker-updater"):
                [state] = [variable["value"] for variable in container["env"] if variable["name"] == "SAKER_STATE"]
                mounts = [m["mountPath"] for m in container["volumeMounts"] if m["name"] in writable and not m.get("readOnly")]
                assert any(state == mount or state.startswith(f"{mount}/") for mount in mounts), f"{state}: {mounts}"


@EVERY
def test_images_are_pinned(name):
    for _, template in chart.pods(objects_of(name)):
        for _, container in chart.containers(template):
            tag = re.search(r":([^/:]+)$", container["image"])
            assert tag and tag[1] != "latest", container["image"]


def test_openshift_chooses_the_ids():
    for _, template in chart.pods(objects_of("openshift")):
        assert template["spec"]["securityContext"].keys() == {"runAsNonRoot", "seccompProfile"}


@EVERY
def test_volumes_exist_and_are_used(name):
    for workload, template in chart.pods(objects_of(name)):
        claimed = [each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates", [])]
        volumes = [volume["name"] for volume in template["spec"].get("volumes", [])] + claimed
        assert len(set(volumes)) == len(volumes)
        mounted = set()
        for _, container in chart.containers(template):
            mounts = container.get("volumeMounts", [])
            assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
            mounted |= {mount["name"] for mount in mounts}
        assert mounted == set(volumes), key(workload)


@EVERY
def test_references_exist(name):
    """Secrets, ConfigMaps, claims and accounts are rendered, or named by the values."""
    objects = objects_of(name)
    named = json.dumps(SETS[name])
    made = {key(thing): thing for _, thing in objects}

    def look(kind, wanted, field=None):
        thing = made.get((kind, wanted))
        if thing is None:
            assert f'"{wanted}"' in named, f"{kind} {wanted} is neither rendered nor named by the values"
        elif field:
            assert field in thing["data"], f"{kind} {wanted} lacks {field}"

    for _, template in chart.pods(objects):
        spec = template["spec"]
        if "serviceAccountName" in spec and SETS[name].get("serviceAccounts", {}).get("create", True):
            look("ServiceAccount", spec["serviceAccountName"])
        for volume in spec.get("volumes", []):
            if "secret" in volume:
                look("Secret", volume["secret"]["secretName"])
            if "configMap" in volume:
                look("ConfigMap", volume["configMap"]["name"])
            if "persistentVolumeClaim" in volume:
                look("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
        for _, container in chart.containers(template):
            names = [variable["name"] for variable in container.get("env", [])]
            assert len(set(names)) == len(names), f"{container['name']} has a variable twice"
            for variable in container.get("env", []):
                secret = variable.get("valueFrom", {}).get("secretKeyRef")
                if secret:
                    look("Secret", secret["name"], secret["key"])
            for used in re.findall(r"\$\((\w+)\)", json.dumps([container.get("args"), container.get("command")])):
                assert used in names, f"{container['name']} uses $({used}), which it does not have"


def test_secrets_are_in_secrets_alone():
    values = SETS["external"]
    secrets = [
        "an-inline-password",
        "an inline secret: for trials #1",
        "6f2c0b9a1d3e4f50a7b8",
        "0a8d5c1f7e2b4c6d9f10",
    ]
    objects = chart.render(values)
    held = ""
    for _, thing in objects:
        if thing["kind"] == "Secret":
            held += "".join(base64.b64decode(text).decode() for text in thing["data"].values())
            continue
        text = json.dumps(thing)
        for secret in secrets:
            assert secret not in text, f"{key(thing)} holds {secret}"
            assert base64.b64encode(secret.encode()).decode() not in text
    for secret in secrets:
        assert secret in held
        assert secret not in chart.notes(values)


@EVERY
def test_no_secret_is_an_argument_or_a_plain_variable(name):
    for workload, template in chart.pods(objects_of(name)):
        for _, container in chart.containers(template):
            for variable in container.get("env", []):
                if re.search(r"SECRET|PASSWORD|KEY(?!S$)|REDIS_URL", variable["name"]):
                    assert "secretKeyRef" in variable.get("valueFrom", {}), f"{key(workload)} {variable['name']}"
            secret = {v["name"] for v in container.get("env", []) if "secretKeyRef" in v.get("valueFrom", {})}
            # Triton takes the key of its control API as an argument alone.
            secret -= {"SAKER_CONTROL_KEY"} if container["name"] == "triton" else set()
            for text in container.get("args", []) + container.get("command", []):
                assert not re.search(r"rediss?://|://[^/ ]*@", text), text
                assert not secret & set(re.findall(r"\$\(?(\w+)", text)), text


def test_the_generated_password_is_in_one_place():
    objects = chart.render(SETS["claim"])
    secrets = {thing["metadata"]["name"]: thing["data"] for thing in chart.of_kind(objects, "Secret")}
    valkey = {field: base64.b64decode(text).decode() for field, text in secrets["shop-saker-valkey"].items()}
    password = valkey["password"]
    assert len(password) == 32
    assert valkey["url"] == f"redis://:{password}@shop-saker-valkey:6379"
    assert f"requirepass {password}\n" in valkey["valkey.conf"]
    for _, thing in objects:
        assert thing["kind"] == "Secret" or password not in json.dumps(thing)


@EVERY
def test_nothing_internal_is_exposed(name):
    objects = objects_of(name)
    services = {thing["metadata"]["name"]: thing for thing in chart.of_kind(objects, "Service")}
    templates = {chart.component(template): template for _, template in chart.pods(objects)}
    open_services = {each for each, thing in services.items() if thing["spec"].get("type", "ClusterIP") != "ClusterIP"}
    for thing in chart.of_kind(objects, "Ingress"):
        for rule in thing["spec"]["rules"]:
            open_services |= {path["backend"]["service"]["name"] for path in rule["http"]["paths"]}
    for thing in chart.of_kind(objects, "HTTPRoute"):
        for rule in thing["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                open_services.add(backend["name"])
                assert backend["port"] in [port["port"] for port in services[backend["name"]]["spec"]["ports"]]
    for each in open_services:
        service = services[each]
        assert chart.component(service) == "gateway"
        for port in service["spec"]["ports"]:
            number = ports_of(templates["gateway"])[port["targetPort"]]
            assert number not in INTERNAL


def test_external_is_exposed_at_all():
    kinds = {thing["kind"] for _, thing in objects_of("external")}
    assert {"Ingress", "HTTPRoute"} <= kinds
    types = {thing["spec"].get("type") for thing in chart.of_kind(objects_of("external"), "Service")}
    assert "LoadBalancer" in types


@EVERY
def test_selectors(name):
    objects = objects_of(name)
    workloads = [(w, t) for w, t in chart.pods(objects) if w["kind"] in ("Deployment", "StatefulSet")]
    everyone = chart.pods(objects)
    for workload, template in workloads:
        selector = workload["spec"]["selector"]
        chosen = [key(w) for w, t in everyone if matches(selector, t["metadata"]["labels"])]
        assert chosen == [key(workload)]
    for thing in chart.of_kind(objects, "Service", "PodDisruptionBudget", "PodMonitor", "NetworkPolicy"):
        spec = thing["spec"]
        if thing["kind"] == "Service":
            selector = {"matchLabels": spec["selector"]}
        else:
            selector = spec["podSelector"] if thing["kind"] == "NetworkPolicy" else spec["selector"]
        chosen = [t for _, t in everyone if matches(selector, t["metadata"]["labels"])]
        if thing["metadata"]["name"].endswith("-default"):
            assert len(chosen) == len(everyone), "the policy that denies must select every pod"
            continue
        assert {chart.component(t) for t in chosen} == {chart.component(thing)}, key(thing)
        ports = ports_of(chosen[0])
        for port in spec.get("ports", []):
            assert port["targetPort"] in ports, key(thing)
        for endpoint in spec.get("podMetricsEndpoints", []):
            assert endpoint["port"] in ports, key(thing)


@EVERY
def test_policies_name_ports_that_exist(name):
    objects = objects_of(name)
    templates = {chart.component(t): t for _, t in chart.pods(objects)}
    policies = chart.of_kind(objects, "NetworkPolicy")
    assert bool(policies) == (name != "small")
    for policy in policies:
        owner = templates.get(chart.component(policy))
        for rule in policy["spec"].get("ingress", []):
            for port in rule["ports"]:
                assert port["port"] in ports_of(owner).values(), key(policy)
            # Only the gateway's port for clients is open to everybody.
            assert "from" in rule or [p["port"] for p in rule["ports"]] == [8080], key(policy)


@EVERY
def test_only_the_gateway_reaches_triton(name):
    for policy in chart.of_kind(objects_of(name), "NetworkPolicy"):
        if chart.component(policy) != "triton":
            continue
        for rule in policy["spec"]["ingress"]:
            numbers = {port["port"] for port in rule["ports"]}
            if numbers & {8000, 8001}:
                [peer] = rule["from"]
                assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
            else:
                assert numbers <= {8002, 8004} and "namespaceSelector" in rule["from"][0]


@EVERY
def test_replicas_and_autoscalers(name):
    objects = objects_of(name)
    deployments = {thing["metadata"]["name"]: thing for thing in chart.of_kind(objects, "Deployment")}
    scaled = {}
    for thing in chart.of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        spec = thing["spec"]
        target = spec["scaleTargetRef"]
        assert target["kind"] == "Deployment" and target["name"] in deployments
        assert target["name"] not in scaled, "two autoscalers of one Deployment"
        fewest = spec.get("minReplicas", spec.get("minReplicaCount"))
        assert 1 <= fewest <= spec.get("maxReplicas", spec.get("maxReplicaCount"))
        scaled[target["name"]] = fewest
    for each, thing in deployments.items():
        assert ("replicas" in thing["spec"]) != (each in scaled), each
    budgets = {thing["metadata"]["name"] for thing in chart.of_kind(objects, "PodDisruptionBudget")}
    for each, thing in deployments.items():
        # One replica and a budget: every drain of its node hangs.
        assert (each in budgets) == (scaled.get(each, thing["spec"].get("replicas")) > 1)


def test_targets_are_plain_numbers():
    """`200m` in an AverageValue is 0.2."""
    wanted = {"hpa-concurrency": "1.4", "hpa-queue": "5"}
    for name, target in wanted.items():
        [scaler] = [t for t in chart.of_kind(objects_of(name), "HorizontalPodAutoscaler")]
        first, guard = scaler["spec"]["metrics"]
        assert first["pods"]["target"] == {"type": "AverageValue", "averageValue": target}
        assert guard["pods"] == {
            "metric": {"name": "saker_pending"},
            "target": {"type": "AverageValue", "averageValue": "8"},
        }
    [scaler] = chart.of_kind(objects_of("hpa-cpu"), "HorizontalPodAutoscaler")
    [metric] = scaler["spec"]["metrics"]
    assert metric["containerResource"]["target"] == {"type": "Utilization", "averageUtilization": 70}
    assert metric["containerResource"]["container"] == "triton"


def test_keda_divides_once():
    """The sum goes with AverageValue, the mean with Value."""
    for metric, kind in (("concurrency", "AverageValue"), ("queue", "Value")):
        [scaler] = chart.of_kind(objects_of(f"keda-{metric}"), "ScaledObject")
        first, guard = scaler["spec"]["triggers"]
        assert first["metricType"] == kind and guard["metricType"] == "AverageValue"
        assert ("clamp_min(sum(" in first["metadata"]["query"]) == (kind == "Value")
        assert "fallback" not in scaler["spec"]
    [scaler] = chart.of_kind(objects_of("keda-fallback"), "ScaledObject")
    assert scaler["spec"]["fallback"]["replicas"] == 4
    assert [trigger["metadata"]["threshold"] for trigger in scaler["spec"]["triggers"]] == ["1.5"]


@EVERY
def test_grace_periods_add_up(name):
    for workload, template in chart.pods(objects_of(name)):
        grace = template["spec"].get("terminationGracePeriodSeconds")
        main = [container for is_init, container in chart.containers(template) if not is_init][0]
        if main["name"] == "triton":
            stop = main.get("lifecycle", {}).get("preStop", {})
            if "sleep" in stop:
                wait = stop["sleep"]["seconds"]
            else:
                wait = int(stop["exec"]["command"][1]) if stop else 0
            assert grace >= wait + int(argument(main, "exit-timeout-secs")) + 5
        elif main["name"] == "gateway":
            # It finishes what is under way for ten seconds after the drain.
            assert grace >= int(argument(main, "drain")) + 10 + 5
        elif main["name"] == "updater":
            assert grace >= int(argument(main, "drain")) + 5
        else:
            assert workload["kind"] in ("CronJob", "Pod", "StatefulSet")


def test_prestop_is_what_the_version_knows():
    for version, action in (("1.28", "exec"), ("1.29", "exec"), ("1.30", "sleep"), ("v1.37.1", "sleep")):
        objects = chart.render(chart.LEAST, version=version)
        [triton] = [t for w, t in chart.pods(objects) if chart.component(w) == "triton"]
        assert list(triton["spec"]["containers"][0]["lifecycle"]["preStop"]) == [action]


def test_memory_holds_two_releases_and_the_disk_three():
    for name in ("default", "small", "image"):
        size = SETS[name]["releases"].get("sizeMi", 512)
        [template] = [t for w, t in chart.pods(objects_of(name)) if chart.component(w) == "triton"]
        assert template["spec"]["containers"][0]["resources"]["limits"]["memory"] == f"{2 * size + 200}Mi"
        [models] = [v for v in template["spec"]["volumes"] if v["name"] == "models"]
        assert models["emptyDir"]["sizeLimit"] == f"{3 * size}Mi"


def test_gpu():
    [template] = [t for w, t in chart.pods(objects_of("gpu")) if chart.component(w) == "triton"]
    spec = template["spec"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    assert spec["runtimeClassName"] == "nvidia"
    assert template["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
    for name in SETS.keys() - {"gpu", "training"}:
        for _, thing in objects_of(name):
            assert thing["kind"] == "NetworkPolicy" or "nvidia.com/gpu" not in json.dumps(thing)
    jobs = chart.of_kind(objects_of("training"), "CronJob")
    for job in jobs:
        for _, container in chart.containers(chart.pod_template(job)):
            learns = container["name"] in ("train", "finetune")
            assert ("nvidia.com/gpu" in container["resources"]["limits"]) == learns
            assert ("cuda" in container["args"]) == learns


def test_an_image_of_releases_is_not_followed():
    [template] = [t for w, t in chart.pods(objects_of("image")) if chart.component(w) == "triton"]
    assert [c["name"] for _, c in chart.containers(template)] == ["fetch", "triton"]
    assert [v["image"]["reference"] for v in template["spec"]["volumes"] if "image" in v]
    [other] = [t for w, t in chart.pods(objects_of("default")) if chart.component(w) == "triton"]
    assert [c["name"] for _, c in chart.containers(other)] == ["fetch", "triton", "follow"]


def test_steps_of_a_training_run_in_order():
    jobs = {job["metadata"]["name"]: job for job in chart.of_kind(objects_of("claim"), "CronJob")}
    steps = [
        [container["args"] for _, container in chart.containers(chart.pod_template(job))]
        for job in (jobs["shop-saker-training-full"], jobs["shop-saker-training-daily"])
    ]
    state = ["retail", "--state", "/state"]
    gate = ["evaluate", *state, "--against", "current"]
    publish = ["publish", *state, "--to", "file:///releases"]
    promote = ["promote", *state, "--to", "file:///releases", "--wait", "10m"]
    assert steps[0] == [
        *(["prepare", *state], ["train", *state], ["index", *state], ["evaluate", *state], gate),
        *(["assemble", *state], publish, ["materialize", *state], promote),
    ]
    assert steps[1] == [
        *(["finetune", *state], ["index", *state], ["evaluate", *state], gate),
        *(["assemble", *state], publish, promote),
    ]
    for job in jobs.values():
        spec = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        assert len(spec["containers"]) == 1 and spec["restartPolicy"] == "Never"
        assert job["spec"]["concurrencyPolicy"] == "Forbid"


def test_the_gateway_answers_while_triton_is_down():
    for name, path in (("default", "/health/live"), ("small", "/health/ready")):
        [template] = [t for w, t in chart.pods(objects_of(name)) if chart.component(w) == "gateway"]
        assert template["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"] == path


def test_the_test_reaches_a_gateway_with_names():
    """A gateway with `hosts`, or one that answers without keys, refuses other names: the Service's are among them."""
    for name in ("external", "example-kind"):
        objects = objects_of(name)
        [gateway] = [t for w, t in chart.pods(objects) if chart.component(w) == "gateway"]
        variables = {v["name"]: v.get("value") for v in gateway["spec"]["containers"][0]["env"]}
        [test] = [t for w, t in chart.pods(objects) if w["kind"] == "Pod"]
        url = test["spec"]["containers"][0]["env"][0]["value"]
        host = url.split("/")[2].split(":")[0]
        assert host in variables["SAKER_HOSTS"].split(",")
        if name == "external":
            assert "recommend.shop.example" in variables["SAKER_HOSTS"].split(",")
            assert variables["SAKER_API_KEYS"] == "/etc/saker/api-keys/api-keys"


@EVERY
def test_what_follows_releases_has_a_place_for_them(name):
    """Gateway and updater write a release's catalogue below SAKER_STATE, and the root is read-only."""
    for workload, template in chart.pods(objects_of(name)):
        if chart.component(workload) not in ("gateway", "updater"):
            continue
        [(_, container)] = chart.containers(template)
        [state] = [v["value"] for v in container["env"] if v["name"] == "SAKER_STATE"]
        writable = [m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")]
        assert any(state == place or state.startswith(place + "/") for place in writable)


@EVERY
@pytest.mark.parametrize("release", [LONG, *(pytest.param(each, marks=pytest.mark.slow) for each in ("saker", "s", "shop.eu"))])
def test_names_fit(name, release):
    assert len(LONG) == 53
    objects = objects_of(name, name=release)
    assert len({key(thing) for _, thing in objects}) == len(objects), "two objects have one name"
    for _, thing in objects:
        each = thing["metadata"]["name"]
        # A CronJob adds 11 letters to its jobs, a StatefulSet the same to a label.
        most = 52 if thing["kind"] in ("CronJob", "StatefulSet") else 63
        assert len(each) <= most and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", each), each
        for text in (thing["metadata"].get("labels") or {}).values():
            assert len(text) <= 63 and re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", text)


@pytest.mark.slow
@EVERY
def test_two_releases_in_one_namespace(name):
    if "fullnameOverride" in SETS[name] or name.startswith("example-eks"):
        pytest.skip("the values give the names")
    for one, other in (("shop", "store"), (LONG[:-1] + "a", LONG[:-1] + "b")):
        first, second = objects_of(name, name=one), objects_of(name, name=other)
        named = {key(thing) for _, thing in first}
        accounts = SETS[name].get("serviceAccounts", {})
        shared = {key(thing) for _, thing in second} & named
        assert not shared or accounts, shared
        for workload, _ in chart.pods(first):
            selector = workload["spec"].get("selector")
            for _, template in chart.pods(second):
                assert not selector or not matches(selector, template["metadata"]["labels"])


@pytest.mark.slow
@EVERY
def test_two_renders_are_equal(name):
    values = chart.merged(SETS[name], {"control": {"existingSecret": "shop-control"}})
    first, second = chart.render_anew(values), chart.render_anew(values)
    for (_, one), (_, other) in zip(first, second, strict=True):
        if key(one) == ("Secret", "shop-saker-valkey"):
            continue  # a password is drawn, which an upgrade keeps
        assert one == other, key(one)


def test_a_changed_secret_rolls_the_pods():
    def sums(values):
        found = {}
        for workload, template in chart.pods(chart.render(values)):
            if workload["kind"] in ("Deployment", "StatefulSet"):
                found[chart.component(workload)] = template["metadata"].get("annotations")
        return found

    values = SETS["external"]
    before = sums(values)
    after = sums(chart.merged(values, {"store": {"url": "rediss://saker:another@store.shop:6379"}}))
    for component in ("triton", "gateway", "updater"):
        assert before[component] != after[component]
    after = sums(chart.merged(values, {"gateway": {"apiKeys": {"lines": ["shop 0123456789abcdef0123 5"]}}}))
    assert before["gateway"] != after["gateway"] and before["triton"] == after["triton"]


def test_values_reach_the_pods():
    for workload, template in chart.pods(objects_of("pods")):
        if workload["kind"] == "Pod":
            continue
        spec = template["spec"]
        assert template["metadata"]["labels"]["team"] == "search"
        assert template["metadata"]["annotations"]["example.com/a"] == "b"
        assert spec["nodeSelector"] and spec["tolerations"] and "affinity" in spec and spec["priorityClassName"]
        main = spec["containers"][0]
        names = {variable["name"] for variable in main["env"]}
        assert {"SAKER_EXTRA", "SAKER_SEEN_URL"} <= names, key(workload)


def test_cloud_identities():
    values = chart.merged(
        chart.LEAST, {"serviceAccounts": {"triton": {"annotations": {"eks.amazonaws.com/role-arn": "arn:x"}}}}
    )
    accounts = {a["metadata"]["name"]: a for a in chart.of_kind(chart.render(values), "ServiceAccount")}
    assert set(accounts) == {"shop-saker-triton", "shop-saker-gateway", "shop-saker-updater"}
    assert accounts["shop-saker-triton"]["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn:x"}
    for _, thing in chart.render(values):
        assert "AWS_ACCESS_KEY_ID" not in json.dumps(thing)
    assert not chart.of_kind(objects_of("training"), "ServiceAccount")


def test_notes_warn():
    values = chart.merged(chart.LEAST, {"gateway": {"trustNetwork": True, "service": {"type": "LoadBalancer"}}})
    assert "WARNING" in chart.notes(values)
    assert "There are no API keys" in chart.notes(chart.LEAST)
    assert "WARNING" not in chart.notes(SETS["external"]) and "no API keys" not in chart.notes(SETS["external"])
    assert "create job --from=cronjob/shop-saker-training-full" in chart.notes(SETS["claim"])


def test_policies_of_eks_allow_only_what_is_needed():
    """Nobody but the training writes releases; nobody has a wildcard action or every bucket."""
    folder = chart.ROOT / "helm" / "eks" / "policies"
    for path in folder.glob("*.json"):
        for statement in json.loads(path.read_text())["Statement"]:
            for action in statement["Action"]:
                assert re.fullmatch(r"s3:[A-Z]\w+", action), path
            for resource in statement["Resource"]:
                assert resource.startswith("arn:aws:s3:::shop-"), path
                writes = {"s3:PutObject", "s3:DeleteObject"} & set(statement["Action"])
                if writes and resource.startswith("arn:aws:s3:::shop-releases"):
                    reports = resource == "arn:aws:s3:::shop-releases/saker/servers/*"
                    assert path.stem == "training" or (path.stem == "triton" and reports), path
    assert {path.stem for path in folder.glob("*.json")} == {"triton", "gateway", "updater", "training"}


def test_an_offline_store_in_s3_is_reached_without_releases_in_s3():
    values = chart.merged(SETS["claim"], {"objectStore": {"region": "eu-central-1", "existingSecret": "shop-objects"}})
    for workload, template in chart.pods(chart.render(values)):
        if chart.component(workload) in ("updater", "training"):
            for _, container in chart.containers(template):
                names = {variable["name"] for variable in container["env"]}
                assert {"AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= names


def test_only_who_needs_it_has_a_credential():
    """Triton itself reads its repository from a disk; nobody but Triton and its follower has the control key."""
    for name in ("external", "openshift"):
        for _, template in chart.pods(objects_of(name)):
            for _, container in chart.containers(template):
                names = {variable["name"] for variable in container.get("env", [])}
                assert ("SAKER_CONTROL_KEY" in names) == (container["name"] in ("triton", "follow"))
                if container["name"] in ("triton", "recommend"):
                    assert not any(each.startswith("AWS_") for each in names)
