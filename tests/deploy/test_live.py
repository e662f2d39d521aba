"""The recorded series, measured: a real Prometheus, by the chart's rules, beside Triton's statistics and perf_analyzer.

Windows and intervals are a quarter of the chart's, so that this takes minutes less; SAKER_LIVE_PACE=1 takes them as they are.
"""

import json
import os
import re
import subprocess
import threading
import time
import urllib.error

import pytest

import live
import test_commands
import test_metrics
import test_rules

pytestmark = pytest.mark.slow

PACE = int(os.environ.get("SAKER_LIVE_PACE", "4"))
# Requests of each ensemble that perf_analyzer keeps under way, and users of each request. Many, so that what happens outside of Triton, in
# the client and in gRPC, is a small part of a request's time on a busy machine.
CONCURRENCY, USERS = 16, 8
# Of the users that are asked for, those that nobody knows: a cold start each.
STRANGERS = 0.25
SERIES = ("saker:queue_ms:avg2m", "saker:concurrency:avg1m", "saker:pending:max1m")
WINDOW = {"saker:queue_ms:avg2m": 120 / PACE, "saker:concurrency:avg1m": 60 / PACE}
ENSEMBLES = ("ensemble_model", "ensemble_fused")
TOLERANCE = 0.1


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with live.shop(tmp_path_factory.mktemp("live"), PACE) as running:
        yield running


class Load:
    """perf_analyzer on both ensembles, and what Triton's statistics said each half second meanwhile."""

    def __init__(self, shop, seconds):
        stranger = round(1 / STRANGERS)
        users = [user if user % stranger else live.USERS + user for user in range(1, live.USERS + 1)]
        requests = [users[place : place + USERS] for place in range(0, len(users) - USERS, USERS)]
        data = shop.folder / "users.json"
        data.write_text(json.dumps({"data": [{"user_id": {"content": each, "shape": [USERS]}} for each in requests]}))
        self.snapshots = []
        ended = threading.Event()
        watcher = threading.Thread(target=self.watch, args=(shop, ended))
        watcher.start()
        clients = {name: shop.start(f"perf_analyzer_{name}", self.command(shop, name, data, seconds)) for name in ENSEMBLES}
        try:
            live.until("an end of perf_analyzer", 10 * seconds + 60, lambda: any(each.poll() is not None for each in clients.values()))
            # From here on there is less load.
            self.end = time.time()
            codes = {client.wait(10 * seconds + 60) for client in clients.values()}
        finally:
            ended.set()
            watcher.join()
        assert codes == {0}, [shop.log(f"perf_analyzer_{name}") for name in ENSEMBLES]
        self.clients = {name: shop.log(f"perf_analyzer_{name}") for name in ENSEMBLES}
        assert not any("Failed Request Count" in said for said in self.clients.values()), self.clients

    @staticmethod
    def command(shop, ensemble, data, seconds):
        # Three windows, whatever they measure.
        window = ["--measurement-mode=time_windows", f"-p{round(1000 * seconds / 3)}", "-s1000", "--max-trials=3"]
        inputs = ["--input-data", data, "--shape", f"user_id:{USERS}"]
        address = ["-i", "grpc", "-u", f"127.0.0.1:{shop.ports['grpc']}"]
        return [live.PERF_ANALYZER, "-m", ensemble, *inputs, *window, *address, f"--concurrency-range={CONCURRENCY}"]

    def watch(self, shop, ended):
        while not ended.wait(0.5):
            self.snapshots.append(shop.statistics())

    @property
    def begin(self):
        """When both ensembles were first asked."""
        first = self.snapshots[0][1]
        return next(at for at, each in self.snapshots if all(each[name][0] > first[name][0] for name in ENSEMBLES))

    def between(self, begin, end):
        """{model: (requests, their seconds, seconds in the queue)} of a time, between two looks linearly."""

        def at(moment):
            for (early, before), (late, after) in zip(self.snapshots, self.snapshots[1:]):
                if early <= moment <= late:
                    share = (moment - early) / (late - early)
                    return {m: tuple(a + share * (b - a) for a, b in zip(before[m], after[m])) for m in before}
            raise AssertionError(f"no look at {moment}")

        first, last = at(begin), at(end)
        return {m: (last[m][0] - first[m][0], (last[m][1] - first[m][1]) / 1e9, (last[m][2] - first[m][2]) / 1e9) for m in first}


@pytest.fixture(scope="module")
def idle_before(shop):
    """The series before anybody asks. Prometheus started after the requests by which the programs see that they are ready."""
    _, before = shop.statistics()
    found = {name: live.until(name, 60, lambda name=name: shop.ask(name)) for name in SERIES}
    _, after = shop.statistics()
    print({name: counts for name, counts in before.items() if name in ENSEMBLES})
    assert after == before, "somebody asks Triton"
    return found


@pytest.fixture(scope="module")
def load(shop, idle_before):
    # As long as the longest window, and then for some evaluations.
    return Load(shop, max(WINDOW.values()) + max(30 / PACE, 15))


def samples(shop, load, series):
    """[(end of the window, value)]: those whose window lies within the load."""
    [(labels, found)] = shop.ask(f"{series}[1h]")
    assert labels == {"__name__": series, "namespace": live.NAMESPACE, "pod": shop.pod}
    # The first second of the load is left out: the two clients start one after the other.
    inside = [(at, value) for at, value in found if load.begin + WINDOW[series] + 1 <= at <= load.end]
    assert len(inside) >= 2, f"{series}: {found}, load from {load.begin} to {load.end}"
    return inside


def test_nothing_is_zero(idle_before):
    for name, [(_, [(_, value)])] in idle_before.items():
        assert value == 0, name


def compare(shop, load, series, true):
    """The mean of a series over the load, and that of what the statistics say of the same windows. One window alone may miss a scrape."""
    pairs = []
    for at, value in samples(shop, load, series):
        counted = true(load.between(at - WINDOW[series], at))
        print(f"{series} {value:.3f}, by the statistics {counted:.3f}: {100 * (value / counted - 1):+.2f} %")
        pairs.append((value, counted))
    recorded, counted = (sum(each) / len(pairs) for each in zip(*pairs))
    print(f"{series}, mean of {len(pairs)}: {recorded:.3f}, by the statistics {counted:.3f}: {100 * (recorded / counted - 1):+.2f} %")
    assert recorded == pytest.approx(counted, rel=TOLERANCE)
    return recorded


def test_queue_time_is_that_of_the_statistics(shop, load):
    def wait(counted):
        waited = sum(queue for model, (_, _, queue) in counted.items() if model not in ENSEMBLES)
        return 1000 * waited / sum(counted[name][0] for name in ENSEMBLES)

    assert compare(shop, load, "saker:queue_ms:avg2m", wait) > 1, "there is no queue to measure"


def test_concurrency_is_that_of_statistics_and_client(shop, load):
    series = "saker:concurrency:avg1m"
    asked = CONCURRENCY * len(ENSEMBLES)
    recorded = compare(shop, load, series, lambda counted: sum(counted[name][1] for name in ENSEMBLES) / WINDOW[series])
    print(f"{series} beside perf_analyzer's {asked}: {100 * (recorded / asked - 1):+.2f} %")
    assert recorded == pytest.approx(asked, rel=TOLERANCE)
    # perf_analyzer's own measure by the same law: answers a second × their time.
    for name, said in load.clients.items():
        [(rate, latency)] = re.findall(r"throughput: ([\d.]+) infer/sec, latency (\d+) usec", said)
        of_client = float(rate) * int(latency) / 1e6
        print(f"perf_analyzer {name}: {rate} requests a second, {of_client:.2f} in flight")
        assert of_client == pytest.approx(CONCURRENCY, rel=TOLERANCE)


def test_pending_requests_are_fewer_than_those_in_flight(shop, load):
    [(_, found)] = shop.ask("saker:pending:max1m[1h]")
    inside = [value for at, value in found if load.begin + 60 / PACE <= at <= load.end]
    assert inside and all(0 < value <= CONCURRENCY * len(ENSEMBLES) for value in inside), found


def test_cold_starts_are_counted(shop, load):
    """The share of users that nobody knows: by the recorded series' query, and by the dashboard's panel, for each request."""
    window = f"{round(load.end - load.begin) - 1}s"
    recorded = next(rule["expr"] for group in shop.series for rule in group["rules"] if rule["record"] == "saker:cold_start:rate5m")
    [(_, [(_, absent)])] = shop.ask(over(recorded, window, load.end))
    asked = f'sum(rate(nv_inference_request_success{{pod="{shop.pod}", model=~"ensemble_.*"}}[{window}]))'
    [(_, [(_, requests)])] = shop.ask(over(asked, window, load.end))
    print(f"cold starts: {absent / requests / USERS:.4f} of the users")
    assert absent / requests / USERS == pytest.approx(STRANGERS, rel=TOLERANCE)
    [panel] = [query for title, query in test_rules.queries() if title == "Cold starts"]
    [(_, [(_, shown)])] = shop.ask(over(here(panel), window, load.end))
    assert shown == pytest.approx(absent / requests, rel=0.01)


def over(query, window, end):
    """A query over one window that ends at one moment."""
    return re.sub(r"\[[^\]]+\]", f"[{window}] @ {end:.3f}", query)


def here(query):
    """A query of the dashboard for this namespace and release."""
    return query.replace('namespace="default"', f'namespace="{live.NAMESPACE}"').replace('"saker-', f'"{live.RELEASE}-saker-')


@pytest.fixture(scope="module")
def visitors(shop, load):
    """Some requests to the gateway, one of them wrong, and events; then the pages that Prometheus reads: [(program, page)]."""
    gateway = f"http://127.0.0.1:{shop.ports['gateway']}"
    for user in (1, 2, 1_000_000):
        answer = json.loads(live.get(f"{gateway}/recommendations?user_id={user}"))
        assert answer["items"] and not answer["degraded"], answer
    with pytest.raises(urllib.error.HTTPError):
        live.get(f"{gateway}/recommendations?user_id=nobody")
    event = {"event_id": "a", "user_id": 1, "item_id": 1, "type": "click"}
    for _ in range(2):
        body = json.dumps(event).encode()
        live.get(f"{gateway}/events", {"content-type": "application/json"}, body)
    live.until("an applied event", 30, lambda: "saker_updater_events_applied_total 1\n" in shop.page("updater"))
    pages = {"Triton": "metrics", "follower": "follow", "gateway": "admin", "updater": "updater"}
    return [*((name, shop.page(page)) for name, page in pages.items()), ("gateway", another_gateway(shop))]


def another_gateway(shop):
    """The page of a gateway that asks for keys and has no Triton: its answers are degraded."""
    keys = shop.folder / "api-keys"
    keys.write_text("storefront  6f2c0b9a1d3e4f50a7b8  500\n")
    port = live.free_port()
    address = f"http://127.0.0.1:{port}"
    arguments = ["--listen", f"127.0.0.1:{port}", "--triton", f"127.0.0.1:{live.free_port()}", "--api-key-file", keys]
    shop.start("another gateway", [shop.programs / "saker-gateway", *arguments])
    live.until("another gateway", 60, lambda: live.get(f"{address}/health/live") is not None)
    answer = json.loads(live.get(f"{address}/recommendations?user_id=1", {"x-api-key": "6f2c0b9a1d3e4f50a7b8"}))
    assert answer["degraded"], answer
    return live.get(f"{address}/metrics")


def families(page):
    """{metric of ours: (type, names of labels)} of a page, as docs/metrics.md names them."""
    types = dict(re.findall(r"^# TYPE (saker_\w+) (\w+)$", page, re.MULTILINE))
    # The crate prometheus-client names a counter without its `_total`.
    types = {name if kind != "counter" or name.endswith("_total") else f"{name}_total": kind for name, kind in types.items()}
    found = {name: (kind, set()) for name, kind in types.items()}
    for name, labels in re.findall(r"^(saker_\w+)(?:\{(.*)\})? \S+$", page, re.MULTILINE):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        name = base if types.get(base) == "histogram" else name
        found[name][1].update(set(re.findall(r'(\w+)="', labels)) - {"le"})
    return found


def test_pages_are_as_documented(visitors):
    """Every metric of a real page stands in the table, of that program, with that type and those labels."""
    table = test_metrics.table(test_metrics.OURS)
    shown = {}
    for program, page in visitors:
        found = families(page)
        assert found, program
        for name, (kind, labels) in found.items():
            row = table[name]
            assert (row["of"], row["type"]) == (program, kind), name
            documented = set(re.findall(r"`(\w+)`", row["labels"])) | ({"model", "version"} if program == "Triton" else set())
            # A series with a label of its own comes with its first event.
            assert labels in (documented, set()), f"{name}: {labels}"
            shown[name] = labels == documented or shown.get(name, False)
    assert set(shown) == set(table)
    assert all(shown.values()), [name for name, found in shown.items() if not found]


def test_triton_has_the_documented_series(shop, visitors):
    pages = dict(visitors)
    for name, row in test_metrics.table(test_metrics.OTHERS).items():
        if name.startswith("nv_") and name != "nv_inference_request_failure":
            labels = set(re.findall(r"`(\w+)`", row["labels"]))
            assert any(labels <= set(found) for found, _ in shop.ask(f'{name}{{pod="{shop.pod}"}}')), name
            assert f"# TYPE {name} {row['type']}\n" in pages["Triton"], name


# What needs kube-state-metrics, a failure or something to wait for.
WITHOUT_DATA = {"Degraded answers", "Errors and replicas", "Releases"}


def test_panels_have_data(shop, visitors):
    """Each query of the dashboard finds something: of every panel but those that show only what goes wrong."""

    def empty():
        return {title for title, query in test_rules.queries() if not shop.ask(here(query))} - WITHOUT_DATA

    # A rate needs two scrapes after the first visitor.
    live.until(lambda: f"data of the panels {empty()}", 60 / PACE + 10, lambda: not empty())


def test_idle_is_zero_again(shop, visitors):
    quiet = time.time()
    for name in SERIES:

        def later(name=name):
            [(_, [(at, value)])] = shop.ask(f"timestamp({name}) * (1 - clamp_max({name}, 1))") or [(None, [(0, 0)])]
            # The moment of the latest evaluation, where that says 0.
            return value > quiet and value

        at = live.until(f"{name} is 0", max(WINDOW.values()) + 60 / PACE + 10, later)
        print(f"{name} is 0 {at - quiet:.0f} s after the last request")


def documented(program):
    return [command for command in test_commands.commands() if command[0] == program]


def test_the_documented_request(shop, load):
    [curl] = documented("curl")
    here = [word.replace("127.0.0.1:8080", f"127.0.0.1:{shop.ports['gateway']}") for word in curl]
    assert here != curl
    ran = subprocess.run([*here, "--silent", "--show-error", "--fail"], capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert len(answer["items"]) == 10 and not answer["degraded"], answer


def test_the_documented_commands_of_releases(shop, visitors):
    """A second release: published, promoted in two stages, and taken back; the follower does what each command says."""
    first = served(shop)
    shop.saker("assemble", "--force")
    commands = documented("saker")
    assert [command[1] for command in commands] == ["publish", "promote", "prune", "rollback"]
    seen = []
    for command in commands:
        if command[1] == "prune":
            # Both releases stay: one serves, and a rollback goes back to the other.
            assert command[2] == "--from"
            assert "2 releases stay" in shop.saker("prune", "--from", shop.folder / "releases", "--keep", "1")
            continue
        assert command[2:4] == ["retail", "--to"]
        shop.saker(command[1], "--to", shop.folder / "releases", *command[5:])
        wanted = (lambda release: release != first) if command[1] == "promote" else (lambda release: release == first)
        seen.append(live.until(f"what `{command}` makes", 30, lambda wanted=wanted: served(shop) if wanted(served(shop)) else None))
    assert seen[0] == first and seen[1] != first and seen[2] == first
    assert 'saker_promotions_total{outcome="served"} 2' in shop.page("follow"), shop.page("follow")


def served(shop):
    """The release that the follower reports."""
    [release] = re.findall(r'^saker_release_info\{release="([^"]+)"\} 1$', shop.page("follow"), re.MULTILINE)
    return release
