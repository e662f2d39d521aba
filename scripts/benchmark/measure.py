"""How it is measured: ONNX Runtime alone, perf_analyzer, Triton's statistics."""

import contextlib
import csv
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import redis

from systems import triton_libraries

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("queue", "compute_input", "compute_infer", "compute_output")


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()


def versions(server):
    """Names and versions of what is measured, and of what measures."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.http}/v2", timeout=10) as answer:
        triton = json.load(answer)["version"]
    store = redis.Redis(port=6379).info("server")
    stored = f"Valkey {store['valkey_version']}" if "valkey_version" in store else f"Redis {store['redis_version']}"
    faiss = re.search(r'name = "faiss-sys"\nversion = "(.*)"', (ROOT / "Cargo.lock").read_text())
    program = "from importlib.metadata import version; print(*(f'{name} {version(name)}' for name in ('nvtabular', 'pandas')), sep=', ')"
    # It does not say its version itself; the package that it came in is written down beside it.
    client = (Path(os.environ["PERF_ANALYZER"]).parent / ".stamp").read_text().split()[0]
    return [
        f"Saker {output('git', 'describe', '--always', '--dirty')}", f"Triton {triton}", f"ONNX Runtime {onnxruntime.__version__}", stored,
        f"faiss-sys {faiss[1]}", f"perf_analyzer of {client}",
        f"Python {platform.python_version()}", f"numpy {np.__version__}", *output(os.environ["SAKER_NVTABULAR"], "-c", program).split(", "),
    ]


def onnx_alone(repository, candidates, calls, pause=0):
    """Milliseconds of query tower and ranker, one thread, with so many seconds of sleep before each run: without sleep, L of the performance targets."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    times = {}
    for model, rows in [("query_tower", 1), ("dlrm_ranking", candidates)]:
        session = onnxruntime.InferenceSession(str(repository / model / "1/model.onnx"), options, providers=["CPUExecutionProvider"])
        feeds = {}
        for tensor in session.get_inputs():
            shape = [rows] + [size for size in tensor.shape[1:] if isinstance(size, int)]
            kind = np.int32 if tensor.type == "tensor(int32)" else np.float32
            feeds[tensor.name] = np.full(shape, 2, dtype=kind) if kind is np.int32 else np.zeros(shape, dtype=kind)
        taken = []
        for _ in range(50 + calls):
            if pause:
                time.sleep(pause)
            started = time.perf_counter()
            session.run(None, feeds)
            taken.append(1e3 * (time.perf_counter() - started))
        times[model] = median(taken[50:])
    return times


def command(ensemble, users, requests, out, options):
    """perf_analyzer, with three windows of so many requests."""
    return [
        os.environ["PERF_ANALYZER"], "-m", ensemble, "--input-data", str(users), "--shape", "user_id:1",
        "--measurement-mode=count_windows", f"--measurement-request-count={requests}", "--percentile=95", "-s", "500", "--max-trials", "3",
        "-f", str(out), *options,
    ]


def perf_analyzer(server, requests, users, work, options, environment=None):
    """Latency in ms and throughput, over three windows of so many requests."""
    out = work / "perf_analyzer.csv"
    out.unlink(missing_ok=True)
    said = command(server.ensemble, users, requests, out, options)
    done = subprocess.run(said, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if not out.exists():
        sys.exit(f"perf_analyzer failed on {server.title}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    with out.open() as file:
        (row,) = csv.DictReader(file)
    return {"p50": float(row["p50 latency"]) / 1e3, "p99": float(row["p99 latency"]) / 1e3, "rate": float(row["Inferences/Second"])}


def grpc_options(port, *load):
    return ["-i", "grpc", "-u", f"127.0.0.1:{port}", *load]


def over_grpc(server, concurrency, requests, users, work):
    """A client that keeps so many requests under way."""
    return perf_analyzer(server, requests, users, work, grpc_options(server.grpc, f"--concurrency-range={concurrency}"))


def at_rate(server, rate, requests, users, work):
    """A client that sends so many requests a second, at random moments, whether or not earlier ones are answered."""
    load = [f"--request-rate-range={rate:.1f}", "--request-distribution=poisson"]
    return perf_analyzer(server, requests, users, work, grpc_options(server.grpc, "-a", *load))


@contextlib.contextmanager
def awake():
    """Keeps every core from halting: a process for each spins, which gives way to any other (SCHED_IDLE)."""
    program = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"
    spinning = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(os.cpu_count())]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()


def triton_folder(target, backends):
    """Triton as perf_analyzer wants to find it: lib/libtritonserver.so and backends/."""
    shutil.rmtree(target, ignore_errors=True)
    (target / "lib").mkdir(parents=True)
    (library,) = [path for name, path in triton_libraries().items() if name.startswith("libtritonserver")]
    (target / "lib/libtritonserver.so").symlink_to(library)
    (target / "backends").symlink_to(Path(backends).resolve())
    return target


def in_process(server, triton, requests, users, work):
    """The server's side alone: perf_analyzer loads Triton and calls its C API, one request at a time."""
    options = [
        "--service-kind=triton_c_api", f"--triton-server-directory={triton.resolve()}", f"--model-repository={server.repository.resolve()}",
        "--concurrency-range=1",
    ]
    library = (triton / "lib/libtritonserver.so").resolve()
    # Preloaded, because backends look for Triton's functions among the symbols of the whole process.
    return perf_analyzer(server, requests, users, work, options, {"LD_PRELOAD": str(library), "LD_LIBRARY_PATH": str(library.parent)})


def per_step(before, after):
    """Mean microseconds of a request by model: queue, input, infer, output."""
    rows = {}
    for model, now in after.items():
        count = now["success"]["count"] - before[model]["success"]["count"]
        if count:
            rows[model] = [(now[part]["ns"] - before[model][part]["ns"]) / count / 1e3 for part in PARTS]
    return rows


def queueing(steps, ensemble):
    """Milliseconds that a request waits before its steps, and that the steps take."""
    members = [times for model, times in steps.items() if model != ensemble]
    return {"queue": sum(times[0] for times in members) / 1e3, "service": sum(sum(times[1:]) for times in members) / 1e3}
