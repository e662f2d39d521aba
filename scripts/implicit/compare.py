"""The half of scripts/compare-implicit that needs the library implicit: makes the split, tunes BPR and ALS, measures.

The split by time of `saker prepare` is used as a random one: the times that `split` writes are places in a random order
of each user's ratings. `measure` reads the rows that came out of it, so that both sides learn from the same ones.
"""

import argparse
import csv
import itertools
import json
import os
import random
from pathlib import Path

# One thread per product: the matrices are small, and threads of BLAS would fight with those of implicit.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pyarrow.parquet as parquet
from implicit.als import AlternatingLeastSquares
from implicit.bpr import BayesianPersonalizedRanking
from scipy.sparse import csr_matrix

POSITIVE_FROM = 3
LENGTH = 10

ALS = {
    "factors": [32, 64, 128, 256],
    "regularization": [1.0, 10.0, 30.0, 60.0],
    "alpha": [1.0, 5.0, 20.0],
    "iterations": [15],
}
BPR = {
    "factors": [64, 128, 256],
    "learning_rate": [0.01, 0.03],
    "regularization": [0.01, 0.03, 0.1],
    "iterations": [200, 400, 800],
}


def split(ratings: Path, seed: int, out: Path) -> None:
    """Writes the positive ratings with a random place in each user's order as their time."""
    with ratings.open(newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        positive = [
            (int(row["user_id:token"]), int(row["item_id:token"]), row["rating:float"])
            for row in rows
            if float(row["rating:float"]) >= POSITIVE_FROM
        ]
    # The order of the file must not matter.
    positive.sort()
    random.Random(seed).shuffle(positive)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        file.write("user_id:token\titem_id:token\trating:float\ttimestamp:float\n")
        for place, (user, item, rating) in enumerate(positive):
            file.write(f"{user}\t{item}\t{rating}\t{place + 1}\n")


class Data:
    """The rows of one split, as matrices of users and items."""

    def __init__(self, folder: Path):
        rows = parquet.read_table(folder / "data/interactions.parquet")
        users, user = np.unique(rows["user_id"].to_numpy(), return_inverse=True)
        items, item = np.unique(rows["item_id"].to_numpy(), return_inverse=True)
        part = np.array(rows["split"].to_pylist())
        self.shape = (len(users), len(items))
        self.of = {name: self.matrix(user[part == name], item[part == name]) for name in ("train", "validation", "test")}

    def matrix(self, user: np.ndarray, item: np.ndarray) -> csr_matrix:
        return csr_matrix((np.ones(len(user), dtype=np.float32), (user, item)), shape=self.shape)

    def measure(self, model, part: str) -> dict[str, float]:
        """NDCG@10 and recall@10, means over the users of the part, as `saker evaluate` defines them."""
        seen = self.of["train"] if part == "validation" else self.of["train"] + self.of["validation"]
        held = self.of[part]
        users = np.flatnonzero(np.diff(held.indptr))
        lists, _ = model.recommend(users, seen[users].tocsr(), N=LENGTH, filter_already_liked_items=True)
        discounts = 1.0 / np.log2(np.arange(2, LENGTH + 2))
        ndcg, recall = [], []
        for user, ranked in zip(users, lists):
            relevant = held.indices[held.indptr[user] : held.indptr[user + 1]]
            hits = np.isin(ranked, relevant)
            ndcg.append(discounts[hits].sum() / discounts[: min(len(relevant), LENGTH)].sum())
            recall.append(hits.sum() / len(relevant))
        return {"ndcg@10": float(np.mean(ndcg)), "recall@10": float(np.mean(recall)), "users": len(users)}


def als(settings: dict, seed: int, train: csr_matrix):
    model = AlternatingLeastSquares(**settings, random_state=seed)
    model.fit(train, show_progress=False)
    return model


def bpr(settings: dict, seed: int, train: csr_matrix):
    # With one thread the same seed gives the same model.
    model = BayesianPersonalizedRanking(**settings, random_state=seed, num_threads=1)
    model.fit(train, show_progress=False)
    return model


def tuned(name: str, fit, grid: dict[str, list], data: Data, seed: int) -> dict:
    """The settings with the best NDCG@10 on the validation part, and what they give on the test part."""
    best = None
    for values in itertools.product(*grid.values()):
        settings = dict(zip(grid, values))
        model = fit(settings, seed, data.of["train"])
        validation = data.measure(model, "validation")
        if best is None or validation["ndcg@10"] > best["validation"]["ndcg@10"]:
            best = {"method": name, "settings": settings, "validation": validation, "test": data.measure(model, "test")}
    return best


def measure(folder: Path, seed: int) -> None:
    data = Data(folder)
    evaluation = json.loads((folder / "models/metrics.json").read_text())
    ours = {method["method"]: method["list"] for method in evaluation["methods"]}["retrieval"]
    methods = [
        tuned("ALS (implicit)", als, ALS, data, seed),
        tuned("BPR (implicit)", bpr, BPR, data, seed),
    ]
    users = methods[0]["test"]["users"]
    if users != evaluation["users"]:
        raise SystemExit(f"implicit was measured on {users} users, saker on {evaluation['users']}")
    methods.insert(
        0,
        {
            "method": "two towers (saker)",
            "settings": "scripts/implicit/pipeline.toml",
            "test": {"ndcg@10": ours["ndcg_10"], "recall@10": ours["recall_10"], "users": users},
        },
    )
    (folder / "comparison.json").write_text(json.dumps(methods, indent=2) + "\n")
    print(f"seed {seed}, {users} users, test part")
    print(f"{'':22} {'NDCG@10':>8} {'recall@10':>10}  settings")
    for method in methods:
        test = method["test"]
        print(f"{method['method']:22} {test['ndcg@10']:8.4f} {test['recall@10']:10.4f}  {method['settings']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("split")
    command.add_argument("--ratings", type=Path, required=True)
    command.add_argument("--seed", type=int, required=True)
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(run=split)
    command = commands.add_parser("measure")
    command.add_argument("--data", dest="folder", type=Path, required=True)
    command.add_argument("--seed", type=int, required=True)
    command.set_defaults(run=measure)
    arguments = vars(parser.parse_args())
    arguments.pop("run")(**arguments)


if __name__ == "__main__":
    main()
