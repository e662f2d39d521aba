"""What was measured, as docs/benchmarks.md and its charts."""

from datetime import datetime, timezone
from math import log
from statistics import median

from measure import queueing
from systems import RUST

CONCURRENCY = [1, 2, 4, 8]
CANDIDATES = 300
# How many times fewer requests the slow ones are measured with.
FEWER = {"numpy": 4, "nvtabular": 20}
# How many L a request may take inside the server, and how many ms more than L over gRPC.
SERVER_SIDE = {"saker": 2.0, "fused": 1.0}
OVER_GRPC = {"saker": 0.6, "fused": 0.35}
SHORT = {"saker": "14 steps", "fused": "fused", "numpy": "NumPy", "nvtabular": "NVTabular"}
WHAT = {
    "fused": "the ensemble `ensemble_fused` of the same repository",
    "numpy": "the custom steps as tight NumPy models of Triton's Python backend",
    "nvtabular": "such models, with the three transforms by the real NVTabular 23.8 on pandas, in the Triton model of merlin-systems",
}


def spread(values, digits=2):
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low}–{high})"


def table(heads, rows):
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(row)} |" for row in rows)])


def of(entries, key):
    return [entry[key] for entry in entries]


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
        ratios = [entry["p99"] / entry["p50"] for entry in bench.half_load.get(name, [])]
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
        ("start to ready: 3 s", lambda name: (f"{bench.starts[name]:.1f} s", bench.starts[name] <= 3)),
        (f"400 MB of memory of its own (here with {bench.user_count:,} users; the target is for 300,000)",
         lambda name: (f"{bench.memory[name]:.0f} MB", bench.memory[name] <= 400)),
        (f"transforms: 1 µs for a user, 30 µs for {CANDIDATES} items (here the whole steps' infer time; the transforms alone: [kernels.md](kernels.md))", transforms),
    ]
    rows = []
    for target, measure in targets:
        cells = [measure(server.name) for server in bench.rust]
        if any(cells):
            rows.append([target] + [f"{cell[0]}, {'met' if cell[1] else '**missed**'}" if cell else "–" for cell in cells])
    return table(["target", *(SHORT[server.name] for server in bench.rust)], rows)


def half_load_table(bench):
    rows = []
    for server in bench.rust:
        found = bench.half_load[server.name]
        rows.append([server.title, spread(of(found, "rate"), 0), spread(of(found, "p50")), spread(of(found, "p99"))])
    return table(["system", "requests/s", "p50 ms", "p99 ms"], rows)


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
    if not bench.half_load:
        missing.append("tails at half load")
    if not bench.candidates:
        missing.append("other numbers of candidates")
    return ", ".join([*missing, "other numbers of items and users"])


def chart(title, unit, bars, digits):
    """Horizontal bars on a logarithmic scale, as SVG."""
    width, left, line = 720, 190, 26
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
        f"Written by `scripts/bench` on {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC: {bench.processor}, load average {bench.load_before:.1f} "
        f"before it began, Triton and client on the same cores, gRPC, the retail shop ({bench.item_count:,} items, {bench.user_count:,} users), "
        f"{CANDIDATES} candidates in, 10 out, a real Valkey. Rounds: {arguments.rounds}, with the systems in turn; median (lowest–highest). "
        f"Requests behind a figure of a round: {', '.join([f'{3 * arguments.requests:,}', *fewer])}."
    ]
    if others:
        parts.append(
            f"All systems serve the same release: {'; '.join(f'{name}, {WHAT[name]}' for name in others)}. "
            f"Before anything was timed, they returned the same ids for {arguments.users} users, {within}."
        )
    said = f"L, ONNX Runtime alone on one thread, query tower and ranker on {CANDIDATES} rows:"
    parts.append(f"{said} **{spread(alone, 3)} ms** (ranker {ranker:.3f}).")
    return parts


def python_systems(bench):
    others = [f"{server.name} {bench.starts[server.name]:.1f} s and {bench.memory[server.name]:.0f} MB"
              for server in bench.servers if server.name not in RUST]
    return f" Start to ready and memory of the Python systems: {', '.join(others)}." if others else ""


def write(bench, out):
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
        "The server's side is what perf_analyzer measures when it loads Triton itself and calls its C API." + python_systems(bench)
        + " [performance.md](performance.md) says what holds the targets that are missed, and what was tried.",
    ]
    if bench.half_load:
        said = "Requests at random moments (Poisson), at half the rate that the system reached 4 at a time:"
        parts += ["## Tails", said, half_load_table(bench)]
    if bench.candidates:
        said = f"One request at a time over gRPC, and L for as many rows; a third of the requests where it is not {CANDIDATES}:"
        parts += ["## Candidates", said, candidates_table(bench)]
    parts += [
        "## Steps",
        "One request at a time, mean µs of a request (queue / input / infer / output; the output of a step contains Triton's scheduling of the "
        "next ones):",
        steps_table(bench),
        f"Not measured yet: {not_measured(bench)}.",
    ]
    out.mkdir(parents=True, exist_ok=True)
    (out / "benchmarks.md").write_text("\n\n".join(filter(None, parts)) + "\n")
    latency = [("ONNX Runtime alone (L)", low)]
    latency += [(server.title, median(of(bench.grpc[server.name, 1], "p50"))) for server in bench.servers]
    (out / "benchmarks.svg").write_text(chart("gRPC p50, one request at a time", "ms", latency, 2))
    rates = [("ONNX Runtime alone (2 / L)", 2e3 / low)]
    rates += [(server.title, median(of(bench.grpc[server.name, 4], "rate"))) for server in bench.servers]
    (out / "benchmarks-throughput.svg").write_text(chart("requests a second, 4 at a time", "1/s", rates, 0))
