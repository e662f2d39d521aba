"""Writes what Criterion and callgrind have found as a table; scripts/bench-kernels calls this: kernels.py CRITERION COUNTS OUT."""

import json
import pathlib
import sys
from datetime import datetime, timezone

from machine import processors

TARGETS = {"transform 1 user": 1.0, "transform 300 items": 30.0}


def times(folder):
    """Microseconds by kernel: Criterion's median and its 95 % interval."""
    found = {}
    for path in folder.glob("*/new/benchmark.json"):
        median = json.loads((path.parent / "estimates.json").read_text())["median"]
        interval = median["confidence_interval"]
        values = median["point_estimate"], interval["lower_bound"], interval["upper_bound"]
        found[json.loads(path.read_text())["full_id"]] = [value / 1e3 for value in values]
    return found


def verdict(kernel, taken):
    for prefix, most in TARGETS.items():
        if kernel.startswith(prefix):
            return f"{most:.0f} µs, {'met' if taken <= most else '**missed**'}"
    return ""


def main():
    criterion, counts, out = map(pathlib.Path, sys.argv[1:])
    taken = times(criterion)
    lines = [
        "# Kernels",
        "",
        f"Written by `scripts/bench-kernels` on {datetime.now(timezone.utc):%Y-%m-%d}: {processors()[0]}, one thread; "
        "Criterion's median (95 % interval), and the instructions that callgrind counts in one run. The instructions are the same on every machine. "
        "[benches/kernels.rs](../benches/kernels.rs) has the kernels. All data are in the caches; in a server, other work evicts them.",
        "",
        "| kernel | µs | instructions | target |",
        "|---|---|---|---|",
    ]
    for line in counts.read_text().splitlines():
        kernel, instructions = line.split("\t")
        middle, low, high = taken[kernel]
        lines.append(f"| {kernel} | {middle:.2f} ({low:.2f}–{high:.2f}) | {int(instructions):,} | {verdict(kernel, middle)} |")
    out.write_text("\n".join(lines) + "\n")


main()
