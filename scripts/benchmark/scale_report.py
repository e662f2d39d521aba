"""docs/scale.md and its plots, of what scale.py has measured."""

import re
import textwrap
from math import log10

import numpy as np

from machine import machine

# Legible on white and on black.
TEXT, GRID = "#767676", "#88888844"
COLOURS = ["#c2410c", "#2b7fd0", "#2f9e5a", "#b0810a", "#9b59b6"]
GB = 1e9
# Recalls for which the fastest index is named.
WANTED = [0.95, 0.99]
# An exact search that takes no longer is not worth approximating: about what the rest of a request takes (docs/performance.md).
BUDGET_US = 1000
# Load average from which on others must have run: the threads that build an index are as many as the cores.
BUSY = 3
# The recall of what is recommended, where it takes no more than twice the budget.
GOOD = 0.98
DIM = 64
# More items than this have narrower embeddings.
WIDE = 2_000_000
USERS = 100_000_000
# A message of protobuf, which an ONNX file without external data is.
ONNX_BYTES = 2**31
SHARDS = 8


def table(heads, rows):
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(row)} |" for row in rows)])


def micro(value):
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def megabytes(count):
    return f"{count / 1e6:,.0f}" if count >= 1e7 else f"{count / 1e6:,.1f}"


def ticks(low, high, logarithmic):
    if not logarithmic:
        step = 10 ** np.floor(log10(high - low))
        step = step / 5 if (high - low) / step < 2 else step / 2 if (high - low) / step < 5 else step
        return np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1) * step
    decades = np.arange(np.floor(log10(low)), np.ceil(log10(high)) + 1)
    found = [10.0**decade * digit for decade in decades for digit in (1, 2, 5)]
    found = [value for value in found if low * 0.999 <= value <= high * 1.001]
    return found if len(found) <= 12 else [value for value in found if log10(value) % 1 < 1e-9]


def label(value):
    return f"{value:,.0f}" if value >= 10 else f"{value + 0.0:.4g}"


def plot(title, x_title, y_title, series, x_log=True, y_log=False):
    """Lines as SVG; `series` is (name, [(x, y, label of the point or "")])."""
    width, height, left, right, top, bottom = 720, 400, 60, 20, 50, 50
    points = [point for _, line in series for point in line]
    (x_low, x_high), (y_low, y_high) = ((min(values), max(values)) for values in zip(*((x, y) for x, y, _ in points)))
    if y_log:
        y_low, y_high = y_low / 1.3, y_high * 1.3
    else:
        y_low, y_high = min(0, y_low), y_high * 1.04
    if x_log:
        x_low, x_high = x_low / 1.2, x_high * 1.3

    def place(value, low, high, start, end, logarithmic):
        share = log10(value / low) / log10(high / low) if logarithmic else (value - low) / (high - low)
        return start + share * (end - start)

    x_of = lambda value: place(value, x_low, x_high, left, width - right, x_log)
    y_of = lambda value: place(value, y_low, y_high, height - bottom, top, y_log)
    parts = [f'<text x="0" y="14" font-weight="bold">{title}</text>',
             f'<text x="{(left + width - right) / 2}" y="{height - 8}" text-anchor="middle">{x_title}</text>',
             f'<text x="0" y="{top - 16}">{y_title}</text>']
    for value in ticks(x_low, x_high, x_log):
        x = x_of(value)
        parts.append(f'<path d="M{x:.1f} {top}V{height - bottom}" stroke="{GRID}"/>'
                     f'<text x="{x:.1f}" y="{height - bottom + 16}" text-anchor="middle">{label(value)}</text>')
    for value in ticks(y_low, y_high, y_log):
        y = y_of(value)
        parts.append(f'<path d="M{left} {y:.1f}H{width - right}" stroke="{GRID}"/>'
                     f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{label(value)}</text>')
    for place_of, (name, line) in enumerate(series):
        colour = COLOURS[place_of % len(COLOURS)]
        path = "L".join(f"{x_of(x):.1f} {y_of(y):.1f}" for x, y, _ in line)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y, text in line:
            parts.append(f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="{3.5 if len(line) > 1 else 6}" fill="{colour}"><title>{name} {text}</title></circle>')
        parts.append(f'<text x="{left + 10 + 130 * place_of}" y="{top - 2}" fill="{colour}" font-weight="bold">{name}</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" '
            f'fill="{TEXT}">{"".join(parts)}</svg>\n')


def when(part):
    busy = ": other programs ran, so times are longer than on an idle machine" if part["load"] > BUSY else ""
    return f"Measured on {part['date']}, load average {part['load']:.1f} before it began{busy}."


def under_load(part):
    """Which of the indexes were measured while other programs ran."""
    busy = [f"`{index['factory']}`" for index in part["found"] if index["load"] > BUSY]
    if not busy:
        return ""
    return f" Other programs ran during these measurements, so times, above all of builds, are longer than on an idle machine: {', '.join(busy)}."


def sizes_of(measured):
    return sorted(int(name) for name in measured if name.isdigit())


def lines_of(part):
    return [line for index in part["found"] for line in index["lines"]]


def fastest(part, recall):
    """The fastest setting that finds this share of the exact answer, Flat included; `None` if there is none."""
    good = [line for line in lines_of(part) if line["recall"] >= recall]
    return min(good, key=lambda line: line["p50_us"], default=None)


def retrieval(line):
    parameters = f', `search_parameters = "{line["parameters"]}"`' if line["parameters"] else ""
    return f'`index = "{line["factory"]}"`{parameters}'


def exact_until(found):
    """The number of items whose exact search takes BUDGET_US, between measurements along a line in logarithms."""
    items, times = ([np.log(line[key]) for line in found] for key in ("items", "p50_us"))
    count = np.exp(np.interp(np.log(BUDGET_US), times, items))
    magnitude = 10 ** np.floor(log10(count))
    return int(np.floor(count / magnitude) * magnitude)


def choosing(measured):
    rows = []
    for size in sizes_of(measured):
        part = measured[str(size)]
        flat = next(line for line in lines_of(part) if line["factory"] == "Flat")
        rows.append([f"{size:,}", "all of it (exact)", retrieval(flat), micro(flat["p50_us"]), f"{flat['build_s']:,.1f}", megabytes(flat["bytes"])])
        for recall in WANTED:
            line = fastest(part, recall)
            if line and line["factory"] != "Flat":
                rows.append([f"{size:,}", f"{line['recall']:.3f}", retrieval(line), micro(line["p50_us"]), f"{line['build_s']:,.0f}", megabytes(line["bytes"])])
    return table(["items", "recall@300", "`[retrieval]`", "p50 µs", "build s", "MB"], rows)


def recommended(part):
    """The fastest approximate setting that is good enough, or if that takes long, one that finds a little less."""
    for recall in [GOOD, WANTED[0]]:
        lines = [line for line in lines_of(part) if line["factory"] != "Flat" and line["recall"] >= recall]
        best = min(lines, key=lambda line: line["p50_us"], default=None)
        if best and (best["p50_us"] <= 2 * BUDGET_US or recall == WANTED[0]):
            return best
    return None


def recommendation(measured):
    if "items" not in measured:
        return None
    most = exact_until(measured["items"]["found"])
    first = (f"- **Up to {most:,} items: `Flat`**, the default. An exact search of that many takes {BUDGET_US / 1e3:.0f} ms, has nothing to tune and is built in "
             "no time. For fewer items an approximate index saves a fraction of a millisecond and loses part of the answer.")
    small = measured.get(str(49_000))
    if small:
        flat = next(line for line in lines_of(small) if line["factory"] == "Flat")
        whole = [line for line in lines_of(small) if line["factory"] != "Flat" and line["recall"] >= 0.9995]
        best = min(whole, key=lambda line: line["p50_us"], default=None)
        if best:
            first += f" To find all of it among 49,000, an inverted file takes {best['p50_us']:.0f} µs (`{best['parameters']}`), `Flat` {flat['p50_us']:.0f} µs."
    parts = [first]
    for size in sizes_of(measured):
        line = recommended(measured[str(size)]) if size > most else None
        if line:
            flat = next(each for each in lines_of(measured[str(size)]) if each["factory"] == "Flat")
            parts.append(f"- **Around {size:,}**: {retrieval(line)} finds {line['recall']:.1%} of the exact 300 in "
                         f"{line['p50_us'] / 1e3:.2f} ms, {flat['p50_us'] / line['p50_us']:,.0f} times faster than `Flat`.")
    parts += [
        "- **Between the sizes**, use about 4 √items lists, and increase the probes until the recall suffices. Measure on your own vectors, because their clusters differ.",
        "- **If memory is short: `SQ8`** in place of the second `Flat` stores a byte for each number, a quarter of the memory. `PQ32` stores half a byte; no `nprobe` recovers its loss of recall.",
    ]
    graphs = [line for size in sizes_of(measured) for line in lines_of(measured[str(size)]) if line["factory"] == "HNSW32" and line["recall"] >= WANTED[0]]
    lists = {line["items"]: fastest(measured[str(line["items"])], WANTED[0]) for line in graphs}
    if graphs and all(line["p50_us"] > 2 * lists[line["items"]]["p50_us"] for line in graphs):
        parts.append("- **Not `HNSW32`** for 300 candidates by inner product: a graph finds the nearest ten well. For 300 it visits so many nodes that an inverted file of the same recall is several times faster, and smaller.")
    return "\n".join(parts)


def curve(part, size, out, graph):
    series = []
    for index in part["found"]:
        if index["lines"]:
            series.append((index["factory"], [(line["p50_us"], line["recall"], line["parameters"]) for line in index["lines"]]))
    # A flat index is a single point: the mark says enough.
    (out / f"scale-{size}.svg").write_text(
        plot(f"{size:,} items × {DIM}: recall@300 against p50", "p50 of one query on one thread, µs (logarithmic)", "recall@300", series))
    rows = []
    for index in part["found"]:
        for line in index["lines"]:
            rows.append([f"`{line['factory']}`", f"`{line['parameters']}`" if line["parameters"] else "", f"{line['recall']:.3f}", micro(line["p50_us"]),
                         micro(line["p99_us"]), f"{line['build_s']:,.1f}", megabytes(line["bytes"])])
        if not index["whole"]:
            rows.append([f"`{index['factory']}`", "not within the limit", "", "", "", "", ""])
    heads = ["index", "search parameters", "recall@300", "p50 µs", "p99 µs", "build s", "MB"]
    count = lines_of(part)[0]["queries"]
    left_out = f" Not measured this time: {', '.join(f'`{factory}`' for factory in part['missing'])}." if part.get("missing") else ""
    return "\n\n".join([f"## {size:,} items", f"Measured on {part['date']}. {count:,} queries.{under_load(part)}{left_out}{no_graph(size, graph)}",
                        f"![recall against latency](scale-{size}.svg)", table(heads, rows)])


def no_graph(size, graph):
    if size <= WIDE or graph is None:
        return ""
    return (f" No `HNSW32`: {graph['items']:,} items took {graph['build_s']:,.0f} s to build and {megabytes(graph['bytes'])} MB, "
            f"and {size / graph['items']:.0f} times as many take more than {size / graph['items']:.0f} times that.")


def items_section(part, out):
    found = part["found"]
    line = [(each["items"], each["p50_us"], "") for each in found]
    (out / "scale-items.svg").write_text(
        plot("Exact search by the number of items", "items (logarithmic)", "p50 of one query on one thread, µs (logarithmic)", [("Flat", line)], y_log=True))
    rows = [[f"{each['items']:,}", micro(each["p50_us"]), f"{1e3 * each['p50_us'] / each['items']:.2f}", megabytes(each["bytes"])] for each in found]
    return "\n\n".join(["## Search by items", f"`Flat` over the first vectors of the largest of these shops with at most 1,000,000 items. {when(part)}",
                        "![exact search by items](scale-items.svg)", table(["items", "p50 µs", "ns an item", "MB"], rows),
                        "Time is proportional to the items. It grows faster once the vectors exceed the caches."])


def features_section(part, out):
    by_rows = {}
    for each in part["found"]:
        by_rows.setdefault(each["rows"], {})[each["columns"]] = each["p50_us"]
    names = {1: "one user row", 300: "300 item rows"}
    series = [(names[rows], [(columns, taken, "") for columns, taken in line.items()]) for rows, line in by_rows.items()]
    (out / "scale-features.svg").write_text(plot("Transforms by the number of feature columns", "columns (logarithmic)", "µs (logarithmic)", series, y_log=True))
    rows = [[str(columns), *(f"{line[columns]:.2f}" for line in by_rows.values())] for columns in next(iter(by_rows.values()))]
    slopes = ", ".join(f"{(line[64] - line[4]) / 60 * 1e3:.0f} ns a column for {names[rows]}" for rows, line in by_rows.items())
    return "\n\n".join([
        "## Transforms by features",
        f"Half of the columns are Categorify over 1,000 ids, the other half Normalize. The table has the kernel of `feature_transform` without Triton, with all data in the caches. {when(part)}",
        "![transforms by features](scale-features.svg)", table(["columns", *(f"µs, {names[rows]}" for rows in by_rows)], rows),
        f"Linear from four columns on: {slopes}."])


def vocabularies_section(part):
    rows = []
    slopes = {}
    for kind in ["dense", "sparse"]:
        found = [each for each in part["found"] if each["kind"] == kind]
        for each in found:
            ids = each["ids"]
            rows.append([f"{ids:,}", kind, megabytes(each["bytes"]), f"{each['bytes'] / ids:.0f}", megabytes(each["peak_bytes"]), f"{each['load_s']:.2f}",
                         f"{each['lookup_ns']:.0f}", megabytes(each["file_bytes"])])
        # Through the origin: what an id takes.
        ids = np.array([each["ids"] for each in found], dtype=float)
        slopes[kind] = {key: float(ids @ [each[key] for each in found] / (ids @ ids)) for key in ("bytes", "peak_bytes", "load_s", "file_bytes")}
        slopes[kind]["lookup_ns"] = found[-1]["lookup_ns"]
    heads = ["ids", "kind", "MB", "bytes an id", "peak MB while loading", "load s", "lookup ns", "file MB"]
    slope_rows = [[kind, *(f"{slope[key]:.0f}" for key in ("bytes", "peak_bytes", "file_bytes")), f"{slope['load_s'] * 1e6:.2f}"]
                  for kind, slope in slopes.items()]
    text = ["## Vocabularies",
            "`feature_transform` loads a workflow of one Categorify. The table has the resident memory that the load adds, its peak, its time, and the time "
            "to look up a random known id (mean of 2,000,000, so mostly outside the caches). "
            f"Dense ids are 0, 3, 6 …; sparse ids are 62 random bits. {when(part)}",
            table(heads, rows),
            "A hash table doubles when it is full, so the bytes per sparse id depend on its load. The slopes are least squares through the origin:",
            table(["kind", "bytes an id", "peak bytes an id", "file bytes an id", "load µs an id"], slope_rows)]
    return "\n\n".join(text + [on_paper(slopes)])


def on_paper(slopes):
    dense, sparse = slopes["dense"], slopes["sparse"]
    users = USERS
    total = lambda slope, key: slope[key] * users
    embedding = users * DIM * 4
    rows = []
    for name, slope in slopes.items():
        rows.append([f"vocabulary, {name} ids", f"{total(slope, 'bytes') / GB:.1f} GB, {total(slope, 'peak_bytes') / GB:.1f} GB while it loads",
                     f"{total(slope, 'load_s'):.0f} s to load", f"{total(slope, 'bytes') / GB / SHARDS:.1f} GB, {total(slope, 'load_s') / SHARDS:.0f} s"])
    rows.append([f"embeddings, f32 × {DIM}", f"{embedding / GB:.1f} GB; {3 * embedding / GB:.1f} GB while it trains (two moments of Adam)", "", f"{embedding / GB / SHARDS:.1f} GB"])
    rows.append([f"embeddings, int8 × {DIM}, a scale each", f"{users * (DIM + 4) / GB:.1f} GB", "", f"{users * (DIM + 4) / GB / SHARDS:.1f} GB"])
    return f"""## 100 million users, on paper

Nothing was measured at this size, and of this section only the mapped embeddings exist. The first two rows are computed from the slopes above, the others from the sizes.

{table(["what", "one server", "", f"each of {SHARDS} shards"], rows)}

Ids of a pipeline have 31 bits. Random ids are sparse; ids that are numbered at sign-up are dense. Codes have 32 bits, far more than needed. `saker train` writes each model as one ONNX file, whose size is limited to {ONNX_BYTES / 2**30:.0f} GiB: {DIM} numbers for each of
{ONNX_BYTES // (DIM * 4):,} users, so the embeddings reach their limit well before the vocabulary. Query tower and ranker hold one row each for a user, which is twice the rows of the table.

**Fewer rows** come first, and need only a change of the definition:

- Categorify with `freq_threshold` drops rarer ids, and `max_size` keeps the most frequent ones. The dropped ids share the `num_buckets` out-of-vocabulary codes. The vector of a user with two events is not worth 256 bytes.
- HashBucket needs no vocabulary: 10,000,000 buckets are {10_000_000 * DIM * 4 / GB:.2f} GB of embeddings and 10 users to a bucket. Items must stay in a vocabulary, since
  answers are decoded with it.
- A user described by recent behaviour (such as `top_category`) instead of an id needs no row, and new users need no training.

**Shards by the hash of the user id.** Only the user steps need vocabulary and embeddings. Therefore {SHARDS} servers each hold the users with hash(id) mod {SHARDS} = i, and all hold the
items. The gateway would send a request to its user's server. No step runs on several servers, and the cost of a request does not change. `saker prepare` would write {SHARDS} vocabularies
and as many slices of the embedding table. Several model instances in one server already share one vocabulary; they are not shards.

**A memory-mapped table** keeps one server. Sorted ids (8 bytes) with their codes (4) are {users * 12 / GB:.1f} GB on disk, in place of {total(sparse, 'bytes') / GB:.1f} GB in memory: a load is a call of mmap, processes share the pages, and memory holds the requested pages only. With the first id of each page of 4 KiB in memory ({users * 12 / 4096 * 8 / 1e6:.1f} MB) a lookup reads one page:
below 1 µs if it is cached, about 100 µs from an NVMe disk otherwise. The embeddings of a served release are mapped already, from a file beside the model: {embedding / GB:.1f} GB on disk, one page for each request. With a tenth of
the users making most of the requests, {users * 12 / GB / 10 + embedding / GB / 10:.1f} GB of cached pages (both tables) serve most of them, if the pages are sorted by activity.

**A leaner vocabulary.** A serving process keeps the ids (16 bytes, an optional i64), their counts (8) and the index over them. Requests need the index alone; decoding items needs the ids; serving never reads the counts. Without both, 100 million dense ids take {max(0, dense['bytes'] - 24) * users / GB:.1f} GB and sparse ones
{max(0, sparse['bytes'] - 24) * users / GB:.1f} GB."""


def shops_section(measured):
    rows = []
    for size in sizes_of(measured):
        shop = measured[str(size)]["shop"]
        width = "64 wide" if size <= WIDE else "16 wide"
        rows.append([f"{size:,}", f"{shop['users']:,}", f"{shop['interactions']:,}", width, f"{shop['trained']}, one epoch"])
    return f"""## The shops

`scripts/benchmark/shop ITEMS USERS INTERACTIONS STATE` makes, prepares and trains the shops. These were measured:

{table(["items", "users", "drawn interactions", "embeddings of ids and content", "trained"], rows)}

- Only items with a training event have a code and are in the index. An item without a drawn event gets one view by a user who met an item of its category. A user without an event gets one of an item that a user of the same gender met. Most items of the large shops have no other event. As in a shop with a long tail, their vectors encode category, price and content.
- The vectors of texts and pictures are random: normal around a normal centre for each of the 37 categories. They replace 1,000,000 pictures.
- The towers' vectors are 64 wide in all of them. Ten million items have narrower embeddings, since an ONNX file holds 2 GiB and the optimiser three numbers for each parameter.
- The ranker's negatives are all uniform. Hard ones would need the candidates of all users, 3,000,000 exact searches of 1,000,000 items.
- Recall depends on how vectors cluster. Those of ten million items come from narrower embeddings and cluster more, so the same share of the lists finds more there.
- Models trained for one epoch serve for measuring cost and recall, not for good answers."""


def wrapped(part):
    """Paragraphs and points in lines of at most 160 characters; tables, headings and pictures as they are."""
    if part.startswith(("|", "#", "!")):
        return part
    points = re.split(r"\n(?=- )", part)
    fill = lambda text: textwrap.fill(" ".join(text.split()), 150, subsequent_indent="  " if text.startswith("- ") else "",
                                      break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(fill, points))


def write(measured, out):
    out.mkdir(parents=True, exist_ok=True)
    sizes = sizes_of(measured)
    parts = [
        "# Scale",
        f"Written by `scripts/bench-scale`: {machine()}. This page shows how search, vocabularies and transforms scale without Triton. [benchmarks.md](benchmarks.md) shows how the whole server scales.",
        "`saker-index`, the FAISS binding of `faiss_retrieval`, builds the indexes on all cores. It searches 300 neighbours by inner product, one query at a time on one thread. "
        "Vectors come from trained candidate towers, queries from the trained query tower for random users ([the shops](#the-shops)). Recall@300 is the found share of the exact 300. Build is training and adding. MB is the size of the index's file, which equals its memory.",
    ]
    if sizes:
        parts += ["## Which index", recommendation(measured), "The fastest setting of each size at a recall of "
                  + " and ".join(str(recall) for recall in WANTED) + ", among all settings in the tables below:", choosing(measured)]
        graph = next((line for size in reversed(sizes) for line in lines_of(measured[str(size)]) if line["factory"] == "HNSW32"), None)
        parts += [curve(measured[str(size)], size, out, graph) for size in sizes]
    if "items" in measured:
        parts.append(items_section(measured["items"], out))
    if "features" in measured:
        parts.append(features_section(measured["features"], out))
    if "vocabularies" in measured:
        parts.append(vocabularies_section(measured["vocabularies"]))
    parts.append(shops_section(measured))
    paragraphs = "\n\n".join(filter(None, parts)).split("\n\n")
    (out / "scale.md").write_text("\n\n".join(map(wrapped, paragraphs)) + "\n")
