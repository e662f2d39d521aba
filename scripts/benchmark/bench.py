"""Measures Saker's ensembles beside the same steps as Python models, and beside ONNX Runtime alone; scripts/bench calls this.

All systems run the same Triton, release and stores, each in a server of its own. First they must return the same ids. Then they are measured in
turn, round by round (A B A B), so that what else happens on the machine meets all; every number is the median of the rounds, with the lowest and
the highest.
"""

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet

import measure
import report
import sizes
import systems
from machine import machine

ROOT = Path(__file__).resolve().parents[2]
OTHER_CANDIDATES = [100, 1000]
# Of the rate that a system reaches 4 at a time.
LOADS = [0.25, 0.5, 0.75]


def say(text):
    print(f"[bench] {text}", flush=True)


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True, metavar="FOLDER",
                        help="folder of the prepared retail shop, such as .saker/retail")
    parser.add_argument("--systems", nargs="+", choices=systems.TITLES, default=list(systems.TITLES), metavar="NAME",
                        help=f"what to measure beside the first, which is always measured: {', '.join(systems.TITLES)} (default: all)")
    parser.add_argument("--rounds", type=int, help="times that each system is measured (default: 3, quick: 1)")
    parser.add_argument("--requests", type=int,
                        help="requests of one of three windows; the slow systems get fewer (default: 1500, quick: 1000)")
    parser.add_argument("--users", type=int, help="users whose answers are compared first (default: 200, quick: 50)")
    parser.add_argument("--quick", action="store_true",
                        help="one round of fewer requests, and neither Poisson rates nor other numbers of candidates, items and users")
    parser.add_argument("--sizes", type=Path, metavar="FOLDER", help="where the shops of other sizes lie or are made; left out: none is measured")
    parser.add_argument("--saker", type=Path, metavar="FILE", help="the saker program, which materialises the shops of --sizes")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", metavar="FOLDER",
                        help="folder of benchmarks.md and its charts (default: docs)")
    arguments = parser.parse_args()
    for name, usual, quick in [("rounds", 3, 1), ("requests", 1500, 1000), ("users", 200, 50)]:
        if getattr(arguments, name) is None:
            setattr(arguments, name, quick if arguments.quick else usual)
    return arguments


class Bench:
    """The systems and what was found of them: lists with an entry for each round."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.work = arguments.state / "bench"
        self.work.mkdir(parents=True, exist_ok=True)
        self.load_before = os.getloadavg()[1]
        self.machine = f"{machine()}, Linux {platform.release().split('-')[0]}"
        self.item_count = parquet.read_metadata(arguments.state / "data/items.parquet").num_rows
        ids = parquet.read_table(arguments.state / "data/users.parquet").column("user_id").to_numpy()
        self.user_count = len(ids)
        self.ids = np.random.default_rng(1).permutation(ids)
        self.users = self.work / "users.json"
        data = [{"user_id": {"content": [int(user)], "shape": [1]}} for user in self.ids[:2000]]
        self.users.write_text(json.dumps({"data": data}))
        self.triton = measure.triton_folder(self.work / "triton", os.environ["SAKER_BACKENDS"])

        source = arguments.state / "repository"
        names = [name for name in systems.TITLES if name == "saker" or name in arguments.systems]
        if "fused" in names and not (source / systems.FUSED).exists():
            say(f"{source} has no {systems.FUSED}: left out")
            names.remove("fused")
        self.servers = [systems.prepared(name, source, self.work, 18100 + 10 * place) for place, name in enumerate(names)]
        self.rust = [server for server in self.servers if server.name in systems.RUST]
        # The Rust systems again, with other numbers of candidates.
        self.others = {}
        if not arguments.quick:
            for candidates in OTHER_CANDIDATES:
                for server in self.rust:
                    port = 18200 + 10 * len(self.others)
                    self.others[server.name, candidates] = systems.with_candidates(server, source, candidates, self.work, port)

        self.versions = []
        self.starts, self.memory = {}, {}
        self.furthest = 0.0
        self.alone = defaultdict(list)  # by number of candidates
        self.rested = []  # of CANDIDATES, with sleep before each run
        self.server_side = defaultdict(list)  # by system
        self.grpc = defaultdict(list)  # by system and concurrency
        self.steps = defaultdict(list)  # by system and concurrency
        self.tails = defaultdict(list)  # by system and load
        self.awake = defaultdict(list)  # by system, and whether in the server or over gRPC
        self.candidates = defaultdict(list)  # by system and number of candidates
        self.sizes = []

    def run(self):
        started = [*self.servers, *self.others.values()]
        try:
            for server in started:
                self.starts[server.name] = server.start()
                say(f"{server.title}: ready in {self.starts[server.name]:.1f} s")
            self.versions = measure.versions(self.servers[0])
            self.furthest = systems.compare(self.servers, self.ids[: self.arguments.users])
            say(f"the same ids for {self.arguments.users + 2} users, scores within {self.furthest:.1e}")
            for candidates in OTHER_CANDIDATES if self.others else []:
                systems.compare([self.others[server.name, candidates] for server in self.rust], self.ids[:20])
            for number in range(1, self.arguments.rounds + 1):
                self.round(number)
            self.memory = {server.name: server.resident_megabytes() for server in self.servers}
        finally:
            for server in started:
                server.stop()

    def round(self, number):
        """Measures each system in each way once."""

        def found(what, figures):
            say(f"round {number}, {what}: p50 {figures['p50']:.2f} ms, p99 {figures['p99']:.2f} ms, {figures['rate']:.0f}/s")

        requests = self.arguments.requests
        few = lambda server: max(10, requests // systems.FEWER.get(server.name, 1))
        for candidates in [report.CANDIDATES] + (OTHER_CANDIDATES if self.others else []):
            self.alone[candidates].append(measure.onnx_alone(self.servers[0].repository, candidates, 400))
        self.rested.append(sum(measure.onnx_alone(self.servers[0].repository, report.CANDIDATES, 400, pause=0.001).values()))
        for server in self.rust:
            figures = measure.in_process(server, self.triton, requests, self.users, self.work)
            self.server_side[server.name].append(figures)
            found(f"in the server, {server.title}", figures)
        for concurrency in report.CONCURRENCY:
            for server in self.servers:
                before = server.statistics()
                figures = measure.over_grpc(server, concurrency, few(server), self.users, self.work)
                self.grpc[server.name, concurrency].append(figures)
                self.steps[server.name, concurrency].append(measure.per_step(before, server.statistics()))
                found(f"{concurrency} at a time, {server.title}", figures)
        if self.arguments.quick:
            return
        with measure.awake():
            for server in self.rust:
                figures = measure.in_process(server, self.triton, requests, self.users, self.work)
                self.awake[server.name, "server"].append(figures)
                found(f"in the server with cores that do not halt, {server.title}", figures)
                figures = measure.over_grpc(server, 1, requests, self.users, self.work)
                self.awake[server.name, "grpc"].append(figures)
                found(f"with cores that do not halt, {server.title}", figures)
        for load in LOADS:
            for server in self.servers:
                rate = load * self.grpc[server.name, 4][-1]["rate"]
                # For as long at each load.
                figures = measure.at_rate(server, rate, max(10, int(2 * load * few(server))), self.users, self.work)
                self.tails[server.name, load].append(figures)
                found(f"{rate:.0f} a second, {server.title}", figures)
        for (name, candidates), server in self.others.items():
            figures = measure.over_grpc(server, 1, requests // 3, self.users, self.work)
            self.candidates[name, candidates].append(figures)
            found(f"{candidates} candidates, {name}", figures)


def main():
    arguments = parsed()
    # A server must not outlive this program.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    bench = Bench(arguments)
    bench.run()
    if arguments.sizes and not arguments.quick:
        bench.sizes = sizes.measured(arguments, bench.work, say)
    report.write(bench, arguments.out)
    say(f"{arguments.out / 'benchmarks.md'}, in {(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
