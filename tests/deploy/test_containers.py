"""The image on Debian under the chart's own pods, as real containers: from a release in a store to a recommendation, and to the end.

`scripts/check-deploy` runs this; where Podman cannot run a container, one line says why. What Podman does not do as a kubelet does:
tests/deploy/containers.py.
"""

import json
import os
import pathlib
import shutil
import subprocess
import time

import pytest

import chart
import containers

pytestmark = pytest.mark.slow

PROGRAMS = os.environ.get("SAKER_PROGRAMS")
TAG = "test"
# Of this run, so that two of them do not meet.
NAME = f"shop{os.getpid()}"
VALKEY, TRITON, GATEWAY, UPDATER = (f"{NAME}-saker-{part}" for part in ("valkey", "triton", "gateway", "updater"))
WORKLOADS = {VALKEY: "StatefulSet", TRITON: "Deployment", GATEWAY: "Deployment", UPDATER: "StatefulSet"}
CONTAINERS = [(VALKEY, "valkey"), (TRITON, "triton"), (TRITON, "follow"), (GATEWAY, "gateway"), (UPDATER, "updater")]
USER = 42


@pytest.fixture(scope="module")
def podman():
    if not PROGRAMS:
        pytest.skip("SAKER_PROGRAMS is not set: no programs to put into an image")
    found, why = containers.usable()
    if not found:
        pytest.skip(f"NOT checked: containers. {why}")
    return found


@pytest.fixture(scope="module")
def images(podman, tmp_path_factory):
    """Our image, as scripts/build-images makes it on a local base, and one with Valkey and wget in place of public ones."""
    started = int(time.time())
    command = [chart.ROOT / "scripts" / "build-images", "serving", "--tag", TAG, "--programs", PROGRAMS, "--local-base"]
    if certificates := os.environ.get("PIP_CERT"):
        command += ["--certificates", certificates]
    subprocess.run([*command, "--", "--network", "host"], check=True, env={**podman.environment, "SAKER_CONTAINERS": "podman"})
    folder = tmp_path_factory.mktemp("stand-ins")
    shutil.copy(os.environ["SAKER_VALKEY"], folder / "valkey-server")
    install = "apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/*"
    (folder / "Containerfile").write_text(
        f"FROM docker.io/library/debian:bookworm-slim\nRUN {install}\nCOPY valkey-server /usr/local/bin/\n"
    )
    podman("build", "--pull=never", "--network", "host", "-t", f"localhost/saker-stand-ins:{TAG}", folder, timeout=600)
    yield
    # Otherwise each build of other programs would leave gigabytes.
    podman("image", "rm", "--force", *(f"localhost/saker-{name}:{TAG}" for name in ("serving", "built", "stand-ins")), check=False)
    containers.remove_images_since(podman, started)


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """A state folder with MovieLens, trained for one epoch, and a store of releases with it."""
    folder = tmp_path_factory.mktemp("releases")
    definition = (chart.ROOT / "examples" / "movielens" / "pipeline.toml").read_text()
    short = definition.replace("[training]\n", "[training.towers]\nepochs = 1\n\n[training.ranker]\nepochs = 1\n\n[training]\n")
    assert short != definition
    (folder / "pipeline.toml").write_text(short)
    for step in ("prepare", "train", "index"):
        saker(folder, step)
    # As in a training of the chart: an address with a login is not written into the release, which names the variable.
    saker(folder, "assemble", SAKER_REDIS_URL="redis://:a-password@valkey:6379")
    saker(folder, "publish", "--to", folder / "store")
    saker(folder, "promote", "--to", folder / "store")
    return folder


def saker(folder, *arguments, **environment):
    command = [pathlib.Path(PROGRAMS) / "saker", *arguments, "--state", folder / "state", "--pipeline", folder / "pipeline.toml"]
    ran = subprocess.run(command, cwd=chart.ROOT, capture_output=True, text=True, env={**os.environ, **environment})
    assert ran.returncode == 0, f"{arguments}: {ran.stdout}{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def cluster(podman, images, releases):
    values = chart.merged(
        chart.read(chart.ROOT / "helm" / "kind" / "values.yaml"),
        {
            "image": {"serving": {"repository": "localhost/saker-serving", "tag": TAG}, "pullPolicy": "Never"},
            "valkey": {"image": {"repository": "localhost/saker-stand-ins", "tag": TAG}},
            "helmTest": {"image": {"repository": "localhost/saker-stand-ins", "tag": TAG}},
            "training": {"enabled": False},
            # A machine that compiles beside the test may need longer than 150 ms.
            "gateway": {"deadlineMs": 2000},
            "releases": {"waitSeconds": 60, "pollSeconds": 1},
        },
    )
    made = containers.Cluster(podman, chart.render_anew(values, NAME, "default"), NAME)
    try:
        made.start()
        made.reserve([VALKEY, TRITON, GATEWAY, UPDATER])
        made.addresses[f"{TRITON}-headless"] = made.addresses[TRITON]
        made.play("StatefulSet", VALKEY)
        made.wait_ready("StatefulSet", VALKEY)
        url = made.secret(VALKEY, "url").replace(VALKEY, made.addresses[VALKEY])
        saker(releases, "materialize", SAKER_REDIS_URL=url)
        folder = made.volume(f"{NAME}-saker-releases")
        shutil.copytree(releases / "store", folder, dirs_exist_ok=True)
        subprocess.run(["chmod", "-R", "g=u", folder], check=True)
        made.play("Deployment", TRITON, [VALKEY])
        made.wait_ready("Deployment", TRITON)
        made.play("StatefulSet", UPDATER, [VALKEY])
        made.play("Deployment", GATEWAY, [VALKEY, TRITON, f"{TRITON}-headless"])
        made.wait_ready("StatefulSet", UPDATER)
        made.wait_ready("Deployment", GATEWAY)
        yield made
    finally:
        made.remove()


def recommendation(cluster, user=USER, k=10):
    status, body = containers.ask(cluster.addresses[GATEWAY], 8080, f"/recommendations?user_id={user}&k={k}")
    assert status == 200, body
    return json.loads(body)


def store(cluster):
    return cluster.volume(f"{NAME}-saker-releases")


def inference(*users):
    return {"inputs": [{"name": "user_id", "shape": [len(users)], "datatype": "INT32", "data": users}]}


def test_a_recommendation_of_the_release(cluster):
    due = time.monotonic() + 30
    while (answer := recommendation(cluster)).get("degraded") and time.monotonic() < due:
        time.sleep(0.2)
    assert answer["release"] in {path.stem for path in (store(cluster) / "releases").glob("movielens-*.json")}
    assert not answer.get("degraded") and len(answer["items"]) == 10


def test_the_charts_own_test(cluster):
    name = f"{NAME}-saker-test-recommend"
    cluster.addresses[name] = f"{cluster.prefix}.30"
    cluster.play("Pod", name, [GATEWAY])
    due = time.monotonic() + 60
    while (code := cluster.ended(name, "recommend")) is None and time.monotonic() < due:
        time.sleep(0.2)
    assert code == 0, cluster.podman_logs(name, "recommend")


def test_an_event_reaches_the_next_recommendation(cluster):
    first = recommendation(cluster)["items"][0]["id"]
    event = {"user_id": USER, "item_id": first, "type": "click"}
    status, body = containers.ask(cluster.addresses[GATEWAY], 8080, "/events", event)
    assert status == 202, body
    due = time.monotonic() + 10
    while first in [item["id"] for item in recommendation(cluster)["items"]]:
        assert time.monotonic() < due, "the item that was clicked is recommended still"
        time.sleep(0.1)


def test_the_follower_reports(cluster):
    """It follows, with the key to the control API that the Secret gives it and Triton."""
    reports = list((store(cluster) / "servers").glob("*.json"))
    assert [path.stem for path in reports] == [cluster.pods[TRITON]]
    status, _ = containers.ask(cluster.addresses[TRITON], 8004, "/metrics")
    assert status == 200
    refused, body = containers.ask(cluster.addresses[TRITON], 8000, "/v2/repository/index", {}, method="POST")
    assert refused == 403 or b"restricted" in body, body


@pytest.mark.parametrize("workload,name", CONTAINERS)
def test_restrictions(cluster, workload, name):
    """What the kernel says of the first process."""
    state = cluster.podman.inspect(cluster.container(workload, name))
    pid = state["State"]["Pid"]
    status = containers.status_of(pid)
    assert status["Uid"].split() == ["10001"] * 4 and status["Gid"].split() == ["0"] * 4
    assert {status[each] for each in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    template = chart.pod_template(cluster.objects[WORKLOADS[workload], workload])
    [container] = [each for _, each in chart.containers(template) if each["name"] == name]
    assert pathlib.Path(os.readlink(f"/proc/{pid}/exe")).name == container["command"][0], "a shell would not pass SIGTERM on"
    assert "ro" in containers.mounts(pid)["/"]
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    for place in ("/", "/opt", "/usr/local/bin", "/etc"):
        assert not can_write(cluster, workload, name, place), place
    for place in writable:
        assert can_write(cluster, workload, name, place), place
    limit = container["resources"]["limits"]["memory"]
    assert containers.memory_limit(pid) == int(limit.removesuffix("Mi")) << 20


def can_write(cluster, workload, name, folder):
    file = f"{folder.rstrip('/')}/written-by-a-test"
    command = f"touch {file} && rm {file}"
    return cluster.podman("exec", cluster.container(workload, name), "sh", "-c", command, check=False) == 0


def test_no_secret_where_everybody_reads(cluster):
    """Neither the store's password nor the control key is in the images, the store or the other pods' arguments."""
    password = cluster.secret(VALKEY, "password")
    assert subprocess.run(["grep", "-rqF", password, store(cluster)]).returncode == 1
    for workload, name in CONTAINERS:
        pid = cluster.podman.inspect(cluster.container(workload, name))["State"]["Pid"]
        assert password.encode() not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()


def test_the_gateway_ends_under_load(cluster):
    """SIGTERM while clients ask, and go on until no Service names the pod any more: each is answered, and the gateway ends with 0."""
    with containers.Load(cluster.addresses[GATEWAY], 8080, f"/recommendations?user_id={USER}") as load:
        time.sleep(2)
        before = load.answered
        ending = cluster.stop_beside("Deployment", GATEWAY, "gateway")
        time.sleep(3)
        ready, _ = containers.ask(cluster.addresses[GATEWAY], 8080, "/health/ready")
    code, seconds = ending.result()
    print(f"gateway: {load.answered} answered, {load.answered - before} of them after SIGTERM, {load.failures}, ended after {seconds:.1f} s")
    cluster.podman("start", cluster.container(GATEWAY, "gateway"))
    cluster.wait_ready("Deployment", GATEWAY)
    assert ready == 503 and code == 0 and seconds < cluster.grace("Deployment", GATEWAY)
    assert not load.failures and not load.refused and before > 100 and load.answered - before > 100
    assert all(json.loads(body)["release"] for body in load.bodies), "popular items while Triton serves"
    assert recommendation(cluster)["release"]


def test_the_updater_ends_under_load(cluster):
    """It ends with 0 while events come, and the next one applies what it left."""

    def metric(name):
        _, body = containers.ask(cluster.addresses[UPDATER], 8003, "/metrics")
        return next(float(line.split()[-1]) for line in body.decode().splitlines() if line.startswith(f"saker_updater_{name} "))

    event = {"user_id": 7, "item_id": 50, "type": "view"}
    with containers.Load(cluster.addresses[GATEWAY], 8080, "/events", event, clients=2, accepted=202) as load:
        time.sleep(1)
        before = metric("events_applied_total")
        code, seconds = cluster.stop("StatefulSet", UPDATER, "updater")
        time.sleep(0.5)
    cluster.podman("start", cluster.container(UPDATER, "updater"))
    cluster.wait_ready("StatefulSet", UPDATER)
    due = time.monotonic() + 60
    while metric("backlog") or not metric("events_applied_total"):
        assert time.monotonic() < due, "events are left in the stream"
        time.sleep(0.1)
    print(f"updater: {load.answered} events, {before:.0f} of them before SIGTERM, ended after {seconds:.1f} s")
    assert code == 0 and seconds < cluster.grace("StatefulSet", UPDATER)
    assert not load.failures and not load.refused and 0 < before < load.answered
    assert before + metric("events_applied_total") <= load.answered + 1, "an event was applied twice"
    assert metric("events_rejected_total") == 0


def test_triton_ends_under_load(cluster):
    """What Triton has accepted at SIGTERM is answered, and the gateway answers throughout: with popular items until Triton is back."""
    asked = f"/recommendations?user_id={USER}"
    infer = "/v2/models/ensemble_model/infer"
    with containers.Load(cluster.addresses[GATEWAY], 8080, asked, clients=2) as shop:
        # Requests that take a while, so that some are under way at SIGTERM. preStop has kept new ones away by then.
        with containers.Load(cluster.addresses[TRITON], 8000, infer, inference(*range(1, 65)), clients=6) as load:
            time.sleep(3)
            # All containers of a pod get it at once, but for Triton's preStop.
            follower, _ = cluster.stop("Deployment", TRITON, "follow")
            load.done.set()
            under_way = load.asked - load.answered
            ending = cluster.stop_beside("Deployment", TRITON, "triton")
        code, seconds = ending.result()
        for name in ("triton", "follow"):
            cluster.podman("start", cluster.container(TRITON, name))
        cluster.wait_ready("Deployment", TRITON)
        due = time.monotonic() + 30
        while recommendation(cluster).get("degraded"):
            assert time.monotonic() < due, "the gateway does not find Triton again"
            time.sleep(0.2)
    degraded = sum(json.loads(body)["degraded"] for body in shop.bodies)
    print(
        f"triton: {load.answered} answered, {under_way} of them under way at SIGTERM, {load.failures}, ended after {seconds:.1f} s; "
        f"gateway meanwhile: {shop.answered} answered, {degraded} of them popular items, {shop.failures}"
    )
    assert code == 0 and follower == 0 and seconds < cluster.grace("Deployment", TRITON)
    assert not load.failures and not load.refused and load.answered > under_way >= 4
    assert not shop.failures and not shop.refused and 0 < degraded < shop.answered
