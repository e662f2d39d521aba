"""What is measured: each system is a Triton on a model repository of its own, and all of them serve the same release."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENSEMBLE, FUSED = "ensemble_model", "ensemble_fused"
TITLES = {
    "saker": "saker, 14 steps in Rust",
    "fused": "saker, fused steps",
    "numpy": "numpy, 14 steps in Python",
    "nvtabular": "nvtabular, 14 steps in Python",
}
RUST = ["saker", "fused"]
# How many times fewer requests the slow ones are measured with.
FEWER = {"numpy": 4, "nvtabular": 20}
STEPS = {
    "request_defaults", "feature_lookup", "feature_transform", "faiss_retrieval", "bloom_filter",
    "embedding_lookup", "unroll", "softmax_sampling", "id_decode",
}


def triton_libraries():
    """Where Triton's libraries lie, by file name."""
    listing = subprocess.run(["ldd", os.environ["SAKER_TRITON"]], capture_output=True, text=True, check=True).stdout
    return {name: Path(path) for name, path in re.findall(r"(\S+) => (/\S+)", listing)}


class Server:
    """A Triton on one repository, with one ensemble loaded, and perhaps others."""

    def __init__(self, name, repository, ensemble, backends, port, work, environment=None, others=()):
        self.name = name
        self.title = TITLES.get(name, name)
        self.repository = repository
        self.ensemble = ensemble
        self.backends = backends
        self.http, self.grpc, self.metrics = port, port + 1, port + 2
        self.log = work / f"{name}.log"
        self.environment = environment or {}
        self.others = others
        self.process = None

    def start(self):
        """Starts and waits; the seconds until the ensemble was ready."""
        command = [
            os.environ["SAKER_TRITON"], f"--model-repository={self.repository}", f"--backend-directory={self.backends}",
            "--model-control-mode=explicit", f"--load-model={self.ensemble}", "--disable-auto-complete-config",
            f"--http-port={self.http}", f"--grpc-port={self.grpc}", f"--metrics-port={self.metrics}",
            *(f"--load-model={other}" for other in self.others),
        ]
        started = time.monotonic()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **self.environment})
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/v2/models/{self.ensemble}/ready", timeout=1):
                    break
            except OSError:
                if self.process.poll() is not None:
                    sys.exit(f"{self.title} did not start: see {self.log}")
                time.sleep(0.02)
        return time.monotonic() - started

    def stop(self):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def ask(self, user, ensemble=None):
        """Ids and scores for a user, at a fixed device and time."""
        body = {"inputs": [{"name": name, "shape": [1], "datatype": "INT32", "data": [value]} for name, value in
                           [("user_id", user), ("device_type", user % 3), ("timestamp", 1_760_500_000)]]}
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/v2/models/{ensemble or self.ensemble}/infer", json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                outputs = {output["name"]: output["data"] for output in json.load(answer)["outputs"]}
        except urllib.error.HTTPError as error:
            sys.exit(f"{self.title}, user {user}: {error.read().decode()}")
        return outputs["ordered_ids"], outputs["ordered_scores"]

    def statistics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/v2/models/stats", timeout=10) as answer:
            models = json.load(answer)["model_stats"]
        return {model["name"]: model["inference_stats"] for model in models}

    def resident_megabytes(self):
        """Resident memory of the server and the processes it started, mapped files included; what several share is divided (Pss)."""
        total = 0
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    status = (folder / "status").read_text()
                except OSError:
                    continue
                parent = int(re.search(r"PPid:\s+(\d+)", status)[1])
                if self.process.pid in (int(folder.name), parent):
                    pages = re.search(r"^Pss:\s+(\d+)", (folder / "smaps_rollup").read_text(), re.MULTILINE)
                    total += int(pages[1]) if pages else 0
        return total / 1024


def same_order(ids, scores, others):
    """The same ids; neighbours may have changed places where their scores differ by less than 1e-6."""
    place = 0
    while place < len(ids):
        pair = ids[place : place + 2]
        if ids[place] == others[place]:
            place += 1
        elif len(pair) == 2 and pair[::-1] == others[place : place + 2] and abs(scores[place] - scores[place + 1]) < 1e-6:
            place += 2
        else:
            return False
    return True


def compare(servers, users):
    """All systems must return the same ids for the same users; the furthest that their scores are apart."""
    ours, *others = servers
    furthest = 0.0
    # Users that nobody knows come first.
    for user in [-1, 2_000_000_000, *map(int, users)]:
        ids, scores = ours.ask(user)
        for other in others:
            other_ids, other_scores = other.ask(user)
            if len(ids) != len(other_ids) or not same_order(ids, scores, other_ids):
                sys.exit(f"user {user}: {ours.title} answers {ids}, {other.title} {other_ids}; nothing is measured")
            furthest = max([furthest, *(abs(a - b) for a, b in zip(sorted(scores), sorted(other_scores)))])
    if furthest > 1e-5:
        sys.exit(f"the scores of two systems are {furthest:.1e} apart; nothing is measured")
    return furthest


def copy_release(source, target, ensemble, candidates=None, link=False):
    """An ensemble and its steps, in the versions that serve, as a repository whose only version is 1.

    perf_analyzer asks for no other when it loads Triton itself. `candidates` is how many the retrieval step returns, where it is not what the
    repository says. With `link` the files are the same ones under another name, and must not be written to.
    """
    shutil.rmtree(target, ignore_errors=True)
    config = (source / ensemble / "config.pbtxt").read_text()
    versions = dict(re.findall(r'model_name: "([^"]+)"\s+model_version: (\d+)', config))
    (target / ensemble / "1").mkdir(parents=True)
    (target / ensemble / "config.pbtxt").write_text(re.sub(r"model_version: \d+", "model_version: 1", config))
    changed = 0
    for model, version in versions.items():
        shutil.copytree(source / model / version, target / model / "1", copy_function=os.link if link else shutil.copy2)
        config = re.sub(r"^version_policy:.*\n", "", (source / model / "config.pbtxt").read_text(), flags=re.MULTILINE)
        if candidates:
            config, found = re.subn(r'(key: "RETRIEVAL_TOPK" value \{ string_value: ")\d+', rf"\g<1>{candidates}", config)
            changed += found
        (target / model / "config.pbtxt").write_text(config)
    if candidates and not changed:
        sys.exit(f"no step of {ensemble} has the parameter RETRIEVAL_TOPK")
    (release,) = {json.loads(path.read_text())["release"] for path in target.glob("*/1/release.json")}
    (target / "releases.json").write_text(json.dumps({"format": 1, "releases": {"1": release}, "next": 2, "promoted": [1], "failed": {}}))


def use_python(repository, nvtabular):
    """Puts Python models in place of the Rust backends: model.py, and for the transforms NVTabular's own if so asked."""
    transforms = []
    for path in repository.glob("*/config.pbtxt"):
        config, version = path.read_text(), path.parent / "1"
        backend = re.search(r'^backend: "(\w+)"', config, re.MULTILINE)
        if not backend or backend[1] == "onnxruntime":
            continue
        if backend[1] not in STEPS:
            sys.exit(f"{path.parent.name} runs on {backend[1]}, which scripts/benchmark/model.py has no step for")
        config = config.replace(backend[0], 'backend: "python"')
        if nvtabular and backend[1] == "feature_transform":
            transforms.append(str(version))
        else:
            config += f'parameters {{ key: "STEP" value {{ string_value: "{backend[1]}" }} }}\n'
            shutil.copy(HERE / "model.py", version)
        path.write_text(config)
    if transforms:
        subprocess.run([os.environ["SAKER_NVTABULAR"], HERE / "workflows.py", *transforms], check=True)


def python_backends(target, packages):
    """The backends with Triton's Python backend beside them, which finds its packages in these folders."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for backend in Path(os.environ["SAKER_BACKENDS"]).iterdir():
        (target / backend.name).symlink_to(backend.resolve())
    home = Path(os.environ["SAKER_TRITON"]).resolve().parent.parent
    shutil.copytree(home / "backends/python", target / "python")
    # The interpreter that the backend embeds is the system's: it finds the packages of an environment through its first module.
    utilities = target / "python/triton_python_backend_utils.py"
    utilities.write_text(f"import sys\nsys.path[:0] = {packages!r}\n" + utilities.read_text())
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        sys.exit(f"Triton has no Python backend for Python {version}")
    shutil.copy(stub, target / "python")


def nvtabular_packages():
    """Where NVTabular's environment has its packages; its Python is this one, see scripts/bench."""
    program = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return subprocess.run([os.environ["SAKER_NVTABULAR"], "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def prepared(name, source, work, port):
    """A system, its repository written."""
    repository = work / name
    copy_release(source, repository, FUSED if name == "fused" else ENSEMBLE, link=name in RUST)
    if name in RUST:
        return Server(name, repository, FUSED if name == "fused" else ENSEMBLE, os.environ["SAKER_BACKENDS"], port, work)
    use_python(repository, name == "nvtabular")
    # NVTabular's pins come first; what it lacks, the clients of the store, is taken from the environment of the other.
    packages = [sysconfig.get_path("purelib")]
    python_backends(work / f"{name}-backends", [nvtabular_packages(), *packages] if name == "nvtabular" else packages)
    # The interpreter's process looks for the libraries that Triton's package brings.
    folders = {str(path.parent) for path in triton_libraries().values() if path.name.startswith("libcudart")}
    environment = {"OMP_NUM_THREADS": "1", "LD_LIBRARY_PATH": ":".join(sorted(folders))}
    return Server(name, repository, ENSEMBLE, work / f"{name}-backends", port, work, environment)


def with_candidates(server, source, candidates, work, port):
    """The same Rust system with another number of candidates."""
    name = f"{server.name}-{candidates}"
    copy_release(source, work / name, server.ensemble, candidates, link=True)
    return Server(name, work / name, server.ensemble, server.backends, port, work)
