"""Shops of any size and how cost grows with it: scripts/benchmark/shop and scripts/bench-scale call this.

    scale.py shop STATE DEFINITION    what `saker prepare` needs beside a generated shop
    scale.py measure …                indexes, vocabularies and transforms, and docs/scale.md of them
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

import scale_report

SEED = 1
# More items than this have narrower embeddings and vectors: an ONNX file holds 2 GiB at most, and the optimiser three numbers for each parameter.
WIDE = scale_report.WIDE
WIDE_DIM, NARROW_DIM = 64, 16
# Scores that validation may hold at a time: users × items.
VALIDATION_SCORES = 100_000_000
EVENTS = "day_00_first_events.parquet"


def say(text):
    print(f"[scale] {text}", flush=True)


def write_beside(path, write):
    """Calls `write` with a name that becomes `path` when the file is whole."""
    beside = path.with_name(f"{path.name}.new")
    write(beside)
    beside.rename(path)


def column(path, name):
    return parquet.read_table(path, columns=[name])[name].to_numpy()


def vectors(path, items, dim, seed):
    """Random vectors in place of those of a text or picture: normal, around a normal centre for each category."""
    random = np.random.default_rng([SEED, seed])
    categories = column(items, "category_l2")
    centres = random.standard_normal((categories.max() + 1, dim), dtype=np.float32)
    made = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(len(categories), dim))
    rows = 1 << 18
    for first in range(0, len(categories), rows):
        part = categories[first:first + rows]
        made[first:first + rows] = (centres[part] + random.standard_normal((len(part), dim), dtype=np.float32)) * np.float32(0.7)
    made.flush()


def first_events(path, source):
    """One view for every item and user that the drawn events leave out, on the first day, so that all of them have a code.

    An item is seen by someone who met an item of its category, a user sees an item that someone of the same gender met.
    """
    random = np.random.default_rng([SEED, 0])
    days = [file for file in sorted(source.glob("day_*.parquet")) if file.name != EVENTS]
    # The last two days are validated and tested on.
    drawn = [parquet.read_table(file, columns=["user_id", "item_id"]) for file in days[:-2]]
    users = np.concatenate([table["user_id"].to_numpy() for table in drawn])
    items = np.concatenate([table["item_id"].to_numpy() for table in drawn])
    all_items, categories = (column(source / "items.parquet", name) for name in ("item_id", "category_l2"))
    all_users, genders = (column(source / "users.parquet", name) for name in ("user_id", "gender"))

    def companions(kinds_of_missing, kinds_of_events):
        """For each missing one, the place of a random event of its kind."""
        order = np.argsort(kinds_of_events, kind="stable")
        sorted_kinds = kinds_of_events[order]
        low = np.searchsorted(sorted_kinds, kinds_of_missing, "left")
        high = np.searchsorted(sorted_kinds, kinds_of_missing, "right")
        low, high = np.where(high > low, low, 0), np.where(high > low, high, len(order))
        return order[random.integers(low, high)]

    missing = ~np.isin(all_items, items)
    of_items = companions(categories[missing], categories[np.searchsorted(all_items, items)])
    absent = ~np.isin(all_users, users)
    of_users = companions(genders[absent], genders[np.searchsorted(all_users, users)])
    rows_users = np.concatenate([users[of_items], all_users[absent]])
    rows_items = np.concatenate([all_items[missing], items[of_users]])
    first = parquet.read_table(days[0], columns=["timestamp"])["timestamp"].to_numpy()
    midnight = first.min() // 86_400 * 86_400
    count = len(rows_users)
    times = np.sort(random.integers(midnight, midnight + 86_400, count)).astype(np.int32)
    shuffled = random.permutation(count)
    table = pa.table({
        "user_id": rows_users[shuffled],
        "item_id": rows_items[shuffled],
        "timestamp": times,
        "device_type": random.integers(0, 3, count).astype(np.int32),
        "event_type": pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int8)), ["view"]).cast(pa.string()),
        "session_id": -1 - np.arange(count, dtype=np.int64),
    })
    parquet.write_table(table, path, compression="zstd")
    say(f"{missing.sum():,} items and {absent.sum():,} users without a training event have one now")


def replaced(text, pattern, by):
    changed, count = re.subn(pattern, lambda _: by, text, count=1, flags=re.S | re.M)
    if count == 0:
        sys.exit(f"error: the definition has nothing like {pattern}")
    return changed


def definition(text, items, dim):
    """The retail definition with vectors from files, and cheap training."""
    embeddings = "".join(
        f'[[item.embeddings]]\nname = "{name}"\ndim = {dim}\nsource = {{ from = "file", path = "{name}.npy" }}\n\n' for name in EMBEDDINGS)
    training = f"""[training]
half_life_days = 4.0
weak_weight = 1.0
cold_start = 0.15
validation_users = {max(16, min(2000, VALIDATION_SCORES // items))}

[training.towers]
epochs = 1
embedding_learning_rate = 3e-3
weight_decay = 5.0
dropout = 0.5

[training.ranker]
epochs = 1
batch_size = 2048
negatives = 1
hard_negatives = 0

"""
    text = replaced(text, r"^\[\[item\.embeddings\]\].*?(?=^\[training\])", embeddings)
    text = replaced(text, r"^\[training\].*?(?=^\[retrieval\])", training)
    return text.replace("embedding_dim = 64", f"embedding_dim = {dim}")


EMBEDDINGS = ["item_image_embeddings", "item_description_embeddings"]


def shop(arguments):
    source = arguments.state / "retail" / "source"
    generated = source / "generator.json"
    items = parquet.read_metadata(source / "items.parquet").num_rows
    dim = WIDE_DIM if items <= WIDE else NARROW_DIM
    for seed, name in enumerate(EMBEDDINGS, 1):
        path = arguments.state / f"{name}.npy"
        if not newer(path, generated):
            write_beside(path, lambda beside: vectors(beside, source / "items.parquet", dim, seed))
    if not newer(source / EVENTS, generated):
        write_beside(source / EVENTS, lambda beside: first_events(beside, source))
    text = definition(arguments.definition.read_text(), items, dim)
    path = arguments.state / "pipeline.toml"
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


SIZES = [49_000, 1_000_000, 10_000_000]
# About 4 √items lists, half as many for the compressed ones of a million, and fewer of ten million: training takes time in proportion to the square of
# their number, adding to their number.
LISTS = {49_000: (1024, 1024), 1_000_000: (4096, 2048), 10_000_000: (2048, 2048)}
PROBES = "nprobe=1,2,4,8,16,32,64,128,256,512,1024"
# Queries: users drawn at random. Exact search of ten million takes most of a second.
QUERIES = {49_000: 1000, 1_000_000: 500, 10_000_000: 200}
FLAT_ITEMS = [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000]
IDS = [1_000_000, 3_000_000, 10_000_000, 30_000_000]


def indexes(items):
    """Factory strings, and what is tried of each; the quickest to build first."""
    lists, of_compressed = LISTS[items]
    plan = [("Flat", "-"), (f"IVF{of_compressed},SQ8", PROBES), (f"IVF{of_compressed},PQ32", PROBES)]
    if items <= WIDE:
        # The graph of ten million takes longer than the limit, and 5 GB.
        plan.append(("HNSW32", "efSearch=300,600,1200,2400,4800"))
    return plan + [(f"IVF{lists},Flat", PROBES)]


def queries(state, count):
    """The trained query tower's vectors of random users."""
    import onnxruntime

    session = onnxruntime.InferenceSession(state / "retail/models/query_tower.onnx", providers=["CPUExecutionProvider"])
    users = parquet.read_table(state / "retail/features/users.parquet")
    rows = np.sort(np.random.default_rng([SEED, 3]).choice(users.num_rows, count, replace=False))
    users = users.take(pa.array(rows))
    return session.run(None, {each.name: users[each.name].to_numpy() for each in session.get_inputs()})[0]


def ran(program, *arguments, limit=None):
    """The JSON lines that the program prints; those of before the limit, and whether it met it."""
    # OpenMP's threads, when they wait, otherwise keep cores busy that another thread could use.
    process = subprocess.Popen([program, *map(str, arguments)], stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    try:
        printed, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        printed, _ = process.communicate()
        return [json.loads(line) for line in printed.splitlines()], False
    if process.returncode != 0:
        sys.exit(f"error: {program} {' '.join(map(str, arguments))} has failed")
    return [json.loads(line) for line in printed.splitlines()], True


def curves(arguments, items, found):
    """Recall against latency of every kind of index over the vectors of a trained shop, one after the other."""
    state = arguments.state / str(items)
    vectors = state / "retail/models/item_vectors.npy"
    asked, exact = state / "queries.npy", state / "exact.npy"
    np.save(asked, queries(state, QUERIES[items]))
    ran(arguments.program, "exact", vectors, asked, exact)
    for factory, sweep in indexes(items):
        if arguments.only and factory not in arguments.only:
            continue
        begun, load = time.monotonic(), os.getloadavg()[0]
        lines, whole = ran(arguments.program, "index", vectors, asked, exact, factory, sweep, limit=arguments.limit)
        say(f"{items:,} items, {factory}: {time.monotonic() - begun:.0f} s" + ("" if whole else ", stopped at the limit"))
        found[:] = [index for index in found if index["factory"] != factory]
        found.append({"factory": factory, "lines": lines, "whole": whole, "load": load})
        yield found


def flat(arguments, size):
    state = arguments.state / str(size)
    vectors = state / "retail/models/item_vectors.npy"
    np.save(state / "queries.npy", queries(state, QUERIES[size]))
    wanted = [items for items in FLAT_ITEMS if items <= size]
    return [ran(arguments.program, "index", vectors, state / "queries.npy", "-", "Flat", "-", items)[0][0] for items in wanted]


def generated(state):
    """How large the shop is that was measured."""
    settings = json.loads((state / "retail/source/generator.json").read_text())["settings"]
    ranker = (state / "retail/models/dlrm_ranking.onnx").exists()
    return {"users": settings["users"], "interactions": settings["interactions"], "trained": "towers and ranker" if ranker else "towers"}


def vocabularies(arguments):
    found = []
    for kind in ["dense", "sparse"]:
        for ids in IDS:
            folder = arguments.state / "vocabulary"
            ran(arguments.program, "vocabulary-make", ids, kind, folder)
            lines, _ = ran(arguments.program, "vocabulary", folder)
            say(f"{ids:,} {kind} ids: {lines[0]['bytes'] / ids:.0f} bytes each")
            found.append({"kind": kind, **lines[0]})
    return found


def measure(arguments):
    """Measures what is asked for, keeps it beside the shops, and writes the document of all that is kept."""
    kept = arguments.state / "measured.json"
    measured = json.loads(kept.read_text()) if kept.exists() else {}

    load = os.getloadavg()[0]

    def keep(name, make, **more):
        measured[name] = {"date": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC", "load": load, "found": make(), **more}
        kept.write_text(json.dumps(measured, indent=1))

    for part in arguments.parts:
        if part == "features":
            keep(part, lambda: ran(arguments.program, "features")[0])
        elif part == "vocabularies":
            keep(part, lambda: vocabularies(arguments))
        elif part == "items":
            sizes = [size for size in SIZES if size <= FLAT_ITEMS[-1] and (arguments.state / str(size) / "retail/models/item_vectors.npy").exists()]
            keep(part, lambda: flat(arguments, max(sizes)))
        else:
            found = measured.get(part, {"found": []})["found"] if arguments.only else []
            shop_measured = generated(arguments.state / part)
            for _ in curves(arguments, int(part), found):
                missing = [factory for factory, _ in indexes(int(part)) if factory not in [index["factory"] for index in found]]
                keep(part, lambda: found, shop=shop_measured, missing=missing)
    scale_report.write(measured, arguments.out)


def newer(path, than):
    return path.exists() and path.stat().st_mtime >= than.stat().st_mtime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("shop", help="vectors, first events and definition of a generated shop")
    command.add_argument("state", type=Path, metavar="STATE")
    command.add_argument("definition", type=Path, metavar="DEFINITION")
    command.set_defaults(run=shop)
    command = commands.add_parser("measure", help="measures and writes docs/scale.md")
    command.add_argument("--state", type=Path, required=True, metavar="FOLDER", help="folder of the shops, one for each size")
    command.add_argument("--program", type=Path, required=True, metavar="FILE", help="what benches/scale.rs is compiled to")
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of scale.md and its plots")
    command.add_argument("--limit", type=float, default=900, metavar="SECONDS", help="longest time for one index (default: 900)")
    command.add_argument("--only", action="append", metavar="FACTORY", help="index to measure again, the others staying as they are; several times for several")
    command.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(map(str, SIZES))}, items, features, vocabularies")
    command.set_defaults(run=measure)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
