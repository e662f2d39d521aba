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
seconds = random.integers(-(2**32), 2**32, 40)
table["ms"] = seconds * 10**3 + random.integers(0, 10**3, 40)
table["us"] = seconds * 10**6 + random.integers(0, 10**6, 40)
table["ns"] = seconds * 10**9 + random.integers(0, 10**9, 40)
table["when"] = table["ns"].astype("datetime64[ns]")
table["maybe"] = table["when"].mask(np.arange(40) % 6 == 4)
table.loc[:3, "n"] = [1_000, 1_001, 5, -7]
table.loc[:1, "f"] = np.float32(0.1)
table["session"] = random.integers(100, 108, 40)
table["sparse"] = random.choice(["red", "green", "blue", None], 40, p=[0.4, 0.2, 0.1, 0.3])
table["a"] = [list(random.integers(0, 9, length)) for length in random.integers(1, 5, 40)]
table["b"] = [list(random.integers(0, 9, length)) for length in random.integers(1, 4, 40)]


def two_pi(x):
    return 2 * np.pi * x


def single_table(**parameters):
    # With a path of its own: NVTabular copies no table into the saved folder otherwise.
    return ops.Categorify(single_table=True, out_path=os.getcwd(), **parameters)


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
    "hour_of_milliseconds": ("ms", lambda t: (t // 3_600_000) % 24),
    "weekday_sine": ("t", lambda t: np.sin(two_pi(pd.to_datetime(t, unit="s").dt.weekday + 1 + 0.000001) / 7)),
    "weekend": ("when", lambda t: (t.dt.weekday >= 5).astype(int)),
    "may_be_weekend": ("maybe", lambda t: t.dt.dayofweek > 4),
    "hour_cosine_of_datetime": ("when", lambda t: np.cos(two_pi(t.dt.hour) / 24).astype("float32")),
    "month_from_0": ("when", lambda t: t.dt.month - 1),
    "half_month": ("when", lambda t: t.dt.day > 15),
    "datetime_as_it_is": ("maybe", lambda t: t),
    "datetime_of_nanoseconds": ("ns", lambda t: pd.to_datetime(t)),
    "month_single": ("us", lambda t: (pd.to_datetime(t, unit="us").dt.month / 12).astype("float32")),
}
# What people write of a date: a part of a datetime column, which may hold NaT, and of integers in every unit.
def part_of_datetime(part):
    return lambda t: getattr(t.dt, part)


def part_of_integers(part, unit):
    return lambda t: getattr(pd.to_datetime(t, unit=unit).dt, part)


def datetime_of_integers(unit):
    return lambda t: pd.to_datetime(t, unit=unit)


UNITS = (("s", "t"), ("ms", "ms"), ("us", "us"), ("ns", "ns"))
for part in ("hour", "weekday", "dayofweek", "day", "month"):
    LAMBDAS[f"{part}_of_datetime"] = ("when", part_of_datetime(part))
    LAMBDAS[f"{part}_or_missing"] = ("maybe", part_of_datetime(part))
    for unit, column in UNITS:
        LAMBDAS[f"{part}_of_{unit}"] = (column, part_of_integers(part, unit))
for unit, column in UNITS:
    LAMBDAS[f"to_datetime_of_{unit}"] = (column, datetime_of_integers(unit))
# Those that are like a named function for some values.
LIKE = {
    "constant": ("n", lambda x: x * 0),
    "isnull": ("x", lambda x: x.isnull()),
    "notnull": ("x", lambda x: x.notnull()),
    "far": ("n", lambda x: x > 10**12),
    "hour_of_local_time": ("when", lambda t: t.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo").dt.hour),
    # NaT becomes the least integer.
    "datetime_as_int64": ("when", lambda t: t.astype("int64")),
    "year": ("when", lambda t: t.dt.year),
    "days_since_the_first": ("when", lambda t: (t - t.min()).dt.days),
    "filled_hour": ("maybe", lambda t: t.dt.hour.fillna(0)),
    "filled_date": ("maybe", lambda t: t.fillna(pd.Timestamp(0)).dt.hour),
    "missing_date": ("maybe", lambda t: t.isnull()),
    "minute": ("t", lambda t: pd.to_datetime(t, unit="s").dt.minute),
    "hour_on_the_hour": ("t", lambda t: np.where(t % 3_600 == 0, 0, (t // 3_600) % 24)),
    "seconds_or_milliseconds": ("t", lambda t: np.where(t > 10**11, t // 3_600_000, t // 3_600) % 24),
    "less_its_mean": ("n", lambda x: x - x.mean()),
    "less_its_least": ("n", lambda x: x - x.min()),
    "the_row_before": ("n", lambda x: x.shift(1).fillna(0).astype(int)),
    "normal_day": ("when", lambda t: t.dt.normalize()),
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
    "single_table": lambda: ["city", "n", "sparse"] >> single_table(),
    "single_table_buckets": lambda: ["n", "city", "sparse"] >> single_table(num_buckets={"n": 3, "city": 2, "sparse": 4}),
    "single_table_rare": lambda: ["sparse", "city"] >> single_table(freq_threshold=4),
    "single_table_lists": lambda: ["a", "b"] >> single_table(max_size=7),
    "single_table_joint": lambda: [["a", "b"], "city"] >> single_table(encode_type="joint"),
    "single_table_combo": lambda: [["city", "sparse"], "n"] >> single_table(encode_type="combo"),
    "lists_joint": lambda: [["a", "b"]] >> ops.Categorify(encode_type="joint"),
}



def session(chains, aggs, **parameters):
    """Rows of a session, in the order of their time, as one row."""
    return chains >> ops.Groupby(groupby_cols=["session"], sort_cols=["t"], aggs=aggs, name_sep="-", **parameters)


def codes():
    return (["city"] >> ops.Categorify()) + ["session", "t"]


def cut_session():
    sessions = session(codes(), {"city": ["list", "count"], "t": ["first"]})
    return (sessions["city-list"] >> ops.ListSlice(-3)) + sessions["session", "city-count"]


def padded_session():
    sessions = session(codes() + (["n"] >> ops.Normalize()), {"city": ["list", "last"], "n": ["list"]})
    lists = sessions["city-list", "n-list"] >> ops.ListSlice(4, pad=True) >> ops.Rename(postfix="_seq")
    return sessions["session", "city-last"] + lists


def session_of_the_notebooks():
    """As in Transformers4Rec's notebooks: times of a session as waves, and its first day."""
    item = ["city"] >> ops.Categorify() >> ops.TagAsItemID()
    time = ["t"] >> ops.LambdaOp(lambda t: pd.to_datetime(t, unit="s")) >> ops.Rename(name="when_dt")
    weekday = time >> ops.LambdaOp(lambda t: t.dt.weekday) >> ops.Rename(name="weekday")
    sine = weekday >> ops.LambdaOp(lambda d: np.sin(2 * np.pi * (d + 1) / 7)) >> ops.Rename(name="weekday_sine") >> ops.AddMetadata(tags=["continuous"])
    price = ["x"] >> ops.FillMissing(1) >> ops.Clip(min_value=0.5) >> ops.LogOp() >> ops.Normalize(out_dtype=np.float32) >> ops.Rename(name="price")
    aggs = {"city": ["list", "count"], "price": ["list"], "weekday_sine": ["list"], "when_dt": ["first"], "weekday": ["max"]}
    sessions = session(["session", "t"] + item + time + weekday + sine + price, aggs)
    lists = sessions["city-list", "price-list", "weekday_sine-list"] >> ops.ListSlice(3, pad=True) >> ops.Rename(postfix="_trim") >> ops.ValueCount()
    month = sessions["when_dt-first"] >> ops.LambdaOp(lambda t: t.dt.month) >> ops.Rename(name="month")
    return sessions["session", "city-count", "weekday-max"] + lists + month


SESSIONS = {
    "cut": cut_session,
    "padded": padded_session,
    "of_the_notebooks": session_of_the_notebooks,
    "newest_first": lambda: session(codes(), {"city": ["list", "first", "last"]}, ascending=False),
    "coded_key": lambda: session((["session", "city"] >> ops.Categorify()) + ["t"], {"city": ["list"]}),
    "key_not_selected": lambda: session((["city"] >> ops.Categorify()) + (["x", "y"] >> ops.FillMedian()) + ["t"], {"city": ["list"], "x": ["sum"], "y": ["mean", "std"]}),
    "filled_flags": lambda: session(filled() + ["session", "t"], {"x_filled": ["list"], "y": ["sum"]}),
    "codes_after": lambda: session(["session", "t", "city"] + (["n"] >> ops.Clip(0, 500)), {"city": ["first"], "n": ["mean"]})["city-first"] >> ops.Categorify(),
    "datetimes": lambda: session(["session", "t", "when"] + (["n"] >> ops.Bucketize([-500, 0, 500])), {"when": ["first", "max"], "n": ["list"]}),
    "joined": lambda: ["session", "t", "city"] >> ops.Categorify() >> ops.JoinExternal(pd.DataFrame({"city": [3, 4], "rain": [0.5, 0.25]}), on="city", how="left", columns_ext=["city", "rain"]),
    "whole_rows": lambda: (["x"] >> ops.LambdaOp(lambda x: x * 2)) + (["city"] >> ops.Categorify()) >> ops.Dropna(),
    "median_after_whole_rows": lambda: ((["x"] >> ops.LambdaOp(lambda x: x * 2)) + (["city"] >> ops.Categorify()) >> ops.Dropna()) >> ops.Normalize(),
}
# NVTabular takes the keys from the rows before another operator, which are others.
REFUSED = {
    "groups_of_groups": lambda: session(codes(), {"city": ["last"]})
    >> ops.Groupby(groupby_cols=["session"], aggs={"city-last": ["max"]}),
    "groups_of_whole_rows": lambda: session(["session", "t", "x"] >> ops.Dropna(), {"x": ["sum"]}),
    "target_of_whole_rows": lambda: (["session", "x"] >> ops.Dropna())["session"] >> ops.TargetEncoding(["f"], kfold=1),
    "joined_whole_rows": lambda: (["session", "x"] >> ops.Dropna())["session"] >> ops.JoinGroupby(cont_cols=["f"], stats=["sum"]),
    "lag_of_whole_rows": lambda: ["n", "x"] >> ops.Dropna() >> ops.DifferenceLag(partition_cols=["session"]),
    "columns_beside_groups": lambda: session(codes(), {"city": ["list"]}) + (["n"] >> ops.Normalize()),
}
cases = {**GRAPHS, **{f"session_{name}": graph for name, graph in SESSIONS.items()}, **{f"refused_{name}": graph for name, graph in REFUSED.items()}}
for name, (column, function) in {**LAMBDAS, **LIKE}.items():
    cases[f"{'like' if name in LIKE else 'lambda'}_{name}"] = lambda column=column, function=function: [column] >> ops.LambdaOp(function)

table.to_parquet(out / "apply.parquet", index=False, version="2.6")
table = pd.read_parquet(out / "apply.parquet")
for case, graph in cases.items():
    folder = out / case
    # NVTabular writes its statistics into the current folder.
    os.chdir(tempfile.mkdtemp(dir=out))
    workflow = nvt.Workflow(graph())
    workflow.fit(nvt.Dataset(table))
    workflow.save(str(folder / "pickle"))
    workflow.transform(nvt.Dataset(table)).to_ddf().compute().to_parquet(folder / "expected.parquet", index=False, version="2.6")
    try:
        exporter.export(nvt.Workflow.load(str(folder / "pickle")), folder / "exported")
    except exporter.NotExported as refused:
        (folder / "refused.txt").write_text(str(refused))
