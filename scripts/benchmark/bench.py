"""Measures the ensemble beside the same steps as Python models, and beside ONNX Runtime alone; scripts/bench calls this.

All systems run the same Triton, ONNX models, artefacts and stores. First they must return the same ids. Then they are measured in turn, round by round
(A B A B), so that what else happens on the machine meets both; every number is the median of the rounds, with the lowest and the highest.
"""

import argparse
import csv
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.parquet as parquet

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ENSEMBLE = "ensemble_model"
CONCURRENCY = [1, 2, 4, 8]
CANDIDATES = 300
STEPS = {
    "request_defaults", "feature_lookup", "feature_transform", "faiss_retrieval", "bloom_filter",
    "embedding_lookup", "unroll", "softmax_sampling", "id_decode",
}


def say(text):
    print(f"[bench] {text}", flush=True)


def median(values):
    return statistics.median(values)


class Server:
    """A Triton on one repository."""

    def __init__(self, title, repository, backends, port, work, extra=None):
        self.title = title
        self.repository = repository
        self.backends = backends
        self.http, self.grpc, self.metrics = port, port + 1, port + 2
        self.log = work / f"{title.split(',')[0]}.log"
        self.extra = extra or {}
        self.process = None

    def start(self):
        command = [
            os.environ["SAKER_TRITON"], f"--model-repository={self.repository}", f"--backend-directory={self.backends}",
            "--model-control-mode=explicit", f"--load-model={ENSEMBLE}", "--disable-auto-complete-config",
            f"--http-port={self.http}", f"--grpc-port={self.grpc}", f"--metrics-port={self.metrics}",
        ]
        started = time.monotonic()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **self.extra})
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/v2/models/{ENSEMBLE}/ready", timeout=1):
                    break
            except OSError:
                if self.process.poll() is not None:
                    sys.exit(f"{self.title} did not start: see {self.log}")
                time.sleep(0.02)
        return time.monotonic() - started

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(timeout=60)

    def ask(self, user):
        body = {"inputs": [{"name": name, "shape": [1], "datatype": "INT32", "data": [value]} for name, value in
                           [("user_id", user), ("device_type", user % 3), ("timestamp", 1_760_500_000)]]}
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/v2/models/{ENSEMBLE}/infer", json.dumps(body).encode())
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
        """Memory of its own (RssAnon) of the server and the processes it started; what they map from files is not counted."""
        total = 0
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    status = (folder / "status").read_text()
                except OSError:
                    continue
                parent = int(re.search(r"PPid:\s+(\d+)", status)[1])
                if self.process.pid in (int(folder.name), parent):
                    pages = re.search(r"RssAnon:\s+(\d+)", status)
                    total += int(pages[1]) if pages else 0
        return total / 1024


def python_repository(source, target):
    """The same repository with the Python models in place of the Rust backends."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for model in source.iterdir():
        if not model.is_dir():
            if model.suffix == ".json":
                shutil.copy(model, target)
            continue
        copy = target / model.name
        shutil.copytree(model, copy)
        config = (copy / "config.pbtxt").read_text()
        backend = re.search(r'^backend: "(\w+)"', config, re.MULTILINE)
        if not backend or backend[1] not in STEPS:
            continue
        config = config.replace(backend[0], 'backend: "python"')
        config += f'parameters {{ key: "STEP" value {{ string_value: "{backend[1]}" }} }}\n'
        (copy / "config.pbtxt").write_text(config)
        for version in copy.iterdir():
            if version.is_dir():
                shutil.copy(HERE / "model.py", version)


def python_backends(target):
    """The backends with Triton's Python backend beside them, which runs this interpreter."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for backend in Path(os.environ["SAKER_BACKENDS"]).iterdir():
        (target / backend.name).symlink_to(backend.resolve())
    home = Path(os.environ["SAKER_TRITON"]).resolve().parent.parent
    shutil.copytree(home / "backends/python", target / "python")
    # The interpreter that the backend embeds is the system's: it finds the packages of this environment through its first module.
    utilities = target / "python/triton_python_backend_utils.py"
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    utilities.write_text(f"import sys\nsys.path.insert(0, {packages!r})\n" + utilities.read_text())
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        sys.exit(f"Triton has no Python backend for Python {version}")
    shutil.copy(stub, target / "python")


def onnx_alone(repository, version, rounds):
    """Milliseconds of query tower and ranker on 300 rows, one thread: L of the performance targets."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    times = {}
    for model, rows in [("query_tower", 1), ("dlrm_ranking", CANDIDATES)]:
        path = repository / model / version / "model.onnx"
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feeds = {}
        for tensor in session.get_inputs():
            shape = [rows] + [size for size in tensor.shape[1:] if isinstance(size, int)]
            kind = np.int32 if tensor.type == "tensor(int32)" else np.float32
            feeds[tensor.name] = np.full(shape, 2, dtype=kind) if kind is np.int32 else np.zeros(shape, dtype=kind)
        taken = []
        for call in range(rounds * 200):
            started = time.perf_counter()
            session.run(None, feeds)
            taken.append(1e3 * (time.perf_counter() - started))
        times[model] = median(taken[50:])
    return times


def analyze(server, concurrency, requests, users, work):
    """Latency in ms and throughput that perf_analyzer sees over gRPC."""
    out = work / "perf_analyzer.csv"
    out.unlink(missing_ok=True)
    command = [
        os.environ["PERF_ANALYZER"], "-m", ENSEMBLE, "-i", "grpc", "-u", f"127.0.0.1:{server.grpc}",
        "--input-data", str(users), "--shape", "user_id:1", "--measurement-mode=count_windows",
        f"--measurement-request-count={requests}", "--percentile=95", "-s", "500", "--max-trials", "3",
        f"--concurrency-range={concurrency}", "-f", str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if not out.exists():
        sys.exit(f"perf_analyzer failed on {server.title}:\n{done.stdout}{done.stderr}")
    with out.open() as file:
        (row,) = csv.DictReader(file)
    return {"p50": float(row["p50 latency"]) / 1e3, "p99": float(row["p99 latency"]) / 1e3, "rate": float(row["Inferences/Second"])}


def per_step(before, after):
    """Mean microseconds of a request by model: queue, input, infer, output."""
    rows = {}
    for model, now in after.items():
        count = now["success"]["count"] - before[model]["success"]["count"]
        if count:
            rows[model] = [(now[part]["ns"] - before[model][part]["ns"]) / count / 1e3
                           for part in ("queue", "compute_input", "compute_infer", "compute_output")]
    return rows


def spread(values, digits=2):
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def chart(title, unit, bars):
    """Horizontal bars on a logarithmic scale, as SVG."""
    width, left, line = 720, 190, 26
    most = max(value for _, value in bars)
    least = min(value for _, value in bars) / 2
    length = lambda value: (width - left - 90) * np.log(value / least) / np.log(most / least)
    rows = [f'<text x="0" y="14" font-weight="bold">{title} ({unit}, logarithmic)</text>']
    for place, (name, value) in enumerate(bars):
        y = 26 + place * line
        rows.append(f'<text x="0" y="{y + 14}">{name}</text>'
                    f'<rect x="{left}" y="{y}" width="{length(value):.1f}" height="18" fill="#a8480f"/>'
                    f'<text x="{left + length(value) + 6:.1f}" y="{y + 14}">{value:.2f}</text>')
    height = 30 + len(bars) * line
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13" '
            f'fill="#555">{"".join(rows)}</svg>\n')


def processor():
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{len(names)} × {names[0]}" if names else platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3, help="times that each system is measured (default: 3)")
    parser.add_argument("--requests", type=int, default=1500, help="requests of one of three windows (default: 1500)")
    parser.add_argument("--users", type=int, default=200, help="users whose answers are compared first (default: 200)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of benchmarks.md and .svg (default: docs)")
    arguments = parser.parse_args()

    work = arguments.state / "bench"
    work.mkdir(parents=True, exist_ok=True)
    repository = arguments.state / "repository"
    config = (repository / ENSEMBLE / "config.pbtxt").read_text()
    version = re.search(r"model_version: (\d+)", config)[1]
    ids = parquet.read_table(arguments.state / "data/users.parquet").column("user_id").to_numpy()
    ids = np.random.default_rng(1).permutation(ids)
    users = work / "users.json"
    data = [{"user_id": {"content": [int(user)], "shape": [1]}} for user in ids[:2000]]
    users.write_text(json.dumps({"data": data}))

    python_repository(repository, work / "repository")
    python_backends(work / "backends")
    ours = Server("saker, 14 steps in Rust", repository, os.environ["SAKER_BACKENDS"], 18100, work)
    # The interpreter's process looks for the libraries that Triton's package brings.
    home = Path(os.environ["SAKER_TRITON"]).resolve().parents[3]
    libraries = {str(path.parent) for path in home.rglob("libcudart-*")}
    environment = {"OMP_NUM_THREADS": "1", "LD_LIBRARY_PATH": ":".join(sorted(libraries))}
    theirs = Server("numpy, 14 steps in Python", work / "repository", work / "backends", 18200, work, environment)
    systems = [ours, theirs]
    try:
        starts = {}
        for server in systems:
            starts[server.title] = server.start()
            say(f"{server.title}: ready in {starts[server.title]:.1f} s")
        compare(systems, ids[: arguments.users])
        measured = {(server.title, concurrency): [] for server in systems for concurrency in CONCURRENCY}
        steps = {server.title: [] for server in systems}
        alone = []
        for number in range(arguments.rounds):
            alone.append(onnx_alone(repository, version, 2))
            for concurrency in CONCURRENCY:
                for server in systems:
                    before = server.statistics()
                    found = analyze(server, concurrency, arguments.requests // (1 if server is ours else 4), users, work)
                    measured[server.title, concurrency].append(found)
                    if concurrency == 1:
                        steps[server.title].append(per_step(before, server.statistics()))
                    say(f"round {number + 1}, {concurrency} at a time, {server.title}: p50 {found['p50']:.2f} ms, {found['rate']:.0f}/s")
        memory = {server.title: server.resident_megabytes() for server in systems}
    finally:
        for server in systems:
            server.stop()
    write(arguments, systems, starts, memory, measured, steps, alone)


def compare(systems, users):
    """All systems must return the same ids for the same users."""
    ours, theirs = systems
    furthest = 0.0
    for user in [-1, 2_000_000_000, *map(int, users)]:
        (ids, scores), (other_ids, other_scores) = ours.ask(user), theirs.ask(user)
        if ids != other_ids:
            sys.exit(f"user {user}: {ours.title} answers {ids}, {theirs.title} {other_ids}; nothing is measured")
        furthest = max(furthest, *(abs(a - b) for a, b in zip(scores, other_scores)))
    say(f"the same ids for {len(users) + 2} users, scores within {furthest:.1e}")


def write(arguments, systems, starts, memory, measured, steps, alone):
    ours, theirs = systems
    floor = [entry["query_tower"] + entry["dlrm_ranking"] for entry in alone]
    low = median(floor)
    of = lambda server, concurrency, key: [entry[key] for entry in measured[server.title, concurrency]]
    lines = [
        "# Benchmarks",
        "",
        f"Written by `scripts/bench` on {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC: {processor()}, load average "
        f"{os.getloadavg()[1]:.1f}, Triton and client on the same cores, gRPC, the retail shop (2,465 items, 6,000 users), {CANDIDATES} candidates "
        f"in, 10 out, a real Valkey. {arguments.rounds} rounds, interleaved; median (lowest–highest). Before anything is timed, both systems return the "
        f"same ids for {arguments.users} users.",
        "",
        f"L, ONNX Runtime alone on one thread, query tower and ranker on {CANDIDATES} rows: **{spread(floor, 3)} ms** "
        f"(ranker {median([entry['dlrm_ranking'] for entry in alone]):.3f}).",
        "",
        "| system | requests at a time | p50 ms | p99 ms | requests/s |",
        "|---|---|---|---|---|",
    ]
    for concurrency in CONCURRENCY:
        for server in systems:
            lines.append(f"| {server.title} | {concurrency} | {spread(of(server, concurrency, 'p50'))} | "
                         f"{spread(of(server, concurrency, 'p99'))} | {spread(of(server, concurrency, 'rate'), 0)} |")
    faster = median(of(theirs, 1, "p50")) / median(of(ours, 1, "p50"))
    more = median(of(theirs, 4, "rate"))
    more = median(of(ours, 4, "rate")) / more
    server_side = [sum(entry[ENSEMBLE]) / 1e3 for entry in steps[ours.title]]
    most = 1e3 * 2 / low
    reached = median(of(ours, 4, "rate"))
    verdict = lambda ok: "met" if ok else "missed"
    lines += [
        "",
        "![p50](benchmarks.svg)",
        "",
        "| target | | |",
        "|---|---|---|",
        f"| server side, one at a time: 2.0 L = {2 * low:.2f} ms (here the mean that Triton counts) | {spread(server_side)} ms = {median(server_side) / low:.1f} L | {verdict(median(server_side) <= 2 * low)} |",
        f"| gRPC p50, one at a time: L + 0.6 ms = {low + 0.6:.2f} ms | {spread(of(ours, 1, 'p50'))} ms | {verdict(median(of(ours, 1, 'p50')) <= low + 0.6)} |",
        f"| 5 × lower p50 than the NumPy steps | {faster:.1f} × | {verdict(faster >= 5)} |",
        f"| 8 × their throughput (4 at a time) | {more:.1f} × | {verdict(more >= 8)} |",
        f"| 80 % of what ONNX Runtime alone could do on two cores, {most:.0f}/s | {reached:.0f}/s = {100 * reached / most:.0f} % | {verdict(reached >= 0.8 * most)} |",
        f"| start to ready 3 s | {starts[ours.title]:.1f} s | {verdict(starts[ours.title] <= 3)} |",
        f"| 400 MB of memory of its own (this shop has 6,000 users; the target is for 300,000) | {memory[ours.title]:.0f} MB, the NumPy steps {memory[theirs.title]:.0f} MB | {verdict(memory[ours.title] <= 400)} |",
        "",
        "Per step, one request at a time, mean µs of a request (queue, input, infer, output; the output of a step contains Triton's scheduling of the next ones):",
        "",
        "| step | saker | numpy |",
        "|---|---|---|",
    ]
    parts = lambda title, model: " / ".join(f"{median([entry[model][part] for entry in steps[title]]):.0f}" for part in range(4))
    for model in sorted(steps[ours.title][0], key=lambda model: -median([sum(entry[model]) for entry in steps[theirs.title]])):
        lines.append(f"| {model} | {parts(ours.title, model)} | {parts(theirs.title, model)} |")
    lines += [
        "",
        "Not measured yet: the real NVTabular doing the transforms, a fused ensemble, other numbers of candidates, items and users.",
    ]
    (arguments.out / "benchmarks.md").write_text("\n".join(lines) + "\n")
    bars = [("ONNX Runtime alone (L)", low)] + [(server.title, median(of(server, 1, "p50"))) for server in systems]
    (arguments.out / "benchmarks.svg").write_text(chart("gRPC p50, one request at a time", "ms", bars))
    say(f"{arguments.out / 'benchmarks.md'}")


if __name__ == "__main__":
    main()
