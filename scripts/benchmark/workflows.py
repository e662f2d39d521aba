"""Writes Saker's fitted workflows as workflows of NVTabular 23.8, with its own Triton model; bench.py calls this with NVTabular's interpreter.

Usage: python workflows.py MODEL_VERSION_FOLDER...

Each folder holds the workflow.json and categories/ of a release, and gets workflow/ and model.py. Vocabularies, means and deviations are the
fitted ones, so that both encode alike.
"""

import importlib.resources
import json
import pathlib
import shutil
import sys
import warnings

warnings.filterwarnings("ignore")

import numpy as np
import nvtabular
from merlin.schema import ColumnSchema, Schema
from nvtabular import ops

UNITS = {"hour": lambda t: (t // 3600) % 24, "weekday": lambda t: (t // 86400 + 3) % 7}
WAVES = {"sine": np.sin, "cosine": np.cos}


def categorify(tables, folder):
    vocabularies = {table["name"]: str(folder / table["file"]) for table in tables}
    # Workflow.save copies what lies below out_path.
    return ops.Categorify(dtype=np.int32, vocabs=vocabularies, out_path=str(folder))


def normalize(column, fitted):
    op = ops.Normalize(out_dtype=np.float32)
    (mean,), (deviation,) = fitted["means"].values(), fitted["stds"].values()
    op.means, op.stds = {column: mean}, {column: deviation}
    return op


def composed(operators):
    """Named functions, one after the other, in one operator."""
    wave = any(operator["function"] in WAVES for operator in operators)

    def compute(column):
        for operator in operators:
            name = operator["function"]
            column = UNITS[name](column) if name in UNITS else WAVES[name](2 * np.pi * column / operator["period"])
        return column.astype("float32" if wave else "int32")

    return ops.LambdaOp(compute, dtype=np.float32 if wave else np.int32)


def chain(column, steps, folder):
    """A column and its operators. What is renamed is renamed last, or before the vocabulary that has the new name."""
    node, name, functions = [column], column, []
    for step in steps:
        operator, fitted = step["operator"], step.get("fitted")
        if operator["op"] == "Rename":
            name = operator["name"]
        elif operator["op"] == "Categorify":
            node = node >> ops.Rename(name=name) >> categorify(fitted["vocabularies"], folder)
            column = name
        elif operator["op"] == "Normalize":
            node = node >> normalize(column, fitted)
        elif operator["op"] == "Bucketize":
            node = node >> ops.Bucketize(operator["boundaries"])
        elif operator["op"] == "LogOp":
            node = node >> ops.LogOp()
        else:
            functions.append(operator)
    if functions:
        node = node >> composed(functions)
    return node if name == column else node >> ops.Rename(name=name)


def outputs(chains, folder):
    """All chains; columns that are only categorified share an operator."""
    alone = [one for one in chains if [step["operator"]["op"] for step in one["operators"]] == ["Categorify"]]
    tables = [table for one in alone for table in one["operators"][0]["fitted"]["vocabularies"]]
    node = [column for one in alone for column in one["columns"]] >> categorify(tables, folder)
    for one in chains:
        if one not in alone:
            (column,) = one["columns"]
            node = node + chain(column, one["operators"], folder)
    return node


def write(folder):
    definition = json.loads((folder / "workflow.json").read_text())
    workflow = nvtabular.Workflow(outputs(definition["chains"], folder))
    workflow.fit_schema(Schema([ColumnSchema(column["name"], dtype=column["dtype"]) for column in definition["inputs"]]))
    workflow.save(str(folder / "workflow"))
    model = importlib.resources.files("merlin.systems.triton.models") / "workflow_model.py"
    shutil.copy(model, folder / "model.py")


for folder in sys.argv[1:]:
    write(pathlib.Path(folder))
