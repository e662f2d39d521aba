"""docs/metrics.md: its tables are the metrics that the code registers, and say which rules and panels use them."""

import functools
import re

import yaml

import chart
import test_rules

FILE = chart.ROOT / "docs" / "metrics.md"
OURS, RECORDED, OTHERS = "Saker's", "Recorded by the chart's rules", "Of Triton and Kubernetes"
# Of a histogram `x`, what Prometheus has; `x` itself is not a series.
PARTS = ("_bucket", "_sum", "_count")


def table(title):
    """{name: {column: text}} of the table below a heading."""
    section = FILE.read_text().split(f"\n## {title}\n", 1)[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|\n").split(" |")] for line in section.splitlines() if line.startswith("|")]
    columns = [cell.strip("| ") for cell in rows[0]]
    found = {}
    for row in rows[2:]:
        assert len(row) == len(columns), row
        name = row[0].strip("` |")
        assert name not in found, f"{name} stands twice"
        found[name] = dict(zip(columns, row))
    return found


@functools.cache
def sources():
    """{path: text} of the Rust code that serves, without its tests."""
    paths = [*chart.ROOT.glob("backends/*/src/**/*.rs"), *chart.ROOT.glob("crates/*/src/**/*.rs")]
    return {path: path.read_text().split("#[cfg(test)]")[0] for path in paths if path.name != "tests.rs"}


@functools.cache
def registered():
    """{name: type} of every metric that the code registers."""
    found = {}
    for path, text in sources().items():
        # The backends', by Triton's C API.
        found |= {name: kind for kind, name in re.findall(r'\b(counter|gauge)\(\s*"(saker_\w+)"', text)}
        # The gateway's and the follower's, by the crate prometheus-client, which adds `_total` to a counter.
        [prefix] = re.findall(r'sub_registry_with_prefix\("(\w+)"\)', text) or [""]
        for name, field in re.findall(r'\.register\(\s*"(\w+)",\s*"[^"]+",\s*\w+\.(\w+)\.clone\(\)', text):
            [kind] = re.findall(rf"^    {field}: .*?\b(Counter|Gauge|Histogram)\b", text, re.MULTILINE)
            add(found, prefix, name, kind.lower())
        for name in re.findall(r'encode_descriptor\(\s*"(\w+)"[^;]*MetricType::Gauge', text):
            add(found, prefix, name, "gauge")
        for name in re.findall(r'encode_descriptor\(\s*"(\w+)"[^;]*MetricType::Counter', text):
            add(found, prefix, name, "counter")
        for counted in re.findall(r"\[Counted; \d+\] = \[(.*?)\];", text, re.DOTALL):
            for name in re.findall(r'\(\s*"(\w+)"', counted):
                add(found, prefix, name, "counter")
        # That of traces, which a program adds to its text.
        if 'format!("saker_{program}_trace_exports_total")' in text:
            found["saker_updater_trace_exports_total"] = "counter"
        # The updater's, as text.
        if path.parts[-3:] == ("saker-updater", "src", "counters.rs"):
            found |= {f"saker_updater_{name}": "counter" for name in re.findall(r'"(\w+_total)"', text)}
            found |= {f"saker_updater_{name}": kind for name, kind in re.findall(r'metric\(\s*"(\w+)",\s*"(\w+)"', text)}
            found |= {name: "histogram" for name in re.findall(r'let name = "(\w+)"', text)}
    return found


def add(found, prefix, name, kind):
    found["_".join(filter(None, [prefix, name])) + ("_total" if kind == "counter" else "")] = kind


def uses():
    """{metric or recorded series: who reads it, as the tables write it}."""
    found = {}

    def read(expression, reader):
        # What stands in quotes is a value; what follows `by` and the like is a label.
        bare = re.sub(r'"[^"]*"', '""', expression)
        bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
        for name in re.findall(r"\bsaker:[\w:]+|\b(?:nv|saker|kube)_\w+", bare):
            for part in PARTS:
                name = name.removesuffix(part) if name.removesuffix(part) in registered() else name
            readers = found.setdefault(name, [])
            if reader not in readers:
                readers.append(reader)

    for group in test_rules.RULES["groups"]:
        for rule in group["rules"]:
            read(rule["expr"], rule.get("alert") or f"`{rule['record']}`")
    for title, query in test_rules.queries():
        read(query, f'"{title}"')
    return found


def test_the_table_has_what_the_code_registers():
    assert len(registered()) > 35
    documented = {name: row["type"] for name, row in table(OURS).items()}
    assert documented == registered()


def test_the_code_names_no_other_metric():
    """A metric that is registered in a way that `registered` does not know."""
    named = {name for text in sources().values() for name in re.findall(r'"(saker_[a-z_]+_(?:total|seconds|info|rows|ratio|bytes))"', text)}
    # Here without `_total`, which the crate adds.
    assert named - {name.removesuffix("_total") for name in registered()} - set(registered()) == set()
    texts = "".join(sources().values())
    assert len(re.findall(r"sub_registry_with_prefix\(", texts)) == 1
    calls = len(re.findall(r"\.register\(\s*\"", texts))
    assert calls == len([name for name in registered() if re.match(r"saker_(gateway|release|follow|promotion)", name)]) - 4


def test_the_tables_say_who_uses_each():
    used = uses()
    for title in (OURS, RECORDED, OTHERS):
        for name, row in table(title).items():
            said = row["used by"].strip(" |")
            assert said == ", ".join(used.get(name, [])), name


def test_nothing_is_used_that_is_not_in_a_table():
    documented = {name for title in (OURS, RECORDED, OTHERS) for name in table(title)}
    assert set(uses()) <= documented
    recorded = [rule["record"] for group in test_rules.RULES["groups"] for rule in group["rules"] if "record" in rule]
    assert list(table(RECORDED)) == recorded


def test_the_columns_are_filled():
    for title in (OURS, OTHERS):
        for name, row in table(title).items():
            assert row["type"] in ("counter", "gauge", "histogram", "summary"), name
            assert row["unit"] and row["what it says"], name
            assert (row["type"] == "counter") == (name.endswith(("_total", "_us", "_success", "_failure")) and row["type"] != "summary"), name
            if name.endswith("_seconds"):
                assert row["unit"] == "seconds", name


def test_ports_are_those_of_the_chart():
    text = FILE.read_text()
    values = chart.merged(chart.LEAST, {"monitoring": {"podMonitors": True}})
    objects = chart.render(values)
    ports = {}
    for thing, template in chart.pods(objects):
        for _, container in chart.containers(template):
            for port in container.get("ports", []):
                ports[chart.component(thing), port["name"]] = port["containerPort"]
    names = {
        ("triton", "metrics"): "Triton and the backends in it",
        ("triton", "follow"): "follower",
        ("gateway", "admin"): "gateway",
        ("updater", "metrics"): "updater",
    }
    scraped = {
        (chart.component(monitor), endpoint["port"])
        for monitor in chart.of_kind(objects, "PodMonitor")
        for endpoint in monitor["spec"]["podMetricsEndpoints"]
    }
    assert scraped == set(names)
    for where, name in names.items():
        assert f"| {name} | {ports[where]} |" in text


def test_what_is_said_of_recorded_series():
    [group] = [each for each in test_rules.RULES["groups"] if each["name"] == "saker.series"]
    assert f"computes them every {group['interval'].replace('s', ' s')}." in FILE.read_text()
    adapter = yaml.safe_load((chart.FOLDER / "files" / "adapter.yaml").read_text())
    assert {rule["seriesQuery"].split("{")[0] for rule in adapter["rules"]["custom"]} == set(list(table(RECORDED))[:3])
