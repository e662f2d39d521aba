"""Every operator over columns of every type, with its parameters, alone and in chains: fitted and applied by the real NVTabular, exported.

Usage: matrix.py EXPORTER OUT_DIR [EVERY]

With EVERY, only each workflow of that many: 3 takes a third of the types for each operator, and a third of the operators for each type.

OUT_DIR/apply.parquet is what the workflows are applied to. For each that NVTabular can fit and apply, OUT_DIR/<case>/exported is the exporter's
folder and OUT_DIR/<case>/expected.parquet NVTabular's output. OUT_DIR/failed.txt names the others, with what NVTabular says. A workflow
that cannot be exported leaves the reason in OUT_DIR/<case>/refused.txt.
"""

import importlib.machinery
import importlib.util
import itertools
import logging
import os
import pathlib
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.ERROR)
sys.dont_write_bytecode = True

import dask
import numpy as np
import nvtabular as nvt
import pandas as pd
from nvtabular import ops

dask.config.set(scheduler="synchronous")
exporter_path, out = (pathlib.Path(path).resolve() for path in sys.argv[1:3])
loader = importlib.machinery.SourceFileLoader("exporter", str(exporter_path))
exporter = importlib.util.module_from_spec(importlib.util.spec_from_loader("exporter", loader))
loader.exec_module(exporter)


def table(seed, rows, values):
    """A column of each type. `values` bounds the distinct values: the table that is applied has more than the one that is fitted, but for some
    columns, since NVTabular fails on unseen keys."""
    random = np.random.default_rng(seed)
    missing = np.arange(rows) % 5 == 2
    numbers = random.integers(1, values, rows)
    texts = np.array([f"v{n}" for n in random.integers(1, values, rows)], dtype=object)
    lengths = random.integers(1, 5, rows)
    columns = {
        "int8": numbers.astype("int8"),
        "int16": random.integers(1, 9, rows).astype("int16"),
        "int32": numbers.astype("int32"),
        "int64": random.permutation(numbers),
        "uint8": random.permutation(numbers).astype("uint8"),
        "far": random.integers(1, values, rows) * 10**12 - 3 * 10**12,
        "float32": random.normal(5, 3, rows).astype("float32"),
        "float64": random.normal(5, 3, rows),
        "gaps": np.where(missing, np.nan, random.normal(5, 3, rows)),
        "gaps32": np.where(missing, np.nan, random.normal(5, 3, rows)).astype("float32"),
        "whole": random.integers(1, 9, rows).astype("float64"),
        "text": texts,
        "maybe": np.where(missing, None, random.choice(["red", "green", "blue", "black"], rows)),
        "bool": random.integers(0, 2, rows).astype(bool),
        "when": (random.integers(10**8, 2 * 10**9, rows) * 10**9).astype("datetime64[ns]"),
        "lists": [random.integers(1, values, length) for length in lengths],
        "texts": [list(random.choice(texts, length)) for length in random.permutation(lengths)],
        "fractions": [random.normal(5, 3, length) for length in random.permutation(lengths)],
        # For operators that read other columns.
        "key": random.integers(1, 5, rows),
        "target": random.normal(0, 1, rows),
        "click": random.integers(0, 2, rows),
        "order": random.permutation(rows),
    }
    frame = pd.DataFrame(columns)
    frame["nothing"] = np.nan
    frame["since"] = frame["when"].mask(missing)
    return frame


KINDS = ["int8", "int16", "int32", "int64", "uint8", "far", "float32", "float64", "gaps", "gaps32", "whole", "nothing", "text", "maybe", "bool"]
KINDS += ["when", "since", "lists", "texts", "fractions"]
STATISTICS = ["count", "sum", "mean", "std", "var", "min", "max"]
AGGREGATIONS = ["list", "first", "last", "count", "nunique", "sum", "mean", "std", "var", "median", "min", "max"]

# Each with what makes it: an operator is used once.
ALONE = {
    "Categorify": ops.Categorify,
    "Categorify_buckets": lambda: ops.Categorify(num_buckets=3),
    "Categorify_rare": lambda: ops.Categorify(freq_threshold=6),
    "Categorify_size": lambda: ops.Categorify(max_size=6),
    "Categorify_rare_buckets": lambda: ops.Categorify(freq_threshold=6, num_buckets=4),
    "Categorify_size_buckets": lambda: ops.Categorify(max_size=8, num_buckets=2, dtype=np.int32),
    "HashBucket": lambda: ops.HashBucket(7),
    "Bucketize": lambda: ops.Bucketize([2, 4.5, 7]),
    "LogOp": ops.LogOp,
    "Normalize": ops.Normalize,
    "Normalize_float32": lambda: ops.Normalize(out_dtype=np.float32),
    "NormalizeMinMax": ops.NormalizeMinMax,
    "NormalizeMinMax_float32": lambda: ops.NormalizeMinMax(out_dtype=np.float32),
    "Clip_least": lambda: ops.Clip(min_value=3),
    "Clip_most": lambda: ops.Clip(max_value=6),
    "Clip": lambda: ops.Clip(min_value=2, max_value=7),
    "FillMissing": ops.FillMissing,
    "FillMissing_flag": lambda: ops.FillMissing(3, add_binary_cols=True),
    "FillMedian": ops.FillMedian,
    "FillMedian_flag": lambda: ops.FillMedian(add_binary_cols=True),
    "ListSlice_head": lambda: ops.ListSlice(2),
    "ListSlice_tail": lambda: ops.ListSlice(-2),
    "ListSlice": lambda: ops.ListSlice(1, 3),
    "ListSlice_negative": lambda: ops.ListSlice(-3, -1),
    "ValueCount": ops.ValueCount,
    "DifferenceLag": lambda: ops.DifferenceLag(partition_cols=["key"]),
    "DifferenceLag_both": lambda: ops.DifferenceLag(partition_cols=["key"], shift=[-1, 2]),
    "JoinGroupby": lambda: ops.JoinGroupby(cont_cols=["target", "click"], stats=STATISTICS),
    "JoinGroupby_count": lambda: ops.JoinGroupby(cont_cols=["target"], stats=["count"]),
    "TargetEncoding": lambda: ops.TargetEncoding(["click"], kfold=1, p_smooth=7),
    "TargetEncoding_folds": lambda: ops.TargetEncoding(["target"], kfold=2, fold_seed=7),
    "ReduceDtypeSize": ops.ReduceDtypeSize,
    "DataStats": ops.DataStats,
    "Rename": lambda: ops.Rename(postfix="_new"),
    "AddMetadata": lambda: ops.AddMetadata(tags=["shop"], properties={"unit": "euro"}),
    "TagAsUserID": ops.TagAsUserID,
    "TagAsItemFeatures": ops.TagAsItemFeatures,
    "Lambda_twice": lambda: ops.LambdaOp(lambda x: x * 2),
    "Lambda_half": lambda: ops.LambdaOp(lambda x: x / 2 + 1),
    "Lambda_greater": lambda: ops.LambdaOp(lambda x: x > 4),
    "Lambda_equal": lambda: ops.LambdaOp(lambda x: (x == 4).astype("int8")),
    "Lambda_float32": lambda: ops.LambdaOp(lambda x: x.astype("float32")),
    "Lambda_sine": lambda: ops.LambdaOp(lambda x: np.sin(2 * np.pi * x / 12)),
    "Lambda_month": lambda: ops.LambdaOp(lambda t: t.dt.month),
    "Dropna": ops.Dropna,
}
# What takes codes alone.
OF_CODES = {"DropLowCardinality": lambda: ops.DropLowCardinality(4)}
# Over the columns of two types.
PAIRS = {
    "Categorify": lambda a, b: [a, b] >> ops.Categorify(),
    "Categorify_joint": lambda a, b: [[a, b]] >> ops.Categorify(encode_type="joint"),
    "Categorify_combo": lambda a, b: [[a, b]] >> ops.Categorify(encode_type="combo"),
    "HashedCross": lambda a, b: [[a, b]] >> ops.HashedCross(11),
    "JoinGroupby": lambda a, b: [[a, b]] >> ops.JoinGroupby(cont_cols=["target"], stats=STATISTICS),
    "TargetEncoding": lambda a, b: [[a, b]] >> ops.TargetEncoding(["target"], kfold=1),
    "FillMissing_Normalize": lambda a, b: [a, b] >> ops.FillMissing(add_binary_cols=True) >> ops.Normalize(),
    "Dropna": lambda a, b: [a, b] >> ops.Dropna(),
}
PAIRED = [("int64", "key"), ("int32", "text"), ("text", "key"), ("maybe", "text"), ("gaps", "gaps32"), ("lists", "int64"), ("bool", "key"), ("whole", "key")]
FIRST = ["FillMissing", "FillMissing_flag", "FillMedian", "Clip", "LogOp", "Normalize", "NormalizeMinMax", "ReduceDtypeSize", "Lambda_twice"]
SECOND = ["Normalize", "NormalizeMinMax", "LogOp", "Bucketize", "Clip_most", "FillMedian", "Rename", "Lambda_half", "Lambda_greater"]
CODES = ["Categorify", "Categorify_buckets", "HashBucket", "Bucketize"]
AFTER_CODES = ["Categorify", "Normalize", "TagAsUserID", "DropLowCardinality", "Lambda_greater", "ReduceDtypeSize", "Rename"]


def chain(column, names):
    node = [column]
    for name in names:
        node = node >> {**ALONE, **OF_CODES}[name]()
    return node


def groups(column, aggs, ascending=True):
    return ["key", "order", column] >> ops.Groupby(
        groupby_cols=["key"], sort_cols=["order"], aggs={column: aggs}, ascending=ascending
    )


def joined(column, how):
    external = pd.DataFrame({column: frame[column].drop_duplicates().iloc[:4]}).dropna()
    external["more"] = np.arange(len(external)) * 0.5
    return ["key", column] >> ops.JoinExternal(external, on=column, how=how, columns_ext=[column, "more"])


def matrix():
    for (name, operator), kind in itertools.product(ALONE.items(), KINDS):
        yield f"{name}.{kind}", lambda kind=kind, operator=operator: [kind] >> operator()
    for (name, graph), (a, b) in itertools.product(PAIRS.items(), PAIRED):
        yield f"{name}.{a}.{b}", lambda graph=graph, a=a, b=b: graph(a, b)
    for kind in KINDS:
        for agg in AGGREGATIONS:
            # One session workflow of each type has the aggregations that it takes.
            yield f"Groupby_{agg}.{kind}", lambda kind=kind, agg=agg: groups(kind, [agg])
        yield f"Groupby_ends.{kind}", lambda kind=kind: groups(kind, ["first", "last"], ascending=False)
        for how in ("left", "inner"):
            yield f"JoinExternal_{how}.{kind}", lambda kind=kind, how=how: joined(kind, how)
    for kind, names in itertools.product(["int32", "float32", "gaps"], itertools.product(FIRST, SECOND)):
        yield f"{'_'.join(names)}.{kind}", lambda kind=kind, names=names: chain(kind, names)
    for kind, names in itertools.product(["int64", "maybe", "texts"], itertools.product(CODES, AFTER_CODES)):
        yield f"{'_'.join(names)}.{kind}", lambda kind=kind, names=names: chain(kind, names)
    for kind, (first, second, third) in itertools.product(
        ["gaps", "gaps32"], itertools.product(["FillMissing", "FillMedian_flag"], ["LogOp", "Clip", "Lambda_half"], ["Normalize", "NormalizeMinMax_float32", "Bucketize"])
    ):
        yield f"{first}_{second}_{third}.{kind}", lambda kind=kind, names=(first, second, third): chain(kind, names)
    for kind, coder, cut in itertools.product(["int64", "text", "lists", "texts"], ["Categorify", "Categorify_buckets", "HashBucket"], ["ListSlice_head", "ListSlice_tail"]):
        if kind in ("lists", "texts"):
            yield f"{coder}_{cut}.{kind}", lambda kind=kind, names=(coder, cut): chain(kind, names)
        else:
            yield f"{coder}_Groupby_{cut}.{kind}", lambda kind=kind, coder=coder, cut=cut: (
                (([kind] >> ALONE[coder]()) + ["key", "order"])
                >> ops.Groupby(groupby_cols=["key"], sort_cols=["order"], aggs={kind: ["list"]})
            )[f"{kind}_list"] >> ALONE[cut]()


fitted, frame = table(1, 90, 12), table(2, 40, 15)
frame.to_parquet(out / "apply.parquet", index=False, version="2.6")
failed = []
every = int(sys.argv[3]) if len(sys.argv) > 3 else 1
for case, graph in itertools.islice(matrix(), 0, None, every):
    # NVTabular writes its statistics into the current folder.
    os.chdir(tempfile.mkdtemp(dir=out))
    try:
        workflow = nvt.Workflow(graph())
        workflow.fit(nvt.Dataset(fitted))
        expected = workflow.transform(nvt.Dataset(frame)).to_ddf().compute()
        folder = out / case
        folder.mkdir()
        expected.to_parquet(folder / "expected.parquet", index=False, version="2.6")
    except Exception as error:
        failed.append(f"{case}: {type(error).__name__}: {error}".splitlines()[0])
        continue
    try:
        exporter.export(workflow, folder / "exported")
    except exporter.NotExported as refused:
        (folder / "refused.txt").write_text(str(refused))
(out / "failed.txt").write_text("\n".join(failed) + "\n")
