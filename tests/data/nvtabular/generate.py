#!/usr/bin/env python3
"""Makes golden cases of this folder with the real NVTabular 23.8 (pins.txt; Python 3.11).

Usage: generate.py [--out FOLDER] [CASE ...]

Each case is a folder with the table that a workflow was fitted on (fit.parquet), the one that it was applied to
(apply.parquet), what came out (expected.parquet), and what NVTabular saved without its pickle (saved/). The tables
are drawn from a fixed seed. The tables of the cases in OLDER were drawn elsewhere: those cases are fitted on the tables
that they have.
"""

import argparse
import json
import pathlib
import shutil
import tempfile
import warnings

warnings.filterwarnings("ignore")

import numpy as np
import nvtabular as nvt
import pandas as pd
import scipy.sparse
from nvtabular import ops

WRITTEN_BY = f"nvtabular 23.8.0, pandas {pd.__version__}, numpy {np.__version__}"


def table(rows, seed):
    """A shop's events: ids, texts with gaps, numbers with gaps."""
    draw = np.random.RandomState(seed)
    table = pd.DataFrame(
        {
            "user_id": (draw.zipf(1.4, rows) % 40).astype("int32"),
            "item_id": draw.randint(0, 300, rows).astype("int64"),
            "brand": draw.choice(["ada", "bee", "cee", "dee", "eff"], rows, p=[0.4, 0.3, 0.15, 0.1, 0.05]),
            "gender": draw.randint(0, 2, rows).astype("int32"),
            "age": draw.randint(18, 90, rows).astype("int64"),
            "price": np.round(draw.gamma(2.0, 10.0, rows), 2).astype("float32"),
            "score": np.where(draw.rand(rows) < 0.1, np.nan, draw.randn(rows) * 3),
            "timestamp": (1_700_000_000 + draw.permutation(rows) * 37).astype("int64"),
            "click": (draw.rand(rows) < 0.3).astype("int32"),
        }
    )
    table.loc[draw.rand(rows) < 0.05, "brand"] = None
    return table


FIT = table(2000, 11)
APPLY = table(300, 12)
# Ids that the fit did not see.
APPLY.loc[::50, "user_id"] = 4000

CATEGORIES = pd.DataFrame({"item_id": np.arange(0, 280), "weight": np.linspace(0.5, 2.0, 280)})
EXTERNAL = pd.DataFrame(
    {
        "item": np.array([1, 2, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233], "int64"),
        "stock": np.arange(13, dtype="int64") * 3,
        "colour": list("rgbrgbrgbrgb") + ["w"],
    }
)
# A matrix of items and words, each item with a few.
_draw = np.random.RandomState(5)
ENTRIES = pd.DataFrame(
    {
        "row": np.repeat(np.arange(300), 4),
        "column": np.concatenate([_draw.choice(50, 4, replace=False) for _ in range(300)]),
        "value": np.round(_draw.rand(1200) + 0.1, 3),
    }
).astype({"row": "int64", "column": "int64"})


def matrix():
    return scipy.sparse.coo_matrix((ENTRIES.value.values, (ENTRIES.row.values, ENTRIES.column.values)))


def pairs(frame):
    frame = frame[["item_id"]].copy()
    frame["other_id"] = frame["item_id"].values[::-1].copy()
    return frame


SESSIONS = ["user_id", "timestamp", "price", "score", "brand"]

CASES = {
    "target_encoding_kfold": lambda: (
        ["user_id", "gender"] >> ops.TargetEncoding("click", kfold=3, fold_seed=42, p_smooth=10),
        ["user_id", "gender", "click"],
        "TargetEncoding(kfold=3): fitted and applied out of fold, by the row's number",
        {},
    ),
    "target_encoding_folds_in_turn": lambda: (
        [["user_id", "gender"]] >> ops.TargetEncoding("click", kfold=5, fold_seed=None),
        ["user_id", "gender", "click"],
        "TargetEncoding of a pair of columns (kfold=5, fold_seed=None)",
        {},
    ),
    "drop_low_cardinality": lambda: (
        ["gender", "brand", "age"] >> ops.Categorify() >> ops.DropLowCardinality(6),
        ["gender", "brand", "age"],
        "Categorify, DropLowCardinality(6): gender goes",
        {},
    ),
    "filter": lambda: (
        ["price", "age", "brand"] >> ops.Filter(lambda df: ((df["price"] >= 20) & (df["age"] < 65)) | (df["brand"] == "eff")),
        ["price", "age", "brand"],
        "Filter of (price >= 20 and age < 65) or brand == 'eff'",
        {},
    ),
    "dropna": lambda: (["score", "price"] >> ops.Dropna(), ["score", "price"], "Dropna", {}),
    "groupby": lambda: (
        SESSIONS
        >> ops.Groupby(
            groupby_cols=["user_id"],
            sort_cols=["timestamp"],
            aggs={
                "price": ["list", "sum", "mean", "std", "var", "min", "max", "median"],
                "score": ["first", "last", "count", "mean"],
                "brand": ["nunique", "last"],
                "timestamp": ["first", "last"],
            },
        ),
        SESSIONS,
        "Groupby, sorted by time",
        {},
    ),
    "groupby_descending": lambda: (
        ["user_id", "gender", "timestamp", "price"]
        >> ops.Groupby(
            groupby_cols=["user_id", "gender"],
            sort_cols=["timestamp"],
            ascending=False,
            aggs={"price": ["list", "first", "last"]},
            name_sep="-",
        ),
        ["user_id", "gender", "timestamp", "price"],
        "Groupby of two keys, sorted by time, latest first: first is the earliest all the same",
        {},
    ),
    "join_external": lambda: (
        ["item_id", "price"] >> ops.JoinExternal(EXTERNAL, on="item_id", on_ext="item", columns_ext=["item", "stock", "colour"]),
        ["item_id", "price"],
        "JoinExternal, left: an item with two rows is repeated",
        {"external.parquet": EXTERNAL},
    ),
    "join_external_inner": lambda: (
        ["item_id", "price"]
        >> ops.JoinExternal(
            EXTERNAL.rename(columns={"item": "item_id"})[["item_id", "colour"]],
            on="item_id",
            how="inner",
            columns_ext=["item_id", "colour"],
            drop_duplicates_ext=True,
        ),
        ["item_id", "price"],
        "JoinExternal, inner, on a column of one name",
        {"external.parquet": EXTERNAL.rename(columns={"item": "item_id"})[["item_id", "colour"]]},
    ),
    **{
        f"column_similarity_{metric}": lambda metric=metric: (
            [["item_id", "other_id"]] >> ops.ColumnSimilarity(matrix(), metric=metric, on_device=False),
            ["item_id", "other_id"],
            f"ColumnSimilarity({metric})",
            {"matrix.parquet": ENTRIES},
        )
        for metric in ("tfidf", "cosine", "inner")
    },
    "reduce_dtype_size": lambda: (
        ["age", "user_id", "item_id", "timestamp", "score", "price"] >> ops.ReduceDtypeSize(),
        ["age", "user_id", "item_id", "timestamp", "score", "price"],
        "ReduceDtypeSize: int8, int8, int16, int32, float32, float32",
        {},
    ),
    "data_stats": lambda: (
        ["age", "score", "brand"] >> ops.DataStats(),
        ["age", "score", "brand"],
        "DataStats: the columns as they are, and what is recorded of them",
        {},
    ),
    "tags": lambda: (
        (["user_id"] >> ops.Categorify() >> ops.TagAsUserID())
        + (["item_id"] >> ops.Categorify() >> ops.TagAsItemID())
        + (["age"] >> ops.Normalize() >> ops.TagAsUserFeatures())
        + (["price"] >> ops.AddMetadata(tags=["item", "context"], properties={"unit": "euro"})),
        ["user_id", "item_id", "age", "price"],
        "Tag operators and AddMetadata",
        {},
    ),
    "list_normalize": lambda: (
        ["words"] >> ops.Normalize(out_dtype=np.float32),
        ["words"],
        "Normalize of lists",
        {},
    ),
}


def categorify(columns, **parameters):
    return columns >> ops.Categorify(dtype=np.int32, **parameters)


def wave(unit, period, function, name):
    values = {
        "hour": lambda t: (t // 3600) % 24,
        "weekday": lambda t: (t // 86400 + 3) % 7,
    }[unit]
    return (
        ["timestamp"]
        >> ops.LambdaOp(values)
        >> ops.LambdaOp(lambda x: function(2 * np.pi * x / period).astype("float32"))
        >> ops.Rename(name=name)
    )


BOUNDS = [18, 25, 35, 50, 65]


def binned():
    return ["age"] >> ops.Bucketize(BOUNDS) >> ops.Rename(name="age_binned")


OLDER = {
    "bucketize": binned,
    "bucketize_categorify": lambda: categorify(binned()),
    "categorify_combo": lambda: categorify([["gender", "brand"]], encode_type="combo"),
    "categorify_freq_buckets": lambda: categorify(["user_id"], freq_threshold=5, num_buckets=8),
    "categorify_freq_threshold": lambda: categorify(["user_id"], freq_threshold=5),
    "categorify_int": lambda: categorify(["user_id", "item_id", "gender"]),
    "categorify_joint": lambda: categorify([["user_id", "item_id"]], encode_type="joint"),
    "categorify_max_size": lambda: categorify(["user_id"], max_size=50),
    "categorify_num_buckets": lambda: categorify(["user_id"], num_buckets=10),
    "categorify_string_null": lambda: categorify(["brand"]),
    "clip": lambda: ["amount"] >> ops.Clip(min_value=-10, max_value=25.5),
    "difference_lag": lambda: ["timestamp"] >> ops.DifferenceLag("user_id", shift=1),
    "fill_median": lambda: ["score"] >> ops.FillMedian(),
    "fill_missing": lambda: ["score"] >> ops.FillMissing(-7),
    "fill_missing_flag": lambda: ["score"] >> ops.FillMissing(0, add_binary_cols=True),
    "hash_bucket": lambda: ["user_id", "item_id"] >> ops.HashBucket({"user_id": 97, "item_id": 13}),
    "hashed_cross": lambda: [["user_id", "item_id"]] >> ops.HashedCross(1000),
    "join_groupby": lambda: ["click"]
    >> ops.JoinGroupby(cont_cols=["price"], stats=["count", "sum", "mean", "std", "min", "max"]),
    "list_categorify": lambda: categorify(["hist"]),
    "list_slice": lambda: ["hist"] >> ops.ListSlice(-3, pad=True),
    "list_slice_head": lambda: ["hist"] >> ops.ListSlice(0, 2),
    "log_normalize": lambda: ["price"] >> ops.LogOp() >> ops.Normalize(out_dtype=np.float32) >> ops.Rename(postfix="_log_norm"),
    "minmax": lambda: ["amount", "age"] >> ops.NormalizeMinMax(),
    "normalize_f32": lambda: ["age"] >> ops.Normalize(out_dtype=np.float32),
    "normalize_f64": lambda: ["amount"] >> ops.Normalize(),
    "target_encoding": lambda: ["brand", "gender"] >> ops.TargetEncoding("click", kfold=1, p_smooth=20),
    "time_features": lambda: wave("hour", 24, np.sin, "hour_sine")
    + wave("hour", 24, np.cos, "hour_cosine")
    + wave("weekday", 7, np.sin, "day_of_week_sine")
    + wave("weekday", 7, np.cos, "day_of_week_cosine"),
    "user_workflow": lambda: categorify(["user_id", "gender"])
    + (["age"] >> ops.Normalize(out_dtype=np.float32) >> ops.Rename(name="age_norm"))
    + categorify(binned()),
    "value_count": lambda: ["hist"] >> ops.ValueCount(),
}


def numbers(workflow):
    """What was fitted, by operator."""
    from merlin.dag import Graph
    from merlin.dag.ops.stat_operator import StatOperator

    fitted = {}
    for node in Graph.get_nodes_by_op_type([workflow.output_node], StatOperator):
        found = {
            name: {str(k): (v if isinstance(v, dict) else float(v)) for k, v in getattr(node.op, name).items()}
            for name in ("means", "stds", "mins", "maxs", "medians")
            if getattr(node.op, name, None)
        }
        if isinstance(node.op, ops.DataStats):
            found = {"columns": json.loads(json.dumps(node.op.output, default=float))}
        if isinstance(node.op, ops.ReduceDtypeSize):
            found = {"ranges": {k: [float(x) for x in v] for k, v in node.op.ranges.items()}}
        if found:
            fitted.setdefault(type(node.op).__name__, {}).update(found)
    return fitted


def with_words(frame, seed):
    draw = np.random.RandomState(seed)
    frame["words"] = [draw.rand(n).tolist() for n in draw.randint(1, 5, len(frame))]
    return frame


def run(output, fit, applied):
    """A workflow fitted on one table, and what it makes of another."""
    workflow = nvt.Workflow(output)
    workflow.fit(nvt.Dataset(fit.copy()))
    # One partition: the folds and groups of a partition are its own.
    return workflow, workflow.transform(nvt.Dataset(applied.copy(), npartitions=1)).to_ddf().compute().reset_index(drop=True)


def refit(case, folder):
    """The workflow of a case fitted anew on the tables of its folder, and what it makes of them."""
    output = OLDER[case]() if case in OLDER else CASES[case]()[0]
    tables = [pd.read_parquet(folder / name) for name in ("fit.parquet", "apply.parquet")]
    for table in tables:
        for name in table.columns:
            if isinstance(table[name].iloc[0], np.ndarray):
                # As lists: ListSlice does not pad arrays.
                table[name] = table[name].map(list)
    return run(output, *tables)


def make(case, folder):
    output, inputs, says, files = CASES[case]()
    fit, applied = FIT, APPLY
    if "other_id" in inputs:
        fit, applied = pairs(FIT), pairs(APPLY)
    if "words" in inputs:
        fit, applied = with_words(FIT[:300].copy(), 3), with_words(APPLY.copy(), 4)
    if case == "target_encoding_folds_in_turn":
        # NVTabular counts rows in a byte here: beyond 256 its folds are no longer in turn.
        fit, applied = fit[:250], applied[:250]
    if case == "reduce_dtype_size":
        # Beyond the fitted range NVTabular's numbers wrap.
        applied = applied[applied.user_id < 4000]
    fit, applied = fit[inputs], applied[inputs]
    workflow, expected = run(output, fit, applied)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fit.to_parquet(folder / "fit.parquet", index=False)
    applied.to_parquet(folder / "apply.parquet", index=False)
    expected.to_parquet(folder / "expected.parquet", index=False)
    for name, frame in files.items():
        frame.to_parquet(folder / name, index=False)
    schema = workflow.output_schema
    about = {
        "case": case,
        "says": says,
        "inputs": inputs,
        "outputs": {name: str(expected[name].dtype) for name in expected.columns},
        "fitted": numbers(workflow),
        "written_by": WRITTEN_BY,
    }
    if case == "tags":
        about["tags"] = {c.name: sorted(tag.value for tag in c.tags) for c in schema}
        about["properties"] = {"price": {"unit": schema["price"].properties["unit"]}}
    (folder / "case.json").write_text(json.dumps(about, indent=1) + "\n")
    categories = workflow_categories(workflow)
    if categories:
        shutil.copytree(categories, folder / "saved" / "categories")


def workflow_categories(workflow):
    """The folder of vocabularies and statistics of a saved workflow, if there are any."""
    saved = pathlib.Path(tempfile.mkdtemp())
    workflow.save(str(saved))
    return saved / "categories" if (saved / "categories").exists() else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent, help="where the cases' folders go")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="default: all but those in OLDER")
    arguments = parser.parse_args()
    arguments.out = arguments.out.resolve()
    import os

    # NVTabular writes its statistics into the current folder.
    os.chdir(tempfile.mkdtemp())
    for case in arguments.cases or CASES:
        if case not in CASES:
            parser.error(f"there is no case '{case}'; the cases are {', '.join(CASES)}")
        make(case, arguments.out / case)
        print(case)


if __name__ == "__main__":
    main()
