"""deploy/pipelines/schedule.py, by kfp's own client, against a stand-in that keeps what Kubeflow's API is asked to make.

Kubeflow itself cannot run here: what is shown is what it would be asked.
"""

import http.server
import json
import os
import re
import subprocess
import threading
import urllib.parse

import pytest

import chart
from test_pipelines import COMPILED, FOLDER, PYTHON, SCHEDULES

pytestmark = pytest.mark.slow
KEYS = {"experiments": "experiment_id", "pipelines": "pipeline_id", "versions": "pipeline_version_id", "recurringruns": "recurring_run_id"}


class Api(http.server.BaseHTTPRequestHandler):
    """Experiments, pipelines, versions and recurring runs, as lists in `self.server.made`."""

    def log_message(self, *_):
        pass

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def make(self, kind, value):
        made = self.server.made[kind]
        value = {**value, KEYS[kind]: f"{kind}-{len(made) + 1}"}
        made.append(value)
        self.answer(value)

    def parts(self):
        url = urllib.parse.urlparse(self.path)
        query = {key: values[0] for key, values in urllib.parse.parse_qs(url.query).items()}
        return url.path.removeprefix("/apis/v2beta1/").split("/"), query

    def do_GET(self):
        parts, query = self.parts()
        kind = parts[-1]
        found = self.server.made.get(kind, [])
        if "filter" in query:
            [predicate] = json.loads(query["filter"])["predicates"]
            value = predicate.get("stringValue", predicate.get("string_value"))
            found = [thing for thing in found if thing[predicate["key"]] == value]
        if kind == "versions":
            found = [thing for thing in found if thing["pipeline_id"] == parts[1]]
        self.answer({{"versions": "pipeline_versions", "recurringruns": "recurringRuns"}.get(kind, kind): found} if kind in KEYS else {})

    def do_POST(self):
        parts, query = self.parts()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if parts[-1] == "upload":
            self.make("pipelines", {"display_name": query["name"], "file": body.decode()})
        elif parts[-1] == "upload_version":
            self.make("versions", {"display_name": query["name"], "pipeline_id": query["pipelineid"], "file": body.decode()})
        else:
            value = json.loads(body)
            if parts[-1] == "recurringruns":
                value["status"] = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[value["mode"]]
            self.make(parts[-1], value)

    def do_DELETE(self):
        parts, _ = self.parts()
        self.server.made[parts[0]] = [thing for thing in self.server.made[parts[0]] if thing[KEYS[parts[0]]] != parts[1]]
        self.answer({})


@pytest.fixture
def api():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.made = {kind: [] for kind in KEYS}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()


def schedule(folder, *arguments, api=None):
    host = [f"--host=http://127.0.0.1:{api.server_port}"] if api else []
    env = {**os.environ, "HOME": str(folder)}
    return subprocess.run([PYTHON, FOLDER / "schedule.py", *host, *arguments], capture_output=True, text=True, timeout=120, env=env)


def runs(api):
    return {run["display_name"]: run for run in api.made["recurringruns"]}


def test_recurring_runs_are_made_disabled_and_replaced(api, tmp_path):
    ran = schedule(tmp_path, "--parameter", "tolerance=1.5", "--service-account", "saker-training", api=api)
    assert ran.returncode == 0, ran.stderr
    assert "disabled; --enable enables it" in ran.stdout
    assert set(runs(api)) == {"saker-full", "saker-daily"}
    for kind, cron in SCHEDULES.items():
        run = runs(api)[f"saker-{kind}"]
        # Kubeflow's cron begins with seconds: five fields would be read as something else.
        assert run["trigger"]["cron_schedule"]["cron"] == f"0 {cron}"
        assert run["mode"] == "DISABLE"
        assert int(run["max_concurrency"]) == 1 and run["no_catchup"] is True
        assert run["service_account"] == "saker-training"
        assert run["runtime_config"]["parameters"] == {"tolerance": 1.5}
        [version] = [each for each in api.made["versions"] if each["pipeline_version_id"] == run["pipeline_version_reference"]["pipeline_version_id"]]
        # The whole file, what Kubernetes adds to the pipeline included.
        assert (COMPILED / f"{kind}.yaml").read_text() in version["file"].replace("\r\n", "\n")

    # One that somebody enabled stays so when it is replaced; the same file is no new version.
    runs(api)["saker-daily"]["status"] = "ENABLED"
    ran = schedule(tmp_path, "--only", "daily", "--daily", "30 4 * * *", api=api)
    assert ran.returncode == 0, ran.stderr
    assert len(api.made["recurringruns"]) == 2 and len(api.made["versions"]) == 2
    daily = runs(api)["saker-daily"]
    assert daily["mode"] == "ENABLE" and daily["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * *"
    assert runs(api)["saker-full"]["mode"] == "DISABLE"


@pytest.mark.parametrize(
    "arguments,says",
    [
        (["--daily", "0 0 3 * * 1-6"], "five fields are expected"),
        (["--parameter", "tolerance"], "NAME=VALUE is expected"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, arguments, says):
    ran = schedule(tmp_path, *arguments)
    assert ran.returncode == 1 and says in ran.stderr


def test_unknown_parameters_and_missing_files_are_refused(api, tmp_path):
    ran = schedule(tmp_path, "--parameter", "tolerence=1", api=api)
    assert ran.returncode == 1 and "tolerence is no parameter of saker-full" in ran.stderr
    ran = schedule(tmp_path, "--parameter", "tolerance=much", api=api)
    assert ran.returncode == 1 and "a NUMBER_DOUBLE is expected" in ran.stderr
    ran = schedule(tmp_path, "--folder", str(tmp_path), api=api)
    assert ran.returncode == 1 and "compile.py writes it" in ran.stderr
    assert not any(api.made.values())


def test_schedules_are_those_of_the_chart():
    text = (FOLDER / "schedule.py").read_text()
    values = chart.read(chart.FOLDER / "values.yaml")["training"]
    for kind, cron in SCHEDULES.items():
        assert values[kind]["schedule"] == cron
        assert re.search(rf'"{kind}": "{re.escape(cron)}"', text)
