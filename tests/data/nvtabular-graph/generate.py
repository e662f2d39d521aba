#!/usr/bin/env python3
"""Makes this folder: a workflow saved by NVTabular in its JSON form (graph.json), a table, and what the workflow makes of it.

Usage: generate.py NVTABULAR_SOURCE

NVTABULAR_SOURCE is a checkout of NVTabular after 23.8 (with nvtabular/workflow/graph_serializer.py); run it with the
Python that holds the pins of ../nvtabular/pins.txt, whose other packages it needs.
"""

import os
import pathlib
import shutil
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")

here = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [sys.argv[1], str(here.parent / "nvtabular")]

import generate as cases
import numpy as np
import nvtabular as nvt
from nvtabular import ops


def table(frame, seed, values):
    """The shop's events, with a list of small numbers a row."""
    frame = cases.with_words(frame.copy(), seed)
    frame["hist"] = [[int(x * values) for x in row] for row in frame.pop("words")]
    return frame


fit, applied = table(cases.FIT[:600], 3, 9), table(cases.APPLY[:100], 4, 12)
output = (
    (["user_id", "item_id"] >> ops.Categorify(dtype="int32") >> ops.TagAsUserID())
    + (["brand"] >> ops.Categorify(freq_threshold=3))
    + ([["gender", "click"]] >> ops.Categorify(encode_type="combo"))
    + (["hist"] >> ops.Categorify() >> ops.ListSlice(-2))
    + (["age"] >> ops.Bucketize([18, 25, 35, 50, 65]) >> ops.Rename(name="age_binned") >> ops.Categorify())
    + (["age"] >> ops.Normalize(out_dtype=np.float32) >> ops.Rename(name="age_norm"))
    + (["price"] >> ops.LogOp() >> ops.NormalizeMinMax() >> ops.Rename(postfix="_log"))
    + (["score"] >> ops.FillMedian(add_binary_cols=True))
    + (
        ["price"]
        >> ops.Clip(min_value=2, max_value=40)
        >> ops.FillMissing(-1)
        >> ops.AddMetadata(tags=["item"], properties={"unit": "euro"})
    )
    + (["item_id"] >> ops.HashBucket(50) >> ops.Rename(name="item_bucket"))
    + (["click"] >> ops.JoinGroupby(cont_cols=["price"], stats=["count", "mean", "max"]))
    + (["gender", ["gender", "user_id"]] >> ops.TargetEncoding("click", kfold=3))
)
# NVTabular writes its statistics into the current folder.
os.chdir(tempfile.mkdtemp())
workflow, expected = cases.run(output, fit, applied)
for path in here.iterdir():
    if path.name != "generate.py":
        shutil.rmtree(path) if path.is_dir() else path.unlink()
workflow.save(str(here))
# It names the machine's Python.
(here / "metadata.json").unlink()
applied.to_parquet(here / "apply.parquet", index=False)
expected.to_parquet(here / "expected.parquet", index=False)
