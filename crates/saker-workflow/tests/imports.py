"""Workflows as people write them, fitted and saved by the real NVTabular, exported, with what NVTabular gives for them.

Usage: imports.py EXPORTER OUT_DIR

For each case, OUT_DIR/<case>/pickle is NVTabular's own folder, OUT_DIR/<case>/exported the exporter's, OUT_DIR/<case>/expected.parquet
NVTabular's output for OUT_DIR/apply.parquet. A case that cannot be exported leaves the reason in OUT_DIR/<case>/refused.txt.
"""

import importlib.machinery
import importlib.util
import os
import pathlib
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
sys.dont_write_bytecode = True

import numpy as np
import nvtabular as nvt
import pandas as pd
from nvtabular import ops

exporter_path, out = (pathlib.Path(path).resolve() for path in sys.argv[1:3])
loader = importlib.machinery.SourceFileLoader("exporter", str(exporter_path))
exporter = importlib.util.module_from_spec(importlib.util.spec_from_loader("exporter", loader))
loader.exec_module(exporter)

random = np.random.default_rng(3)
table = pd.DataFrame(
    {
        "t": 1_700_000_000 + random.integers(0, 10**7, 40),
        "n": random.integers(-2_000, 2_000, 40),
        "x": np.where(np.arange(40) % 5 == 1, np.nan, random.normal(0, 900, 40)),
        "y": np.where(np.arange(40) % 7 == 2, np.nan, random.normal(5, 3, 40)),
        "f": random.normal(0, 1, 40).astype("float32"),
        "city": random.choice(["Ulm", "Bonn", "Kiel"], 40),
    }
)
table.loc[:3, "n"] = [1_000, 1_001, 5, -7]
table.loc[:1, "f"] = np.float32(0.1)
table["a"] = [list(random.integers(0, 9, length)) for length in random.integers(1, 5, 40)]
table["b"] = [list(random.integers(0, 9, length)) for length in random.integers(1, 4, 40)]


def two_pi(x):
    return 2 * np.pi * x


def filled():
    return ["x", "y"] >> ops.FillMissing(add_binary_cols=True)


# Those that are taken over.
LAMBDAS = {
    "hour": ("t", lambda t: (t // 3600) % 24),
    "datetime_hour": ("t", lambda t: pd.to_datetime(t, unit="s").dt.hour),
    "datetime_weekday": ("t", lambda t: pd.to_datetime(t, unit="s").dt.weekday),
    "sine": ("n", lambda x: np.sin(two_pi(x) / 24).astype("float32")),
    "hour_cosine": ("t", lambda t: np.cos(two_pi((t // 3600) % 24) / 24)),
    "greater": ("n", lambda x: x > 1_000),
    "greater_float": ("x", lambda x: x > 12.5),
    "not_less_single": ("f", lambda x: x >= 0.1),
    "greater_single": ("f", lambda x: x > 0.1),
    "equal_as_int": ("n", lambda x: (x == 5).astype(int)),
    "unequal": ("x", lambda x: x != 3),
    "less_as_float": ("n", lambda x: (x < -7).astype("float32")),
    "times": ("x", lambda x: x * 1.07),
    "divided": ("n", lambda x: x / 100),
    "divided_single": ("n", lambda x: (x / 1000).astype("float32")),
    "plus": ("n", lambda x: x + 1),
    "minus": ("n", lambda x: 3 * x - 2),
    "as_int32": ("n", lambda x: x.astype("int32")),
    "as_float32": ("n", lambda x: x.astype("float32")),
    "as_it_is": ("x", lambda x: x),
}
# Those that are like a named function for some values.
LIKE = {
    "constant": ("n", lambda x: x * 0),
    "isnull": ("x", lambda x: x.isnull()),
    "notnull": ("x", lambda x: x.notnull()),
    "far": ("n", lambda x: x > 10**12),
    "hour_of_milliseconds": ("t", lambda t: (t // 3_600_000) % 24),
    "datetime_of_milliseconds": ("t", lambda t: pd.to_datetime(t, unit="ms").dt.hour),
    "filled": ("x", lambda x: x.fillna(0)),
    "filled_sine": ("x", lambda x: np.sin(two_pi(x) / 24).fillna(0)),
    "filled_comparison": ("x", lambda x: x.fillna(5) > 3),
    "not_greater": ("x", lambda x: ~(x > 3)),
    "whole_sine": ("x", lambda x: np.sin(two_pi(x.fillna(0).astype(int)) / 24)),
    "rounded": ("x", lambda x: x.round()),
    "floor": ("n", lambda x: x // 10),
    "absolute": ("n", lambda x: x.abs()),
    "small_sine": ("n", lambda x: np.where(x.abs() < 500, np.sin(two_pi(x) / 24), 0)),
    "limited": ("n", lambda x: x.clip(-500, 500)),
    "text": ("n", lambda x: x.astype(str)),
}
GRAPHS = {
    "filled_and_normalized": lambda: filled() >> ops.Normalize(),
    "filled_order": filled,
    "one_of_two": lambda: filled()["x"] >> ops.Normalize(),
    "flag_alone": lambda: filled()["y_filled"],
    "other_order": lambda: filled()[["y", "x"]] + (["city"] >> ops.Categorify()),
    "less_a_node": lambda: (["x", "y", "n"] >> ops.FillMissing()) - (["y"] >> ops.FillMissing()),
    "lists_of_two_lengths": lambda: ["a", "b"] >> ops.Categorify(),
    "lists_and_values": lambda: ["a", "n", "b"] >> ops.Categorify(),
    "median_flags": lambda: ["y", "x"] >> ops.FillMedian(add_binary_cols=True) >> ops.Normalize(),
    "flags_as_codes": lambda: filled()[["x_filled", "y_filled"]] >> ops.Categorify(),
    "twice": lambda: (["x"] >> ops.FillMissing()) + (["x"] >> ops.FillMissing(1) >> ops.LogOp() >> ops.Rename(postfix="_log")),
    "renamed_flags": lambda: filled() >> ops.Rename(postfix="_new"),
    "cut_codes": lambda: ["b", "a"] >> ops.Categorify() >> ops.ListSlice(0, 2),
    "part_of_a_union": lambda: ((["city"] >> ops.Categorify()) + filled())[["y_filled", "city"]],
    "union_less_a_node": lambda: ((["city", "n"] >> ops.Categorify()) + (["t"] >> ops.Normalize())) - (["n"] >> ops.Categorify()),
    "bins_and_codes": lambda: ["n"] >> ops.Bucketize([-100, 0, 100]) >> ops.Rename(postfix="_bin") >> ops.Categorify(),
    "target": lambda: ["city"] >> ops.TargetEncoding(["f"], kfold=1, p_smooth=5),
    "joined": lambda: (["city"] >> ops.JoinGroupby(cont_cols=["f"], stats=["count", "mean"]))["city_f_mean"],
    "lists_joint": lambda: [["a", "b"]] >> ops.Categorify(encode_type="joint"),
}

cases = dict(GRAPHS)
for name, (column, function) in {**LAMBDAS, **LIKE}.items():
    cases[f"{'like' if name in LIKE else 'lambda'}_{name}"] = lambda column=column, function=function: [column] >> ops.LambdaOp(function)

table.to_parquet(out / "apply.parquet", index=False)
table = pd.read_parquet(out / "apply.parquet")
for case, graph in cases.items():
    folder = out / case
    # NVTabular writes its statistics into the current folder.
    os.chdir(tempfile.mkdtemp(dir=out))
    workflow = nvt.Workflow(graph())
    workflow.fit(nvt.Dataset(table))
    workflow.save(str(folder / "pickle"))
    workflow.transform(nvt.Dataset(table)).to_ddf().compute().to_parquet(folder / "expected.parquet", index=False)
    try:
        exporter.export(nvt.Workflow.load(str(folder / "pickle")), folder / "exported")
    except exporter.NotExported as refused:
        (folder / "refused.txt").write_text(str(refused))
