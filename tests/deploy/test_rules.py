"""Recorded series, alerts, KEDA's queries and the dashboard, by promtool: what they compute, when they fire and when not."""

import json
import re
import subprocess

import pytest
import yaml

import chart

FILE = chart.FOLDER / "files" / "rules.yaml"
RULES = yaml.safe_load(FILE.read_text())
DASHBOARD = json.loads((chart.FOLDER / "files" / "dashboard.json").read_text())
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}
TRITON = 'namespace="default",pod="saker-triton-1"'
OTHER = 'namespace="default",pod="saker-triton-2"'
GATEWAY = 'namespace="default",pod="saker-gateway-1"'
UPDATER = 'namespace="default",pod="saker-updater-0"'

# Series of promtool: start+step×samples, a sample every 15 s.
HOUR = 240


def promtool(*arguments):
    ran = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    return ran.returncode, ran.stdout + ran.stderr


def steady(start, step, samples=HOUR):
    return f"{start}+{step}x{samples}"


def still(value, samples=HOUR):
    return f"{value}x{samples}"


def run(folder, tests, every="15s", group=None):
    """Runs tests of series: each {name, series, asked: [(at, query, [(labels, value)])]}; by all rules, or by one group's."""
    rules = folder / "rules.yaml"
    wanted = [each for each in RULES["groups"] if group in (None, each["name"])]
    rules.write_text(yaml.safe_dump({"groups": wanted}))
    document = {
        "rule_files": [str(rules)],
        "evaluation_interval": every,
        "tests": [
            {
                "interval": "15s",
                "name": test["name"],
                "input_series": [{"series": name, "values": values} for name, values in test["series"].items()],
                "promql_expr_test": [
                    {
                        "expr": query,
                        "eval_time": at,
                        "exp_samples": [{"labels": labels, "value": value} for labels, value in expected],
                    }
                    for at, query, expected in test["asked"]
                ],
            }
            for test in tests
        ],
    }
    path = folder / "tests.yaml"
    path.write_text(yaml.safe_dump(document, width=1000))
    status, output = promtool("test", "rules", str(path))
    assert status == 0, output


def load(pod, *, wait_ms=10, per_second=100, duration_ms=30):
    """Counters of a pod with two steps that wait `wait_ms` each, and two models that do nothing."""
    every = 15 * per_second
    series = {}
    for model in ("query_tower", "dlrm_ranking"):
        series[f'nv_inference_queue_duration_us{{{pod},model="{model}"}}'] = steady(0, every * wait_ms * 1000)
        series[f'nv_inference_request_success{{{pod},model="{model}"}}'] = steady(0, every)
    for model in ("unroll_features", "item_id_decoder"):
        series[f'nv_inference_queue_duration_us{{{pod},model="{model}"}}'] = still(0)
        series[f'nv_inference_request_success{{{pod},model="{model}"}}'] = steady(0, every)
    series[f'nv_inference_queue_duration_us{{{pod},model="ensemble_model"}}'] = still(0)
    series[f'nv_inference_request_success{{{pod},model="ensemble_model"}}'] = steady(0, every)
    series[f'nv_inference_request_failure{{{pod},model="ensemble_model",reason="OTHER"}}'] = still(0)
    series[f'nv_inference_request_duration_us{{{pod},model="ensemble_model"}}'] = steady(0, every * duration_ms * 1000)
    series[f'nv_inference_pending_request_count{{{pod},model="dlrm_ranking"}}'] = still(1)
    return series


def restarted(series):
    """The same counters, which begin at 0 again after five minutes."""
    counters = {name: values for name, values in series.items() if "+" in values}
    return {**series, **{name: values.replace("x240", "x20") + " " + values.replace("x240", "x219") for name, values in counters.items()}}


REFERENCE = (
    "avg(delta(nv_inference_queue_duration_us[30s])/(1+delta(nv_inference_request_success[30s]))/1000) by (namespace)"
)


def labels(text, name=""):
    return name + "{" + text + "}"


def test_rules_are_valid():
    status, output = promtool("check", "rules", str(FILE))
    assert status == 0, output


def test_rules_of_a_release_are_valid_and_its_own(tmp_path):
    values = chart.merged(chart.LEAST, {"monitoring": {"rules": True}})
    for release, namespace in (("shop", "prod"), ("saker", "default")):
        [rule] = chart.of_kind(chart.render(values, name=release, namespace=namespace), "PrometheusRule")
        path = tmp_path / "rules.yaml"
        path.write_text(yaml.safe_dump(rule["spec"]))
        status, output = promtool("check", "rules", str(path))
        assert status == 0, output
        text = json.dumps(rule["spec"]["groups"])
        if release == "shop":
            assert "default" not in text and '\\"saker-' not in text and "?saker-" not in text
            for wanted in ("shop-saker-triton-.+", "(keda-hpa-)?shop-saker-(triton|gateway)", 'namespace=\\"prod\\"'):
                assert wanted in text
        else:
            assert rule["spec"] == RULES


def test_every_series_is_of_this_release():
    """Another Triton in the namespace, or another release, must not count."""
    for rule in (rule for group in RULES["groups"] for rule in group["rules"]):
        for name, selector in re.findall(r"\b((?:nv|saker|kube)_\w+)(\{[^}]*\})?", rule["expr"]):
            assert 'namespace="default"' in selector, f"{name} in {rule}"
            assert re.search(r'(pod|horizontalpodautoscaler)=~"(\(keda-hpa-\)\?)?saker-', selector), f"{name} in {rule}"


def test_queue_time(tmp_path):
    """The four cases of the query, and the reference's, which is wrong by the number of models."""
    mine = labels(TRITON, "saker:queue_ms:avg2m")
    asked = "saker:queue_ms:avg2m"
    busy, idle = load(TRITON), load(TRITON, per_second=0)
    run(
        tmp_path,
        [
            {"name": "20 ms are 20 ms", "series": busy, "asked": [("10m", asked, [(mine, 20)])]},
            {
                "name": "the reference says a fifth",
                "series": busy,
                # Five series, of which two wait; 1 + in the divisor.
                "asked": [("10m", f"round(1000 * {REFERENCE})", [('{namespace="default"}', 3999)])],
            },
            {"name": "no traffic is 0, not NaN", "series": idle, "asked": [("10m", asked, [(mine, 0)])]},
            {
                "name": "a restart does not count",
                "series": restarted(busy),
                "asked": [("6m", f"round({asked}, 0.01)", [("{" + TRITON + "}", 20)])],
            },
            {
                "name": "each pod has its own",
                "series": {**load(TRITON, wait_ms=1), **load(OTHER, wait_ms=5)},
                "asked": [("10m", asked, [(mine, 2), (labels(OTHER, asked), 10)])],
            },
            {
                "name": "another Triton of the namespace does not count",
                "series": {**busy, **load('namespace="default",pod="llm-triton-0"', wait_ms=500)},
                "asked": [("10m", asked, [(mine, 20)])],
            },
        ],
        group="saker.series",
    )


def test_concurrency_and_pending(tmp_path):
    concurrency, pending = "saker:concurrency:avg1m", "saker:pending:max1m"
    # Little's law: 100 requests a second of 30 ms are 3 in flight.
    series = load(TRITON)
    series[f'nv_inference_pending_request_count{{{TRITON},model="query_tower"}}'] = "0x30 9x1 0x200"
    run(
        tmp_path,
        [
            {
                "name": "Little's law",
                "series": series,
                "asked": [
                    ("10m", concurrency, [(labels(TRITON, concurrency), 3)]),
                    # A peak between two looks of the autoscaler is seen for a minute: 9 and the other step's 1.
                    ("8m", pending, [(labels(TRITON, pending), 10)]),
                    ("12m", pending, [(labels(TRITON, pending), 1)]),
                ],
            },
            {
                "name": "idle",
                "series": load(TRITON, per_second=0),
                "asked": [("10m", concurrency, [(labels(TRITON, concurrency), 0)])],
            },
        ],
        group="saker.series",
    )


def test_queries_of_keda(tmp_path):
    """The sum of two pods, which KEDA divides by two; the mean of all requests, which it does not."""
    values = chart.value_sets()

    def queries(name):
        [scaler] = chart.of_kind(chart.render(values[name], name="saker", namespace="default"), "ScaledObject")
        return [trigger["metadata"]["query"] for trigger in scaler["spec"]["triggers"]]

    concurrency, pending = queries("keda-concurrency")
    queue, _ = queries("keda-queue")
    # 100 requests that wait 4 ms and 300 that wait 12 ms: 10 ms in the mean of requests, not of pods.
    two = {**load(TRITON, wait_ms=2), **load(OTHER, wait_ms=6, per_second=300)}
    two.update(load('namespace="other",pod="saker-triton-1"', wait_ms=99))
    two.update(load('namespace="default",pod="saker-gateway-1"', wait_ms=99))
    run(
        tmp_path,
        [
            {
                "name": "two pods",
                "series": two,
                "asked": [("10m", concurrency, [("{}", 12)]), ("10m", queue, [("{}", 10)]), ("10m", pending, [("{}", 2)])],
            },
            {
                "name": "no traffic",
                "series": load(TRITON, per_second=0),
                "asked": [("10m", concurrency, [("{}", 0)]), ("10m", queue, [("{}", 0)])],
            },
        ],
        group="saker.series",
    )


def test_adapter_has_the_metrics_of_the_autoscaler():
    adapter = yaml.safe_load((chart.FOLDER / "files" / "adapter.yaml").read_text())
    series = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
    offered = {}
    for rule in adapter["rules"]["custom"]:
        offered[rule["name"]["as"]] = rule["seriesQuery"].split("{")[0]
        assert rule["resources"]["overrides"] == {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}
    assert set(offered.values()) <= series
    values = chart.value_sets()
    for name in ("hpa-concurrency", "hpa-queue"):
        [scaler] = chart.of_kind(chart.render(values[name]), "HorizontalPodAutoscaler")
        for metric in scaler["spec"]["metrics"]:
            assert metric["pods"]["metric"]["name"] in offered


def triton(metric, values, more="", pod=TRITON):
    return {f"{metric}{{{pod}{',' if more else ''}{more}}}": values}


def serving(*, success, failure=None, pending=None):
    """A pod's ensemble: requests answered, failed and waiting."""
    series = triton("nv_inference_request_success", success, 'model="ensemble_model"')
    if failure:
        series.update(triton("nv_inference_request_failure", failure, 'model="ensemble_model",reason="OTHER"'))
    if pending:
        series.update(triton("nv_inference_pending_request_count", pending, 'model="dlrm_ranking"'))
    return series


def answers(total, degraded, reason="triton_deadline"):
    return {
        f'saker_gateway_requests_total{{{GATEWAY},route="/recommendations",method="GET",status="200"}}': total,
        f'saker_gateway_degraded_total{{{GATEWAY},reason="{reason}"}}': degraded,
    }


def updater(**counters):
    return {f"saker_updater_{name}{{{UPDATER}}}": values for name, values in counters.items()}


def latency(fast, slow):
    """Events applied within 5 s, and those that took 10 s, each 15 s."""
    bucket = f"saker_updater_apply_seconds_bucket{{{UPDATER},le=\"%s\"}}"
    return {
        bucket % "1": steady(0, fast),
        bucket % "10": steady(0, fast + slow),
        bucket % "+Inf": steady(0, fast + slow),
    }


def replicas(current, most):
    autoscaler = 'namespace="default",horizontalpodautoscaler="keda-hpa-saker-triton"'
    return {
        f"kube_horizontalpodautoscaler_status_current_replicas{{{autoscaler}}}": current,
        f"kube_horizontalpodautoscaler_spec_max_replicas{{{autoscaler}}}": most,
    }


def released(served, wanted, pod=TRITON):
    return {
        **triton("saker_release_info", still(1), f'release="{served}"', pod),
        **triton("saker_release_wanted_info", still(1), f'release="{wanted}"', pod),
    }


def restarts(values):
    return {f'kube_pod_container_status_restarts_total{{{TRITON},container="triton"}}': values}


# Alert: when it is asked; series with which it fires, and series near by with which it does not.
CASES = {
    "SakerReleaseNotServed": ("20m", released("a", "b"), released("b", "b")),
    "SakerReleasesDiffer": (
        "20m",
        {**released("a", "a"), **released("b", "b", OTHER)},
        {**released("a", "a"), **released("a", "a", OTHER)},
    ),
    "SakerPromotionRefused": (
        "20m",
        triton("saker_promotions_total", "0x60 1x60", 'outcome="refused"'),
        {
            **triton("saker_promotions_total", "0x60 1x60", 'outcome="served"'),
            **triton("saker_promotions_total", still(1), 'outcome="refused"'),
        },
    ),
    "SakerFollowErrors": (
        "20m",
        triton("saker_follow_errors_total", steady(0, 1)),
        triton("saker_follow_errors_total", "0x40 1x10 2x100"),
    ),
    "SakerTrainingMissing": (
        "30m",
        triton("saker_release_age_seconds", steady(37 * 3600, 15)),
        # A pod that has just got the new release tells that there is one.
        {
            **triton("saker_release_age_seconds", steady(37 * 3600, 15)),
            **triton("saker_release_age_seconds", steady(60, 15), pod=OTHER),
        },
    ),
    "SakerQueueHigh": ("20m", load(TRITON, wait_ms=15), load(TRITON, wait_ms=9)),
    "SakerStalled": (
        "20m",
        serving(success=f"{steady(0, 1500, 40)} {still(60000, 100)}", failure=still(0), pending=f"{still(1, 40)} {still(7, 100)}"),
        serving(success=steady(0, 1), failure=still(0), pending=still(7)),
    ),
    "SakerErrors": (
        "20m",
        serving(success=steady(0, 960), failure=steady(0, 40)),
        serving(success=steady(0, 995), failure=steady(0, 5)),
    ),
    "SakerDegraded": ("20m", answers(steady(0, 1000), steady(0, 20)), answers(steady(0, 1000), steady(0, 5))),
    "SakerLookupsFindNobody": (
        "20m",
        triton("saker_feature_lookup_finds_nobody", still(1), 'model="feast_user_lookup",version="1"'),
        triton("saker_feature_lookup_finds_nobody", still(0), 'model="feast_user_lookup",version="1"'),
    ),
    # Items' features are renewed every five minutes.
    "SakerCacheStale": (
        "40m",
        triton("saker_feature_lookup_refresh_failures_total", "0x20 1x20 2x20 3x20 4x20 5x20 6x100", 'model="feast_item_lookup"'),
        triton("saker_feature_lookup_refresh_failures_total", "0x20 1x200", 'model="feast_item_lookup"'),
    ),
    "SakerUpdaterBacklog": ("20m", updater(backlog=still(20000)), updater(backlog="20000x20 100x100")),
    "SakerUpdaterLate": ("30m", latency(90, 10), latency(1000, 1)),
    "SakerEventsRejected": (
        "20m",
        updater(events_rejected_total="0x70 3x50"),
        updater(events_rejected_total=still(3)),
    ),
    "SakerEventsRefused": (
        "20m",
        {f'saker_gateway_events_total{{{GATEWAY},outcome="full"}}': steady(0, 5)},
        {f'saker_gateway_events_total{{{GATEWAY},outcome="duplicate"}}': steady(0, 5)},
    ),
    "SakerStoreDown": (
        "20m",
        answers(steady(0, 1000), steady(0, 9), "store_unreachable"),
        answers(steady(0, 1000), steady(0, 9), "triton_deadline"),
    ),
    "SakerOfflineStoreLag": (
        "45m",
        updater(events_applied_total=steady(0, 10), offline_rows_total=still(5)),
        updater(events_applied_total=steady(0, 10), offline_rows_total=steady(0, 10)),
    ),
    "SakerNearMaxReplicas": ("30m", replicas(still(12), still(12)), replicas(still(11), still(12))),
    "SakerPodRestarts": ("30m", restarts("0x20 1x20 2x20 3x60"), restarts("0x20 1x100")),
}
# The same by the updater alone, which no visitor notices.
ALSO_FIRES = {"SakerStoreDown": ("20m", updater(store_failures_total=steady(0, 1)))}


def test_there_are_enough_alerts_and_each_has_a_case():
    assert len(ALERTS) >= 15
    assert set(CASES) == set(ALERTS)


@pytest.mark.slow
@pytest.mark.parametrize("alert", CASES)
def test_alert(alert, tmp_path):
    at, firing, quiet = CASES[alert]
    asked = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) > 0'
    tests = [
        {"name": f"{alert} fires", "series": firing, "asked": [(at, f"clamp_max({asked}, 1)", [("{}", 1)])]},
        {"name": f"{alert} keeps quiet", "series": quiet, "asked": [(at, asked, [])]},
    ]
    if alert in ALSO_FIRES:
        at, series = ALSO_FIRES[alert]
        tests.append({"name": f"{alert} fires, too", "series": series, "asked": [(at, f"clamp_max({asked}, 1)", [("{}", 1)])]})
    run(tmp_path, tests, every="1m")


def test_nothing_fires_where_all_is_well(tmp_path):
    series = {
        **load(TRITON, wait_ms=1),
        **released("a", "a"),
        **triton("saker_release_age_seconds", steady(3600, 15)),
        **triton("saker_follow_errors_total", still(0)),
        **triton("saker_promotions_total", still(1), 'outcome="served"'),
        **triton("saker_promotions_total", still(0), 'outcome="refused"'),
        **triton("saker_feature_lookup_finds_nobody", still(0), 'model="feast_user_lookup",version="1"'),
        **triton("saker_feature_lookup_refresh_failures_total", still(0), 'model="feast_item_lookup"'),
        **answers(steady(0, 1000), still(0)),
        **updater(
            backlog=still(40),
            events_applied_total=steady(0, 10),
            offline_rows_total=steady(0, 10),
            events_rejected_total=still(0),
            store_failures_total=still(0),
        ),
        **latency(1000, 0),
        **replicas(still(3), still(12)),
        **restarts(still(0)),
    }
    run(tmp_path, [{"name": "all is well", "series": series, "asked": [("50m", "ALERTS", [])]}], every="1m")


def test_a_stall_shows_only_in_pending_requests(tmp_path):
    """Counters move when a request ends: the queue of a server that hangs is 0."""
    frozen = {}
    for name, values in load(TRITON).items():
        start, step = re.fullmatch(r"(\d+)(?:\+(\d+))?x240", values).groups()
        end = int(start) + 40 * int(step or 0)
        frozen[name] = f"{values.replace('x240', 'x40')} {end}x200"
    run(
        tmp_path,
        [
            {
                "name": "a server that hangs",
                "series": frozen,
                "asked": [
                    ("20m", "saker:queue_ms:avg2m", [(labels(TRITON, "saker:queue_ms:avg2m"), 0)]),
                    ("20m", 'count(ALERTS{alertname="SakerStalled", alertstate="firing"})', [("{}", 1)]),
                ],
            }
        ],
    )


def test_an_alert_names_the_pod_and_the_release(tmp_path):
    alert = ALERTS["SakerReleaseNotServed"]
    document = {
        "rule_files": [str(FILE)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": n, "values": v} for n, v in released("a", "b").items()],
                "alert_rule_test": [
                    {
                        "eval_time": "20m",
                        "alertname": "SakerReleaseNotServed",
                        "exp_alerts": [
                            {
                                "exp_labels": {
                                    "severity": "warning",
                                    "namespace": "default",
                                    "pod": "saker-triton-1",
                                    "release": "b",
                                },
                                "exp_annotations": {
                                    "summary": "saker-triton-1 does not serve b, which is wanted.",
                                    "description": alert["annotations"]["description"],
                                },
                            }
                        ],
                    }
                ],
            }
        ],
    }
    path = tmp_path / "alert.yaml"
    path.write_text(yaml.safe_dump(document, width=1000))
    status, output = promtool("test", "rules", str(path))
    assert status == 0, output


def test_alerts_say_what_to_do():
    for name, rule in ALERTS.items():
        assert name.startswith("Saker")
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}


# --- the dashboard ----------------------------------------------------------------------------


def panels(board):
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def queries():
    """(title, query) of every panel and annotation, with Grafana's variables filled in."""
    found = []
    for panel in panels(DASHBOARD):
        found += [(panel["title"], target["expr"]) for target in panel.get("targets", [])]
    found += [(each["name"], each["expr"]) for each in DASHBOARD["annotations"]["list"] if "expr" in each]
    filled = {
        "$__rate_interval": "1m",
        "$namespace": "default",
        "$release": "saker",
        "$step": "dlrm_ranking",
    }
    for title, query in found:
        for name, value in filled.items():
            query = query.replace(name, value)
        yield title, query


def test_queries_of_the_dashboard_are_valid(tmp_path):
    rules = [{"record": f"panel:{place}", "expr": query} for place, (_, query) in enumerate(queries())]
    assert len(rules) >= 20
    for title, query in queries():
        assert "$" not in query, f"{title}: {query}"
    path = tmp_path / "dashboard.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    status, output = promtool("check", "rules", str(path))
    assert status == 0, output


def test_the_dashboard_has_a_row_for_each_step():
    contract = {path.name for path in (chart.ROOT / "model_repository").iterdir() if path.is_dir()}
    [steps] = [v for v in DASHBOARD["templating"]["list"] if v["name"] == "step"]
    assert set(steps["query"].split(",")) == contract - {"ensemble_model", "ensemble_fused"}
    [row] = [panel for panel in DASHBOARD["panels"] if panel.get("repeat") == "step"]
    titles = {panel["title"] for panel in row.get("panels") or DASHBOARD["panels"][DASHBOARD["panels"].index(row) :]}
    assert {"Requests", "p50 and p99", "Queue", "Compute"} <= titles
    assert any(each.get("expr", "").startswith("saker_release_info") or "saker_release_info" in each.get("expr", "")
               for each in DASHBOARD["annotations"]["list"])
