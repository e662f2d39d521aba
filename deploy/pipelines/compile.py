#!/usr/bin/env python3
"""Compiles the Kubeflow pipelines `full` and `daily`.

Usage: deploy/pipelines/compile.py [--options FILE] [--output FOLDER] [--check]

  --options FILE    what differs from deploy/pipelines/options.yaml, which explains each key
  --output FOLDER   where full.yaml and daily.yaml are written; deploy/pipelines/compiled by default
  --check           write nothing, and fail if a file is not what would be written

Needs kfp and kfp-kubernetes: `scripts/install --pipelines` makes an environment that has them, $SAKER_CACHE/runtime/pipelines/bin/python.
"""

import argparse
import pathlib
import sys
import tempfile

import options


def texts(chosen):
    """{file: text} of the compiled pipelines."""
    try:
        from kfp import compiler

        import pipelines
    except ImportError as error:
        sys.exit(f"{error}; run `scripts/install --pipelines`, then this with $SAKER_CACHE/runtime/pipelines/bin/python")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, pipeline in pipelines.pipelines(chosen).items():
            path = pathlib.Path(folder, f"{name}.yaml")
            compiler.Compiler().compile(pipeline, str(path))
            found[path.name] = path.read_text()
    return found


def main():
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--options")
    parser.add_argument("--output", type=pathlib.Path, default=options.FOLDER / "compiled")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.help:
        print(__doc__.strip())
        return
    try:
        compiled = texts(options.read(arguments.options))
    except options.Wrong as error:
        sys.exit(str(error))
    stale = []
    for name, text in compiled.items():
        path = arguments.output / name
        if arguments.check:
            stale += [] if path.is_file() and path.read_text() == text else [str(path)]
            continue
        arguments.output.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path)
    if stale:
        sys.exit(f"not what would be compiled: {', '.join(stale)}; run deploy/pipelines/compile.py")


if __name__ == "__main__":
    main()
