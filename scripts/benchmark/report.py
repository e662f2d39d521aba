"""What was measured, as docs/benchmarks.md and its charts."""

import shlex
from datetime import datetime, timezone
from math import log
from pathlib import Path
from statistics import median

from measure import command, grpc_options, queueing
from sizes import STEPS as GROWING
from sizes import infer
from systems import FEWER, RUST

CONCURRENCY = [1, 2, 4, 8]
CANDIDATES = 300
# How many L a request may take inside the server, and how many ms more than L over gRPC.
SERVER_SIDE = {"saker": 2.0, "fused": 1.0}
OVER_GRPC = {"saker": 0.6, "fused": 0.35}
SHORT = {"saker": "14 steps", "fused": "fused", "numpy": "NumPy", "nvtabular": "NVTabular"}
WHAT = {
    "fused": "the ensemble `ensemble_fused` of the same repository",
    "numpy": "the custom steps as optimised NumPy models of Triton's Python backend",
    "nvtabular": "such models, with the three transforms by the real NVTabular 23.8 on pandas, in the Triton model of merlin-systems",
}


def spread(values, digits=2):
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low}–{high})"


def table(heads, rows):
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(row)} |" for row in rows)])


def of(entries, key):
    return [entry[key] for entry in entries]


def tail_ratios(entries):
    return [entry["p99"] / entry["p50"] for entry in entries]


def floors(bench, candidates=CANDIDATES):
    """L of each round: query tower and ranker in ONNX Runtime alone."""
    return [sum(entry.values()) for entry in bench.alone[candidates]]


def systems_table(bench):
    rows = []
    for concurrency in CONCURRENCY:
        for server in bench.servers:
            found = bench.grpc[server.name, concurrency]
            rows.append([server.title, str(concurrency), spread(of(found, "p50")), spread(of(found, "p99")), spread(of(found, "rate"), 0)])
    return table(["system", "requests at a time", "p50 ms", "p99 ms", "requests/s"], rows)


def targets_table(bench, low):
    """A line for each target, a column for each Rust system."""
    p50 = lambda name: median(of(bench.grpc[name, 1], "p50"))
    rate = lambda name: median(of(bench.grpc[name, 4], "rate"))
    most = 2e3 / low

    def server_side(name):
        found = of(bench.server_side[name], "p50")
        return f"{spread(found)} ms = {median(found) / low:.1f} L", median(found) <= SERVER_SIDE[name] * low

    def over_grpc(name):
        return f"{spread(of(bench.grpc[name, 1], 'p50'))} ms", p50(name) <= low + OVER_GRPC[name]

    def queues(name):
        found = [queueing(steps, server.ensemble) for server in bench.rust if server.name == name for steps in bench.steps[name, 4]]
        ratios = [entry["queue"] / entry["service"] for entry in found]
        waits, takes = median(of(found, "queue")), median(of(found, "service"))
        return f"{waits:.1f} ms for {takes:.1f} ms = {spread(ratios)} ×", median(ratios) <= 1.2

    def tails(name):
        ratios = tail_ratios(bench.tails.get((name, 0.5), []))
        return (f"{spread(ratios, 1)} ×", median(ratios) <= 3) if ratios else None

    def transforms(name):
        steps = bench.steps[name, 1]
        if any("nvt_user_transform" not in entry or "nvt_item_transform" not in entry for entry in steps):
            return None
        user, item = (median([entry[model][2] for entry in steps]) for model in ("nvt_user_transform", "nvt_item_transform"))
        return f"{user:.0f} and {item:.0f} µs", user <= 1 and item <= 30

    def lower(slow, times):
        return lambda name: (f"{p50(slow) / p50(name):.1f} ×", p50(slow) / p50(name) >= times)

    def more(slow, times):
        return lambda name: (f"{rate(name) / rate(slow):.1f} ×", rate(name) / rate(slow) >= times)

    targets = [
        (f"server side p50, one at a time: 2.0 L = {2 * low:.2f} ms, fused 1.0 L = {low:.2f} ms", server_side),
        (f"gRPC p50, one at a time: L + 0.6 ms = {low + 0.6:.2f} ms, fused L + 0.35 ms = {low + 0.35:.2f} ms", over_grpc),
    ]
    measured = [server.name for server in bench.servers]
    if "nvtabular" in measured:
        targets.append(("40 × lower p50 than the steps with NVTabular, one at a time", lower("nvtabular", 40)))
        targets.append(("80 × their throughput, 4 at a time", more("nvtabular", 80)))
    if "numpy" in measured:
        targets.append(("5 × lower p50 than the NumPy steps, one at a time", lower("numpy", 5)))
        targets.append(("8 × their throughput, 4 at a time", more("numpy", 8)))
    targets += [
        (f"80 % of what ONNX Runtime alone could do on two cores, 2 / L = {most:.0f}/s",
         lambda name: (f"{rate(name):.0f}/s = {100 * rate(name) / most:.0f} %", rate(name) >= 0.8 * most)),
        ("queueing, 4 at a time: 1.2 × the service time (sums over the steps)", queues),
        ("p99 at half load: 3 × p50", tails),
        (f"start to ready with {bench.user_count:,} users: 3 s", lambda name: (f"{bench.starts[name]:.1f} s", bench.starts[name] <= 3)),
        (f"transforms: 1 µs for a user, 30 µs for {CANDIDATES} items (here the whole steps' infer time; the transforms alone: [kernels.md](kernels.md))", transforms),
    ]
    rows = []
    for size in bench.sizes:
        if (size["users"], size["items"]) == (300_000, 2_465):
            targets += at_300_000_users(size)
    for target, measure in targets:
        cells = [measure(server.name) for server in bench.rust]
        if any(cells):
            rows.append([target] + [f"{cell[0]}, {'met' if cell[1] else '**missed**'}" if cell else "–" for cell in cells])
    return table(["target", *(SHORT[server.name] for server in bench.rust)], rows)


def at_300_000_users(size):
    """The targets that are set for so many users."""
    p50 = lambda name: median(of(size["grpc"][name, 1], "p50"))
    rate = lambda name: median(of(size["grpc"][name, 4], "rate"))
    both = size["both"]
    targets = [
        ("both ensembles in one Triton, with 300,000 users: resident 400 MB",
         lambda name: (f"{both['memory']:.0f} MB", both["memory"] <= 400)),
        ("both ensembles in one Triton, with 300,000 users: start to ready 3 s",
         lambda name: (f"{both['ready']:.1f} s", both["ready"] <= 3)),
    ]
    if ("nvtabular", 1) in size["grpc"]:
        lower, more = lambda name: p50("nvtabular") / p50(name), lambda name: rate(name) / rate("nvtabular")
        targets.append(("with 300,000 users: 40 × lower p50 than with NVTabular", lambda name: (f"{lower(name):.1f} ×", lower(name) >= 40)))
        targets.append(("with 300,000 users: 80 × the throughput, 4 at a time", lambda name: (f"{more(name):.1f} ×", more(name) >= 80)))
    return targets


def awake_table(bench, low):
    rows = []
    for server in bench.rust:
        inside, outside = (of(bench.awake[server.name, side], "p50") for side in ("server", "grpc"))
        rows.append([
            server.title,
            f"{spread(inside)} = {median(inside) / low:.1f} L", f"{SERVER_SIDE[server.name]:.1f} L",
            f"{spread(outside)} = L + {median(outside) - low:.2f}", f"L + {OVER_GRPC[server.name]:.2f}",
        ])
    return table(["system", "server side p50 ms", "target", "gRPC p50 ms", "target ms"], rows)


def sizes_table(bench):
    """A line for each shop: p50 of one request at a time and requests a second at four, by system."""
    names = [name for name in SHORT if any((name, 1) in size["grpc"] for size in bench.sizes)]
    rows = []
    for size in bench.sizes:
        row = [f"{size['items']:,}", f"{size['users']:,}", ", ".join(part for part in size["index"] if part), f"{median(size['alone']):.2f}"]
        for name in names:
            found = [median(of(size["grpc"].get((name, at), [{key: 0}]), key)) for at, key in [(1, "p50"), (4, "rate")]]
            row.append(f"{found[0]:.2f} / {found[1]:.0f}" if found[0] else "–")
        row.append(f"{size['both']['memory']:.0f}")
        row.append(f"{size['both']['ready']:.1f}")
        rows.append(row)
    heads = ["items", "users", "index", "L ms", *(f"{SHORT[name]}: p50 ms / requests/s" for name in names), "MB, both ensembles", "ready in s"]
    return table(heads, rows)


def growth_table(bench):
    """Of the 14 steps, µs in each whose cost could grow."""
    steps = list(bench.sizes[0]["steps"][0])
    steps = [step for step in GROWING if step in steps]
    small = {"items": bench.item_count, "users": bench.user_count, "index": ("Flat", ""), "steps": bench.steps["saker", 1]}
    shops = [small, *bench.sizes]
    rows = [[step, *(f"{infer(size, step):.0f}" for size in shops)] for step in steps]
    return table(["step", *(f"{size['items']:,} / {size['users']:,}, {size['index'][0]}" for size in shops)], rows)


def growth_chart(bench):
    """p50 by items, by users and by candidates, logarithmic on both axes."""
    p50 = lambda size, name: median(of(size["grpc"][name, 1], "p50"))
    base = {name: median(of(bench.grpc[name, 1], "p50")) for name in RUST}
    by_items = [size for size in bench.sizes if size["users"] >= 300_000 and size["index"][0] == "Flat"]
    by_users = [size for size in bench.sizes if size["items"] == 2_465]
    panels = [
        ("items (exact; the last: 3,000,000 users)", {name: [(size["items"], p50(size, name)) for size in by_items] for name in RUST}),
        ("users (2,465 items)", {name: [(bench.user_count, base[name])] + [(size["users"], p50(size, name)) for size in by_users] for name in RUST}),
        ("candidates", {name: [(count, median(of(bench.candidates[name, count], "p50")) if count != CANDIDATES else base[name])
                               for count in sorted(bench.alone)] for name in RUST}),
    ]
    width, height, left = 250, 190, 34
    values = [y for _, lines in panels for points in lines.values() for _, y in points]
    low, high = min(values) / 1.4, max(values) * 1.2
    parts = ['<text x="0" y="14" font-weight="bold">gRPC p50, one request at a time (ms, both axes logarithmic)</text>']
    for place, (title, lines) in enumerate(panels):
        start = left + place * (width + 40)
        xs = [x for points in lines.values() for x, _ in points]
        across = lambda x: start + 10 + (width - 60) * log(x / min(xs)) / log(max(xs) / min(xs)) if max(xs) > min(xs) else start + width / 2
        down = lambda y: 40 + height - height * log(y / low) / log(high / low)
        parts.append(f'<text x="{start}" y="{height + 78}" font-size="12">{title}</text>'
                     f'<path d="M{start} 40v{height}h{width - 20}" fill="none" stroke="#888"/>')
        for x in sorted(set(xs)):
            parts.append(f'<text x="{across(x):.1f}" y="{height + 56}" text-anchor="middle" font-size="11">{x:,}</text>')
        for name, color, above in zip(RUST, ("#a8480f", "#2a6f97"), (6, -16)):
            points = lines[name]
            line = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in points)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
            for x, y in points:
                parts.append(f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="3" fill="{color}"/>'
                             f'<text x="{across(x):.1f}" y="{down(y) - above:.1f}" text-anchor="middle" font-size="11" fill="{color}">{y:.2f}</text>')
    parts.append('<text x="560" y="14" fill="#a8480f">14 steps</text><text x="640" y="14" fill="#2a6f97">fused</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 {height + 90}" font-family="sans-serif" font-size="13" '
            f'fill="#777">{"".join(parts)}</svg>\n')


def tails_table(bench):
    rows = []
    for load in sorted({load for _, load in bench.tails}):
        for server in bench.servers:
            found = bench.tails[server.name, load]
            rows.append([server.title, f"{100 * load:.0f} %", spread(of(found, "rate"), 0), spread(of(found, "p50")), spread(of(found, "p99")),
                         spread(tail_ratios(found), 1)])
    return table(["system", "of its most", "requests/s", "p50 ms", "p99 ms", "p99 / p50"], rows)


def candidates_table(bench):
    rows = []
    for candidates in sorted(bench.alone):
        row = [str(candidates), spread(floors(bench, candidates), 3)]
        for server in bench.rust:
            found = bench.grpc[server.name, 1] if candidates == CANDIDATES else bench.candidates[server.name, candidates]
            row.append(spread(of(found, "p50")))
        rows.append(row)
    return table(["candidates", "L ms", *(f"{SHORT[server.name]}, p50 ms" for server in bench.rust)], rows)


def steps_table(bench):
    """Means of a request by step, the slowest first."""
    columns = {server.name: bench.steps[server.name, 1] for server in bench.servers}
    times = {}
    for server in bench.servers:
        for model in columns[server.name][0]:
            parts = [median([entry[model][part] for entry in columns[server.name]]) for part in range(4)]
            # The ensembles stand in one line, whatever their names.
            times.setdefault("the ensemble" if model == server.ensemble else model, {})[server.name] = parts
    rows = []
    for model in sorted(times, key=lambda model: -max(sum(parts) for parts in times[model].values())):
        cells = [" / ".join(f"{part:.0f}" for part in times[model][name]) if name in times[model] else "–" for name in columns]
        rows.append([model, *cells])
    return table(["step", *(SHORT[name] for name in columns)], rows)


def not_measured(bench):
    measured = [server.name for server in bench.servers]
    missing = [SHORT[name] for name in SHORT if name not in measured]
    if not bench.tails:
        missing.append("Poisson rates")
    if not bench.candidates:
        missing.append("other numbers of candidates")
    if not bench.sizes:
        missing.append("other numbers of items and users")
    return ", ".join(missing)


def chart(title, unit, bars, digits):
    """Horizontal bars on a logarithmic scale, as SVG."""
    width, left, line = 745, 215, 26
    most = max(value for _, value in bars)
    least = min(value for _, value in bars) / 2
    length = lambda value: (width - left - 90) * log(value / least) / log(most / least)
    rows = [f'<text x="0" y="14" font-weight="bold">{title} ({unit}, logarithmic)</text>']
    for place, (name, value) in enumerate(bars):
        y = 26 + place * line
        rows.append(f'<text x="0" y="{y + 14}">{name}</text>'
                    f'<rect x="{left}" y="{y}" width="{length(value):.1f}" height="18" fill="#a8480f"/>'
                    f'<text x="{left + length(value) + 6:.1f}" y="{y + 14}">{value:.{digits}f}</text>')
    height = 30 + len(bars) * line
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13" '
            f'fill="#555">{"".join(rows)}</svg>\n')


def introduction(bench, alone):
    arguments = bench.arguments
    others = [server.name for server in bench.servers[1:]]
    within = f"with scores within {bench.furthest:.0e}" if bench.furthest else "with the same scores"
    fewer = [f"{name} 1/{FEWER[name]} of that" for name in others if name in FEWER]
    ranker = median(of(bench.alone[CANDIDATES], "dlrm_ranking"))
    parts = [
        f"Written by `scripts/bench` on {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC: {bench.machine}, load average {bench.load_before:.1f} "
        f"before it began; Triton and client on the same cores, gRPC, the retail shop ({bench.item_count:,} items, {bench.user_count:,} users), "
        f"{CANDIDATES} candidates in, 10 out, a real Valkey. Rounds: {arguments.rounds}, with the systems in turn; median (lowest–highest). "
        f"Requests behind a figure of a round: {', '.join([f'{3 * arguments.requests:,}', *fewer])}."
    ]
    if others:
        parts.append(
            f"All systems serve the same release: {'; '.join(f'{name}, {WHAT[name]}' for name in others)}. "
            f"Before the measurement, they returned the same ids for {arguments.users} users, {within}."
        )
    load = command("MODEL", "users.json", arguments.requests, "figures.csv", grpc_options("PORT", "--concurrency-range=1"))
    load[0] = Path(load[0]).name
    parts.append(f"Versions: {', '.join(bench.versions)}. The client:\n\n```sh\n{shlex.join(load)}\n```")
    said = f"L, ONNX Runtime alone on one thread, query tower and ranker on {CANDIDATES} rows:"
    parts.append(
        f"{said} **{spread(alone, 3)} ms** (ranker {ranker:.3f}), run after run. With a millisecond of sleep before each run, as a server has between "
        f"two requests: {spread(bench.rested, 3)} ms."
    )
    return parts


def python_systems(bench):
    others = [f"{server.name} {bench.starts[server.name]:.1f} s and {bench.memory[server.name]:.0f} MB"
              for server in bench.servers if server.name not in RUST]
    return f" Start to ready and memory of the Python systems: {', '.join(others)}." if others else ""


def write(bench, out):
    out.mkdir(parents=True, exist_ok=True)
    alone = floors(bench)
    low = median(alone)
    parts = [
        "# Benchmarks",
        *introduction(bench, alone),
        systems_table(bench),
        "![p50](benchmarks.svg)",
        "![requests a second](benchmarks-throughput.svg)",
        "## Targets",
        targets_table(bench, low),
        "perf_analyzer measures the server side by loading Triton itself and calling its C API." + python_systems(bench)
        + " [performance.md](performance.md) explains the missed targets, and lists what was tried.",
    ]
    if bench.awake:
        parts += [
            "## Cores that do not halt",
            "Each step of an ensemble wakes a thread. If an idle core halts, as in this virtual machine, waking takes 35 to 60 µs. This table repeats the measurement with a process on each core that spins and yields to any other process (SCHED_IDLE). A machine that polls before it halts behaves like that:",
            awake_table(bench, low),
        ]
    if bench.tails:
        said = ("Requests arrive at random moments (Poisson), at a quarter, half and three quarters of the rate that the system reached with 4 at a time. Each rate ran equally long, with half, all and one and a half times the requests of other figures:")
        parts += ["## Tails", said, tails_table(bench)]
    if bench.candidates:
        said = f"One request at a time over gRPC, and L for as many rows. The number of requests is a third if it is not {CANDIDATES}:"
        parts += ["## Candidates", said, candidates_table(bench)]
    if bench.sizes:
        parts += [
            "## Sizes",
            "`scripts/benchmark/shop` makes these shops. Their models have full size and little training. Each shop has a store and servers of its own, and all systems return the same ids for 50 users. 300 candidates; two rounds. The memory is resident (Pss) after both ensembles in one Triton have answered 2,000 users. Tables of embeddings are mapped from files, and only their used pages count. "
            "[scale.md](scale.md) recommends an index for each size.",
            sizes_table(bench),
            "![growth](benchmarks-growth.svg)",
            "Time that grows, in µs within each of the 14 steps (items / users, index):",
            growth_table(bench),
        ]
        (out / "benchmarks-growth.svg").write_text(growth_chart(bench))
    parts += [
        "## Steps",
        "One request at a time, mean µs of a request (queue / input / infer / output; the output of a step contains Triton's scheduling of the "
        "next ones):",
        steps_table(bench),
    ]
    missing = not_measured(bench)
    parts.append(f"Not measured: {missing}." if missing else "")
    (out / "benchmarks.md").write_text("\n\n".join(filter(None, parts)) + "\n")
    latency = [("ONNX Runtime alone (L)", low)]
    latency += [(server.title, median(of(bench.grpc[server.name, 1], "p50"))) for server in bench.servers]
    (out / "benchmarks.svg").write_text(chart("gRPC p50, one request at a time", "ms", latency, 2))
    rates = [("ONNX Runtime alone (2 / L)", 2e3 / low)]
    rates += [(server.title, median(of(bench.grpc[server.name, 4], "rate"))) for server in bench.servers]
    (out / "benchmarks-throughput.svg").write_text(chart("requests a second, 4 at a time", "1/s", rates, 0))
