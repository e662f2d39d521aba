"""Fits the golden cases with the real NVTabular, exports what it saves, and keeps what it gives.

Usage: refit_goldens.py CASES_DIR EXPORTER OUT_DIR [CASE ...]

For each case, OUT_DIR/<case>/pickle is NVTabular's own folder, OUT_DIR/<case>/exported the exporter's, and
OUT_DIR/<case>/expected.parquet NVTabular's output for the case's apply.parquet. A case that cannot be exported leaves the
exporter's words in OUT_DIR/<case>/refused.txt.
"""

import importlib.machinery
import importlib.util
import os
import pathlib
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")


def load(name, path):
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


data, exporter, out = (pathlib.Path(path).resolve() for path in sys.argv[1:4])
sys.dont_write_bytecode = True
generate = load("generate", data / "generate.py")
exporter = load("exporter", exporter)

import nvtabular

for case in sys.argv[4:] or [*generate.OLDER, *generate.CASES]:
    # NVTabular writes its statistics into the current folder.
    os.chdir(tempfile.mkdtemp(dir=out))
    workflow, expected = generate.refit(case, data / case)
    folder = out / case
    workflow.save(str(folder / "pickle"))
    expected.to_parquet(folder / "expected.parquet", index=False)
    try:
        exporter.export(nvtabular.Workflow.load(str(folder / "pickle")), folder / "exported")
    except exporter.NotExported as refused:
        (folder / "refused.txt").write_text(str(refused))
