"""A pod's programs on this machine: a small release of MovieLens, Valkey, Triton, follower, gateway, updater, and Prometheus.

Every argument is the chart's own. Only addresses, folders and secrets are replaced.
"""

import contextlib
import itertools
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request

import pytest
import yaml

import chart

RELEASE, NAMESPACE = "shop", "prod"
# A collector that is away: traces are counted as lost, and nothing else happens.
TRACING = {"endpoint": "http://127.0.0.1:9", "rate": 1}
VALUES = chart.merged(
    chart.LEAST, {"monitoring": {"podMonitors": True, "rules": True}, "releases": {"pollSeconds": 2}, "tracing": TRACING}
)
OURS = ("saker", "saker-gateway", "saker-updater", "saker-follow")
KEY = "control-key-of-the-tests"
CACHE = pathlib.Path(os.environ.get("SAKER_CACHE", pathlib.Path.home() / ".cache/saker"))
PERF_ANALYZER = CACHE / "runtime/perf_analyzer/perf_analyzer"
# The people of MovieLens 100K have the ids 1 to 943.
USERS = 943

# What a small and quick training changes in examples/movielens/pipeline.toml.
QUICK = """
[training.towers]
epochs = 1

[training.ranker]
epochs = 1
hard_negatives = 0.0

[retrieval]"""


def missing():
    """What is not installed or built, as a sentence; empty if nothing is."""
    programs = os.environ.get("SAKER_PROGRAMS")
    if not programs:
        return "SAKER_PROGRAMS is not set: the folder with " + ", ".join(OURS)
    wanted = {pathlib.Path(programs) / name: "scripts/build makes it" for name in OURS}
    wanted[backends() / "fused_recommendation"] = "scripts/build makes it"
    for variable in ("SAKER_TRITON", "SAKER_VALKEY", "ORT_DYLIB_PATH"):
        wanted[pathlib.Path(os.environ.get(variable) or f"${variable}")] = "scripts/install installs it"
    wanted[CACHE / "runtime/recbole/ml-100k/ml-100k.inter"] = "scripts/install installs it"
    wanted[PERF_ANALYZER] = "scripts/install --tests installs it"
    return "; ".join(f"{path} is missing: {advice}" for path, advice in wanted.items() if not path.exists())


def backends():
    """The folder of the backends: beside the programs, else where scripts/build puts them."""
    beside = pathlib.Path(os.environ.get("SAKER_PROGRAMS", "")) / "backends"
    return beside if beside.is_dir() else pathlib.Path(os.environ.get("SAKER_BACKENDS", chart.ROOT / ".saker/backends"))


# Below the ports that Linux lends to connections.
PORTS = itertools.count(21000 + os.getpid() % 97 * 60)


def free_port():
    for port in PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def get(url, headers=None, data=None, seconds=5):
    request = urllib.request.Request(url, data=data, headers=headers or {})
    with urllib.request.urlopen(request, timeout=seconds) as response:
        return response.read().decode()


def until(what, seconds, ask):
    """What `ask` returns, once that is neither false nor an error of the network."""
    end = time.monotonic() + seconds
    while True:
        try:
            found = ask()
        except OSError as error:
            found, why = None, error
        else:
            why = found
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds} s: {what() if callable(what) else what} ({why})"
        time.sleep(0.2)


class Shop:
    """The programs that run, and where they answer."""

    def __init__(self, folder):
        self.folder = folder
        self.programs = pathlib.Path(os.environ["SAKER_PROGRAMS"]).resolve()
        self.running = []
        names = ("http", "grpc", "metrics", "store", "gateway", "admin", "updater", "follow", "prometheus")
        self.ports = {name: free_port() for name in names}
        self.store = f"redis://127.0.0.1:{self.ports['store']}"
        self.pod = f"{RELEASE}-saker-triton-0"
        # Of all pods; each has a state of its own.
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SAKER_")},
            "SAKER_CACHE": str(CACHE),
            "SAKER_REDIS_URL": self.store,
            "SAKER_RELEASES": str(folder / "releases"),
            "SAKER_CONTROL_KEY": KEY,
            "SAKER_TRACE": TRACING["endpoint"],
            "SAKER_TRACE_RATE": str(TRACING["rate"]),
            "RUST_LOG": "info",
        }

    def start(self, name, command):
        log = (self.folder / f"{name}.log").open("w")
        environment = {**self.environment, "SAKER_STATE": str(self.folder / f"state-{name}")}
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=subprocess.STDOUT, env=environment)
        self.running.append((name, process))
        return process

    def log(self, name):
        return (self.folder / f"{name}.log").read_text()[-5000:]

    def stop(self):
        """Ends each program before those that it asks. {name: exit status}."""
        for _, process in reversed(self.running):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(45)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return {name: process.returncode for name, process in self.running}

    def make_release(self):
        """From the tables to a store of releases in which this one is wanted."""
        text = (chart.ROOT / "examples/movielens/pipeline.toml").read_text()
        # Vectors of texts need a model of their own.
        text, cut = re.subn(r"\[\[item\.embeddings\]\]\nname = \"item_description_embeddings\"\n.*?\n\n", "", text, flags=re.DOTALL)
        text, changed = re.subn(r"\n\[retrieval\]", QUICK, text)
        assert (cut, changed) == (1, 1), "examples/movielens/pipeline.toml has other tables"
        (self.folder / "pipeline.toml").write_text(text)
        (self.folder / "releases").mkdir()
        for step in ("prepare", "train", "index", "materialize", "assemble"):
            self.saker(step)
        for step in ("publish", "promote"):
            self.saker(step, "--to", self.folder / "releases")

    def saker(self, *arguments):
        """A command with the definition and the state of this shop."""
        ran = subprocess.run(
            [self.programs / "saker", *arguments],
            capture_output=True,
            text=True,
            env={**self.environment, "SAKER_STATE": str(self.folder / "state"), "SAKER_PIPELINE": str(self.folder / "pipeline.toml")},
            timeout=300,
            cwd=self.folder,
        )
        assert ran.returncode == 0, f"saker {arguments}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def arguments(self, component, container):
        """The rendered arguments of a container, with the addresses and folders of this machine."""
        for thing, template in chart.pods(chart.render(VALUES, RELEASE, NAMESPACE)):
            if chart.component(thing) == component:
                [found] = [c for _, c in chart.containers(template) if c["name"] == container]
        port = {name: f"127.0.0.1:{number}" for name, number in self.ports.items()}
        places = {
            "dns://shop-saker-triton-headless:8001": port["grpc"],
            "shop-saker-triton:8000": port["http"],
            "127.0.0.1:8000": port["http"],
            "0.0.0.0:8003": port["updater"],
            "0.0.0.0:8004": port["follow"],
            "0.0.0.0:8080": port["gateway"],
            "0.0.0.0:8081": port["admin"],
            "/opt/saker/backends": str(backends()),
            "/models": str(self.folder / "models"),
            "$(SAKER_CONTROL_KEY)": KEY,
            "$(POD_NAME)": self.pod,
        }
        for argument in found["args"]:
            for place, here in places.items():
                argument = argument.replace(place, here)
            assert not re.search(r"\$\(|0\.0\.0\.0|dns://", argument), argument
            yield argument

    def serve(self):
        """Starts what a pod of Triton runs, the gateway and the updater, in the order of Kubernetes."""
        follower = self.programs / "saker-follow"
        ran = subprocess.run(
            [follower, *self.arguments("triton", "fetch")], capture_output=True, text=True, env=self.environment, timeout=120
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        listen = [f"--{name}-{what}" for name in ("http", "grpc", "metrics") for what in ("address=127.0.0.1", f"port={self.ports[name]}")]
        # Beside the chart's arguments: where it listens, and that there is no GPU.
        self.start("triton", [os.environ["SAKER_TRITON"], *self.arguments("triton", "triton"), *listen, "--allow-gpu-metrics=false"])
        for ensemble in ("ensemble_model", "ensemble_fused"):
            address = f"http://127.0.0.1:{self.ports['http']}/v2/models/{ensemble}/ready"
            until(lambda: f"{ensemble} ready: {self.log('triton')}", 60, lambda: get(address) is not None)
        self.start("follow", [follower, *self.arguments("triton", "follow")])
        self.start("gateway", [self.programs / "saker-gateway", *self.arguments("gateway", "gateway")])
        self.start("updater", [self.programs / "saker-updater", *self.arguments("updater", "updater")])
        for name in ("gateway", "updater"):
            address = f"http://127.0.0.1:{self.ports[name]}/health/ready"
            until(lambda: f"{name} ready: {self.log(name)}", 60, lambda: get(address) is not None)
        until("the follower", 30, lambda: "saker_release_info" in self.page("follow"))

    def page(self, name):
        """What Prometheus reads: the page of metrics, follow, admin or updater."""
        return get(f"http://127.0.0.1:{self.ports[name]}/metrics")

    def watch(self, pace):
        """Starts Prometheus with the chart's rules and intervals, each `pace` times as short."""
        objects = chart.render(VALUES, RELEASE, NAMESPACE)
        [rules] = [thing["spec"] for thing in chart.of_kind(objects, "PrometheusRule")]
        self.series = [group for group in rules["groups"] if group["name"] == "saker.series"]
        for group in self.series:
            group["interval"] = shorter(group["interval"], pace)
            for rule in group["rules"]:
                rule["expr"] = re.sub(r"\[[^\]]+\]", lambda window: shorter(window[0], pace), rule["expr"])
        (self.folder / "rules.yaml").write_text(yaml.safe_dump({"groups": self.series}, width=1000))
        ports = {"metrics": "metrics", "follow": "follow", "admin": "admin"}
        jobs = []
        for monitor in chart.of_kind(objects, "PodMonitor"):
            component = chart.component(monitor)
            for endpoint in monitor["spec"]["podMetricsEndpoints"]:
                name = "updater" if component == "updater" else ports[endpoint["port"]]
                pod = self.pod.replace("triton", component)
                labels = {"namespace": NAMESPACE, "pod": pod, "endpoint": endpoint["port"]}
                jobs.append(
                    {
                        "job_name": f"{component}-{endpoint['port']}",
                        "scrape_interval": shorter(endpoint["interval"], pace),
                        "scrape_timeout": shorter(endpoint["interval"], pace),
                        "metrics_path": endpoint["path"],
                        "static_configs": [{"targets": [f"127.0.0.1:{self.ports[name]}"], "labels": labels}],
                    }
                )
        assert len(jobs) == 4
        config = {"rule_files": [str(self.folder / "rules.yaml")], "scrape_configs": jobs}
        (self.folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        command = [
            "prometheus",
            f"--config.file={self.folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self.folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.ports['prometheus']}",
            "--log.level=warn",
        ]
        self.start("prometheus", command)
        until("Prometheus", 30, lambda: get(f"http://127.0.0.1:{self.ports['prometheus']}/-/ready"))

    def ask(self, query):
        """[(labels, [(seconds, value)])] of an instant query; of a range selector, every sample."""
        address = f"http://127.0.0.1:{self.ports['prometheus']}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        found = json.loads(get(address))
        assert found["status"] == "success", found
        return [
            (each["metric"], [(float(at), float(value)) for at, value in each.get("values") or [each["value"]]])
            for each in found["data"]["result"]
        ]

    def statistics(self):
        """{model: (requests, nanoseconds of them, nanoseconds in the queue)} since Triton's start, and when that was asked."""
        found = json.loads(get(f"http://127.0.0.1:{self.ports['http']}/v2/models/stats"))
        result = {}
        for each in found["model_stats"]:
            parts = each["inference_stats"]
            counts = (parts["success"]["count"], parts["success"]["ns"], parts["queue"]["ns"])
            before = result.get(each["name"], (0, 0, 0))
            result[each["name"]] = tuple(a + b for a, b in zip(before, counts))
        return time.time(), result


def shorter(text, pace):
    """Every duration of a text, divided: `[2m]` by 4 is `[30000ms]`."""
    milliseconds = {"s": 1000, "m": 60_000}
    return re.sub(r"(\d+)([sm])\b", lambda found: f"{int(found[1]) * milliseconds[found[2]] // pace}ms", text)


@contextlib.contextmanager
def shop(folder, pace):
    why = missing()
    if why:
        pytest.skip(why)
    running = Shop(folder)
    try:
        running.start("valkey", [os.environ["SAKER_VALKEY"], "--port", running.ports["store"], "--bind", "127.0.0.1", "--save", "", "--dir", folder])
        until("Valkey", 10, lambda: socket.create_connection(("127.0.0.1", running.ports["store"]), 1).close() is None)
        running.make_release()
        running.serve()
        running.watch(pace)
        yield running
    except BaseException:
        running.stop()
        raise
    ended = running.stop()
    assert not any(ended.values()), f"SIGTERM ends each program with status 0: {ended}"
