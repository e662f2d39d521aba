"""Both pipelines from end to end on MovieLens: the compiled files, the real programs, a store of releases in a folder, a real Valkey, and a
real Triton that follows the store.

The tests are one story and run in order: nothing to fine-tune, a first release, the same again, worse models, a day that arrives, a
training that is killed.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

import chart
import live
from test_pipelines import COMPILED, RUNTIME

PROGRAMS = os.environ.get("SAKER_PROGRAMS")
TRITON = pathlib.Path(os.environ.get("SAKER_TRITON", RUNTIME / "triton/pytriton/tritonserver/bin/tritonserver"))
VALKEY = pathlib.Path(os.environ.get("SAKER_VALKEY", RUNTIME / "valkey/valkey-server"))
ONNXRUNTIME = pathlib.Path(os.environ.get("ORT_DYLIB_PATH", RUNTIME / "onnxruntime/libonnxruntime.so"))
BACKENDS = pathlib.Path(os.environ.get("SAKER_BACKENDS", chart.ROOT / ".saker/backends"))
MOVIELENS = RUNTIME / "recbole/ml-100k"
RUNNER = chart.ROOT / "deploy/pipelines/run_local.py"
# A part of MovieLens, so that the evaluation's baselines take seconds.
USERS, ITEMS = 300, 300
# This share of the ratings is there from the beginning; the others come with the day that arrives.
FIRST = 0.9

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROGRAMS, reason="SAKER_PROGRAMS is not set"),
]


def wait_for(what, found, seconds=60):
    until = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < until, f"{what} within {seconds} s"
        time.sleep(0.05)
    return answer


class Server:
    """A pod of Triton: the release that is wanted first, then Triton, then the follower beside it."""

    def __init__(self, shop, name):
        self.shop, self.folder = shop, shop.folder / name
        self.folder.mkdir()
        self.ports = [live.free_port() for _ in range(3)]
        self.processes, self.why = [], None
        self.thread = threading.Thread(target=self.start, daemon=True)
        self.thread.start()

    def spawn(self, name, *command):
        env = {**self.shop.env, "ORT_DYLIB_PATH": str(ONNXRUNTIME)}
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=chart.ROOT)
        self.processes.append(process)
        return process

    def start(self):
        try:
            http, grpc, metrics = self.ports
            store = ("--releases", self.shop.releases, "--repository", self.folder / "models")
            follow = pathlib.Path(PROGRAMS, "saker-follow")
            first = self.spawn("first", follow, *store, "--once", "--wait", "600")
            assert first.wait(600) == 0, (self.folder / "first.log").read_text()
            self.spawn(
                *("triton", TRITON, f"--model-repository={self.folder / 'models'}", f"--backend-directory={BACKENDS}"),
                *("--model-control-mode=explicit", "--load-model=ensemble_model", "--strict-readiness=false"),
                *("--allow-gpu-metrics=false", "--exit-timeout-secs=3", "--disable-auto-complete-config"),
                *("--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1"),
                *(f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"),
            )
            wait_for("Triton serves", lambda: self.get("/v2/models/ensemble_model/ready"))
            self.spawn("follow", follow, *store, *("--triton", f"127.0.0.1:{http}", "--name", "server-1", "--every", "0.5", "--listen", "off"))
        except BaseException as error:
            self.why = error
            raise

    def get(self, path, body=None):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[0]}{path}", body, timeout=10) as answer:
                return answer.read() or b"{}"
        except urllib.error.URLError:
            return None

    def release(self):
        """The release that answers."""
        request = {"inputs": [{"name": "user_id", "shape": [1], "datatype": "INT32", "data": [42]}]}
        answer = json.loads(self.get("/v2/models/ensemble_model/infer", json.dumps(request).encode()))
        outputs = {output["name"]: output["data"] for output in answer["outputs"]}
        assert len(outputs["ordered_ids"]) == 10
        return outputs["release"][0]

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        self.thread.join(60)


class Shop:
    """A definition with its source, the state, the store of releases and Valkey."""

    def __init__(self, folder):
        self.folder = folder
        self.releases = folder / "releases"
        self.state = folder / "state"
        port = live.free_port()
        self.env = {
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", "/"),
            "SAKER_REDIS_URL": f"redis://127.0.0.1:{port}",
        }
        for name, most in (("user", USERS), ("item", ITEMS)):
            head, *rows = (MOVIELENS / f"ml-100k.{name}").read_text().splitlines()
            rows = [row for row in rows if int(row.split("\t")[0]) <= most]
            (folder / f"ml-100k.{name}").write_text("\n".join([head, *rows]) + "\n")
        self.head, *rows = (MOVIELENS / "ml-100k.inter").read_text().splitlines()
        fields = (row.split("\t") for row in rows)
        kept = [row for row in fields if int(row[0]) <= USERS and int(row[1]) <= ITEMS]
        self.ratings = ["\t".join(row) for row in sorted(kept, key=lambda row: int(row[3]))]
        self.arrive(FIRST)
        self.define()
        self.valkey = subprocess.Popen(
            [VALKEY, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )

    def arrive(self, share):
        """The source has this share of the ratings, the oldest ones."""
        rows = self.ratings[: int(share * len(self.ratings))]
        (self.folder / "ml-100k.inter").write_text("\n".join([self.head, *rows]) + "\n")

    def define(self, seed=42, learns=True):
        """MovieLens with few epochs and without texts."""
        text = (chart.ROOT / "examples/movielens/pipeline.toml").read_text()
        text = re.sub(r"\[\[item\.embeddings\]\].*?(?=\n\[training\])", "", text, flags=re.DOTALL)
        text = text.replace("${SAKER_CACHE}/runtime/recbole/ml-100k", str(self.folder))
        assert "[training]\n" in text and "item.embeddings" not in text and "SAKER_CACHE" not in text
        rates = "" if learns else ", learning_rate = 1e-8, embedding_learning_rate = 1e-8"
        training = f"""[training]
seed = {seed}
towers = {{ epochs = 6, batch_size = 256{rates} }}
ranker = {{ epochs = 2, batch_size = 128{rates} }}
"""
        (self.folder / "definition.toml").write_text(text.replace("[training]\n", training))

    def command(self, kind, run):
        parameters = {"dataset": "movielens", "releases": self.releases, "state": self.state, "wait": "120s"}
        return [
            *(sys.executable, RUNNER, COMPILED / f"{kind}.yaml", "--run", self.folder / "runs" / run),
            *("--cache", self.folder / "cache", "--backoff-scale", "0.01", "--env", f"SAKER_PIPELINE={self.folder / 'definition.toml'}"),
            *(f"--parameter={name}={value}" for name, value in parameters.items()),
        ]

    def run(self, kind, run):
        """{step: what the runner says of it last} of a run that succeeds."""
        ran = subprocess.run(self.command(kind, run), capture_output=True, text=True, timeout=900, env=self.env, cwd=chart.ROOT)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        print(ran.stdout)
        return last_lines(ran.stdout)

    def done(self, run, step):
        [path] = (self.folder / "runs" / run / "steps").rglob(f"{step}/done.json")
        return json.loads(path.read_text())

    def log(self, run, step):
        [path] = (self.folder / "runs" / run / "steps").rglob(f"{step}/log")
        return path.read_text(errors="replace")

    def published(self):
        return {path.stem for path in (self.releases / "releases").glob("*.json")}

    def moves(self):
        return sorted(path.name for path in (self.releases / "moves").glob("*.json"))

    def close(self):
        self.valkey.terminate()
        self.valkey.wait(30)


def last_lines(output):
    lines = (line.split(maxsplit=2) for line in output.splitlines() if re.match(r"\d\d:\d\d:\d\d  \S+ ", line))
    return {name: text for _, name, text in lines}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    for path in (TRITON, VALKEY, ONNXRUNTIME, MOVIELENS):
        assert path.exists(), f"{path} is missing; scripts/install installs it"
    assert BACKENDS.is_dir(), f"{BACKENDS} is missing; scripts/build makes it, or SAKER_BACKENDS names another folder"
    shop = Shop(tmp_path_factory.mktemp("shop"))
    yield shop
    shop.close()


@pytest.fixture(scope="module")
def server(shop):
    server = Server(shop, "server")
    yield server
    server.stop()


def test_a_fine_tuning_needs_a_release(shop):
    ran = subprocess.run(shop.command("daily", "early"), capture_output=True, text=True, timeout=120, env=shop.env, cwd=chart.ROOT)
    assert ran.returncode == 1
    assert re.search(r"\| error: no release of \S+ is to be served yet", ran.stdout), ran.stdout
    assert not shop.state.exists()


def test_the_first_release_serves(shop, server):
    steps = shop.run("full", "first")
    assert all(text.startswith("done in") for name, text in steps.items() if name != "saker-full"), steps
    assert "verdict=promote" in steps["gate"] and "reason=no release serves yet" in steps["gate"]
    [release] = shop.published()
    assert f"release={release}" in steps["publish"]
    assert server.why is None and server.release() == release
    # What people look at.
    measured = shop.done("first", "evaluate")["artefacts"]
    metrics = json.loads(pathlib.Path(measured["metrics"]["path"]).read_text())
    [ranked] = [method for method in metrics["methods"] if method["method"] == "ranked list"]
    assert measured["metrics"]["metadata"]["ndcg_10"] == pytest.approx(ranked["list"]["ndcg_10"])
    assert ranked["list"]["ndcg_10"] > 0.05
    assert "<html" in pathlib.Path(measured["report"]["path"]).read_text()[:500].lower()
    comparison = json.loads(pathlib.Path(shop.done("first", "gate")["artefacts"]["comparison"]["path"]).read_text())
    assert comparison["against"] is None
    version = shop.done("first", "source-version")["parameters"]["version"]
    assert re.fullmatch(r"[0-9a-f]{16}", version)
    assert [path.name for path in shop.state.iterdir()] == [version]


def test_the_second_run_is_cached(shop, server):
    before = (shop.published(), shop.moves())
    steps = shop.run("full", "second")
    assert [name for name, text in steps.items() if text.startswith("cached")] == ["prepare", "train", "index", "evaluate"]
    assert "verdict=promote" in steps["gate"] and "reason=no part is worse" in steps["gate"]
    assert "is wanted already" in shop.log("second", "promote")
    assert (shop.published(), shop.moves()) == before


def test_worse_models_are_not_promoted_and_the_run_says_why(shop, server):
    before = (shop.published(), shop.moves(), server.release())
    shop.define(learns=False)
    steps = shop.run("full", "worse")
    assert steps["train"].startswith("done in"), "another definition is another version"
    assert re.search(r"reason=worse than \S+ by more than 2 standard errors: all requests: -0\.\d+ ± 0\.\d+", steps["gate"])
    assert "verdict=keep" in steps["gate"]
    assert steps["promote-if-not-worse"] == "left out: gate-verdict=keep"
    assert not {"assemble", "publish", "materialize", "promote"} & set(steps)
    assert (shop.published(), shop.moves(), server.release()) == before
    shop.define()


def test_a_day_that_arrives_is_learned_from_what_serves(shop, server):
    [first] = shop.published()
    states = {path.name for path in shop.state.iterdir()}
    version = shop.done("first", "source-version")["parameters"]["version"]
    shop.arrive(1)
    steps = shop.run("daily", "day")
    # Not in the state of the refused training, which is newer.
    assert steps["data-version"].endswith(f"version={version}")
    assert {path.name for path in shop.state.iterdir()} == states
    assert "learned what happened after" in shop.log("day", "finetune")
    assert "verdict=promote" in steps["gate"]
    [new] = shop.published() - {first}
    assert server.release() == new
    # Again: nothing is new, and nothing is made.
    before = (shop.published(), shop.moves())
    steps = shop.run("daily", "day-again")
    assert "nothing is newer" in shop.log("day-again", "finetune")
    assert (shop.published(), shop.moves()) == before and server.release() == new


def trainings(runner):
    """Process ids of `saker train` below the runner."""
    found = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in found.splitlines()]
    children, grown = {runner}, True
    while grown:
        more = {int(pid) for pid, parent, _ in rows if int(parent) in children}
        grown = not more <= children
        children |= more
    return [int(pid) for pid, _, args in rows if int(pid) in children and re.match(r"\S*saker train ", args)]


def test_a_training_that_is_killed_goes_on(shop, server):
    shop.define(seed=7)
    command = shop.command("full", "killed")

    def start():
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=shop.env, cwd=chart.ROOT)

    # The runner is stopped while the towers learn, as a pod that is evicted: SIGTERM, and a checkpoint.
    runner = start()
    wait_for("the training starts", lambda: trainings(runner.pid), 120)
    version = shop.done("killed", "source-version")["parameters"]["version"]
    state = shop.state / version / "movielens"
    epochs = state / "models/run/epochs.jsonl"
    wait_for("an epoch ends", lambda: epochs.is_file() and epochs.read_text().count("\n") >= 1, 120)
    runner.terminate()
    output, _ = runner.communicate(timeout=60)
    assert runner.returncode == 143, output
    assert (state / "models/run/towers.safetensors").is_file() or (state / "stamps/train-towers.json").is_file()

    # The next one has its step killed while the ranker learns; the step is repeated.
    runner = start()
    wait_for("the towers are trained", lambda: (state / "stamps/train-towers.json").is_file(), 120)
    [training] = wait_for("the training runs", lambda: trainings(runner.pid))
    os.kill(training, signal.SIGKILL)
    output, _ = runner.communicate(timeout=600)
    assert runner.returncode == 0, output
    steps = last_lines(output)
    assert steps["prepare"].startswith("done before")
    assert "was ended by SIGKILL, attempt 1 of 3" in output
    assert steps["train"].startswith("done in")
    # Three attempts: the third read the towers in place of training them.
    log = shop.log("killed", "train")
    assert log.count("$ saker train") == 3
    assert "towers: read from" in log.split("$ saker train")[3]
    assert "verdict=" in steps["gate"]
