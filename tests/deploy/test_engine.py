"""What Helm does with the chart beside rendering it: packaging, a dry run of an installation, and the script of `helm test`."""

import base64
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import tarfile
import threading
import time

import pytest

import chart


def test_the_package_holds_the_chart_alone(tmp_path):
    archive = chart.helm_python.package(chart.FOLDER, destination=tmp_path)
    names = set(tarfile.open(archive).getnames())
    assert {"saker/Chart.yaml", "saker/values.schema.json", "saker/files/rules.yaml", "saker/files/adapter.yaml"} <= names
    assert not any("/ci/" in name for name in names)
    with chart.helm_python.Chart.load(archive) as packaged:
        assert packaged.render(chart.LEAST).keys() == chart.chart().render(chart.LEAST).keys()


def test_a_dry_run_installs_every_object():
    """In the order in which Helm installs kinds, and without the hook, which `helm test` runs."""
    values = chart.value_sets()["external"]
    config = chart.helm_python.Config(kube_apiserver="http://127.0.0.1:1")
    release = config.install(str(chart.FOLDER), "shop", values, dry_run="client", namespace="prod")
    installed = [thing for thing in chart.yaml.safe_load_all(release["manifest"]) if thing]
    wanted = [thing for _, thing in chart.render(values) if thing["kind"] != "Pod"]

    def names(objects):
        return sorted((thing["kind"], thing["metadata"]["name"]) for thing in objects)

    assert names(installed) == names(wanted)
    kinds = [thing["kind"] for thing in installed]
    assert kinds.index("NetworkPolicy") < kinds.index("Secret") < kinds.index("Service") < kinds.index("Deployment")


def test_the_version_is_that_of_saker():
    cargo = (chart.ROOT / "Cargo.toml").read_text()
    metadata = chart.read(chart.FOLDER / "Chart.yaml")
    assert f'version = "{metadata["appVersion"]}"' in cargo


def test_subcharts_get_global_values():
    chart.render_anew(chart.merged(chart.LEAST, {"global": {"region": "eu"}}))


def test_the_objects_can_be_printed():
    ran = subprocess.run(
        [sys.executable, chart.__file__, chart.FOLDER / "ci" / "default-values.yaml", "shop", "prod"],
        capture_output=True,
        text=True,
        check=True,
    )
    printed = list(chart.yaml.safe_load_all(ran.stdout))
    assert [thing["kind"] for thing in printed] == [t["kind"] for _, t in chart.render(chart.value_sets()["default"])]
    assert all(thing["metadata"]["namespace"] == "prod" for thing in printed)


def test_valkey_starts_with_its_file(tmp_path):
    """The real server takes the rendered file, asks for the password, and forgets nothing when it is full."""
    server = os.environ.get("SAKER_VALKEY", "")
    if not pathlib.Path(server).is_file():
        pytest.skip("Valkey is not installed: scripts/install installs it")
    objects = chart.render(chart.value_sets()["claim"])
    [data] = [t["data"] for t in chart.of_kind(objects, "Secret") if t["metadata"]["name"] == "shop-saker-valkey"]
    text = base64.b64decode(data["valkey.conf"]).decode()
    password = base64.b64decode(data["password"]).decode()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "dir /data\n" in text and "port 6379\n" in text
    text = text.replace("dir /data\n", f"dir {tmp_path}\n").replace("port 6379\n", f"port {port}\nbind 127.0.0.1\n")
    (tmp_path / "valkey.conf").write_text(text)
    process = subprocess.Popen([server, tmp_path / "valkey.conf"], stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                connection = socket.create_connection(("127.0.0.1", port), 5)
                break
            except ConnectionRefusedError:
                time.sleep(0.1)

        def ask(command):
            connection.sendall(command.encode() + b"\r\n")
            return connection.recv(4096).decode()

        with connection:
            assert ask("PING").startswith("-NOAUTH")
            assert ask(f"AUTH {password}") == "+OK\r\n"
            assert ask("PING") == "+PONG\r\n"
            assert "noeviction" in ask("CONFIG GET maxmemory-policy")
            assert str(512 * 1024 * 1024) in ask("CONFIG GET maxmemory")
            assert "yes" in ask("CONFIG GET appendonly")
    finally:
        process.terminate()
        process.wait(20)


class Gateway(http.server.BaseHTTPRequestHandler):
    """Answers as `GET /recommendations` does."""

    release = "retail-20261128T000000Z-1f3a9c2b"
    keys = []
    asked = []

    def do_GET(self):
        type(self).asked.append(self.path)
        type(self).keys.append(self.headers.get("x-api-key"))
        answer = {"request_id": "1", "release": self.release, "degraded": self.release is None, "items": [{"id": 7}]}
        body = json.dumps(answer, separators=(",", ":")).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("release,passes", [("retail-1", True), (None, False)])
def test_the_test_asks_for_a_release(tmp_path, release, passes):
    """Popular items, which the gateway answers while Triton is down, are no success."""
    values = chart.merged(chart.LEAST, {"gateway": {"apiKeys": {"existingSecret": "shop-keys"}}})
    [pod] = chart.of_kind(chart.render(values), "Pod")
    [container] = pod["spec"]["containers"]
    assert container["command"] == ["sh", "-c"]
    [script] = container["args"]
    keys = tmp_path / "api-keys"
    keys.write_text("# name key rate rights\nwriter 00000000000000000000 5 events\nshop 11111111111111111111 5\n")
    assert "/etc/saker/api-keys/*" in script
    script = script.replace("/etc/saker/api-keys/*", str(keys))
    # Without the pauses of a gateway that is still starting.
    quick = tmp_path / "bin"
    quick.mkdir()
    (quick / "sleep").write_text("#!/bin/sh\n")
    (quick / "sleep").chmod(0o755)

    handler = type("Handler", (Gateway,), {"release": release, "keys": [], "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        [url] = [variable["value"] for variable in container["env"] if variable["name"] == "URL"]
        here = url.replace("shop-saker-gateway:8080", f"127.0.0.1:{server.server_port}")
        environment = {**os.environ, "URL": here, "PATH": f"{quick}:{os.environ['PATH']}"}
        ran = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    finally:
        server.shutdown()
        server.server_close()
    assert (ran.returncode == 0) == passes, ran.stdout + ran.stderr
    assert set(handler.keys) == {"11111111111111111111"}
    assert set(handler.asked) == {"/recommendations?user_id=1&k=5"}
    assert len(handler.asked) == (1 if passes else 20)
