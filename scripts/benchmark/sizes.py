"""The systems on shops of other sizes: more users, more items, another index."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.parquet as parquet
import redis

import measure
import systems

HERE = Path(__file__).resolve().parent
# What docs/scale.md recommends for a catalogue of that size.
IVF = ("IVF4096,Flat", "nprobe=128")
FLAT = ("Flat", "")
# Items, users, the index and the systems that are measured. The Python systems take minutes to load the largest shop.
SIZES = [
    (2_465, 300_000, FLAT, list(systems.TITLES)),
    (49_000, 300_000, FLAT, list(systems.TITLES)),
    (1_000_000, 3_000_000, FLAT, systems.RUST),
    (1_000_000, 3_000_000, IVF, systems.RUST),
]
INTERACTIONS = 2_500_000
ROUNDS = 2
# Steps of the 14 whose cost could grow, with what.
STEPS = ["feast_user_lookup", "nvt_user_transform", "query_tower", "faiss_retrieval", "filter_seen_items", "feast_item_lookup",
         "nvt_item_transform", "multimodal_embedding_lookup", "dlrm_ranking"]


def with_index(definition, index):
    """Writes the index into the definition's [retrieval]."""
    kind, search = index
    text = re.sub(r"^\[retrieval\]\n(index|search_parameters) = .*\n(search_parameters = .*\n)?", "[retrieval]\n", definition.read_text(),
                  flags=re.MULTILINE)
    lines = f'[retrieval]\nindex = "{kind}"\n' + (f'search_parameters = "{search}"\n' if search else "")
    definition.write_text(text.replace("[retrieval]\n", lines))


def measured(arguments, work, say):
    """What was found of each size."""
    return [Size(arguments, work, say, *size).measured() for size in SIZES]


class Size:
    """One shop and the systems on it."""

    def __init__(self, arguments, work, say, items, users, index, names):
        self.arguments, self.say = arguments, say
        self.items, self.users, self.index = items, users, index
        self.names = [name for name in names if name == "saker" or name in arguments.systems]
        self.state = (arguments.sizes / str(items)).resolve()
        self.work = work / "sizes"
        self.title = f"{items:,} items, {users:,} users, {index[0]}"

    def saker(self, *words):
        command = [self.arguments.saker, *words, "--pipeline", self.state / "pipeline.toml", "--state", self.state]
        subprocess.run(command, check=True, env={**os.environ, "SAKER_STATE": str(self.state)}, stdout=subprocess.DEVNULL)

    def prepare(self):
        """Makes the shop where it is not there, and puts it in store and repository."""
        self.say(f"preparing {self.title}")
        subprocess.run([HERE / "shop", str(self.items), str(self.users), str(INTERACTIONS), str(self.state)], check=True)
        with_index(self.state / "pipeline.toml", self.index)
        self.saker("index")
        # The store holds one shop at a time: which one, it says itself.
        store = redis.Redis(port=6379)
        mark = str(self.state)
        if store.get("bench:shop") != mark.encode():
            store.flushall()
            self.saker("materialize", "--seen")
            store.set("bench:shop", mark)
        # One release at a time lies on the disk.
        shutil.rmtree(self.state / "retail/repository", ignore_errors=True)
        self.saker("assemble", "--force")

    def measured(self):
        self.prepare()
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        found = {"items": self.items, "users": self.users, "index": self.index, "starts": {}, "grpc": {}, "steps": [], "alone": []}
        ids = parquet.read_table(self.state / "retail/data/users.parquet").column("user_id").to_numpy()
        ids = np.random.default_rng(1).permutation(ids)
        users = self.work / "users.json"
        users.write_text(json.dumps({"data": [{"user_id": {"content": [int(user)], "shape": [1]}} for user in ids[:2000]]}))
        source = self.state / "retail/repository"
        servers = [systems.prepared(name, source, self.work, 18400 + 10 * place) for place, name in enumerate(self.names)]
        found["both"] = self.both(source, ids)
        try:
            for server in servers:
                found["starts"][server.name] = server.start()
                self.say(f"{server.title}: ready in {found['starts'][server.name]:.1f} s")
            found["furthest"] = systems.compare(servers, ids[:50])
            for _ in range(ROUNDS):
                found["alone"].append(sum(measure.onnx_alone(servers[0].repository, 300, 300).values()))
                for concurrency in (1, 4):
                    for server in servers:
                        self.over_grpc(found, server, concurrency, users)
            found["memory"] = {server.name: server.resident_megabytes() for server in servers}
        finally:
            for server in servers:
                server.stop()
            shutil.rmtree(self.work, ignore_errors=True)
        return found

    def both(self, source, ids):
        """Seconds until ready, and memory after some thousand requests, of a Triton with both ensembles."""
        backends = os.environ["SAKER_BACKENDS"]
        server = systems.Server("both", source, systems.ENSEMBLE, backends, 18500, self.work, others=[systems.FUSED])
        try:
            ready = server.start()
            for user in ids[:2000]:
                server.ask(int(user))
                server.ask(int(user), systems.FUSED)
            return {"ready": ready, "memory": server.resident_megabytes()}
        finally:
            server.stop()

    def over_grpc(self, found, server, concurrency, users):
        requests = max(10, self.arguments.requests // systems.FEWER.get(server.name, 1) // 2)
        before = server.statistics()
        figures = measure.over_grpc(server, concurrency, requests, users, self.work)
        found["grpc"].setdefault((server.name, concurrency), []).append(figures)
        if (server.name, concurrency) == ("saker", 1):
            found["steps"].append(measure.per_step(before, server.statistics()))
        self.say(f"{self.title}, {concurrency} at a time, {server.title}: p50 {figures['p50']:.2f} ms, {figures['rate']:.0f}/s")


def infer(size, step):
    """Mean µs of a request in a step of the 14, without waiting for it."""
    return median([steps[step][2] for steps in size["steps"]])
