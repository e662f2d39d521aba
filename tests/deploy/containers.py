"""Plays the chart's own pods with Podman, and looks at them from outside: what the kernel allows them, what they answer, how they end.

Podman is no kubelet. This is done in its place, and nothing else of a manifest is changed:

- A Deployment or StatefulSet becomes its first Pod, with the volumes of its claims.
- Names of Services become addresses in `hostAliases`, and $(NAME) in an argument the variable's value.
- A Secret becomes one of Podman's; where it is a volume, files.
- Probes and preStop leave the manifest: `wait_ready` asks what the probe asks, from outside. So do the ports, which Podman would open on all
  of the machine's addresses.
- Volumes are named after their pod: Podman 4.3 gives emptyDirs of one name in two pods the same folder.
- Annotations leave the pod: Podman 4.3 refuses values above 63 characters.
"""

import base64
import concurrent.futures
import copy
import http.client
import json
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import threading
import time

import yaml

import chart

# What Podman needs where the limits of processes cannot be raised, and where crun cannot use the version of cgroups.
PLAIN = {}
CONFINED = {"CONTAINERS_CONF": str(chart.ROOT / "deploy" / "images" / "containers.conf")}


class Podman:
    """The command, with the settings that work on this machine."""

    def __init__(self, settings):
        self.environment = {**os.environ, **settings}

    def __call__(self, *arguments, stdin=None, timeout=300, check=True):
        command = ["podman", *map(str, arguments)]
        ran = subprocess.run(command, input=stdin, capture_output=True, env=self.environment, timeout=timeout)
        output = ran.stdout.decode(errors="replace").strip()
        assert not check or ran.returncode == 0, f"{' '.join(command)}: {ran.stderr.decode(errors='replace')}{output}"
        return output if check else ran.returncode

    def inspect(self, container):
        return json.loads(self("container", "inspect", container))[0]


def usable():
    """A Podman that runs a container here, and "", or None and what is in the way."""
    if os.geteuid() != 0:
        return None, "containers are played as root"
    error = "Podman is not installed: scripts/install --images installs it"
    for settings in PLAIN, CONFINED:
        podman = Podman(settings)
        try:
            probe(podman)
        except FileNotFoundError:
            return None, error
        except (AssertionError, subprocess.TimeoutExpired) as failure:
            error = "Podman cannot run a container here: " + str(failure).strip().splitlines()[-1]
        else:
            return podman, ""
    return None, error


def probe(podman):
    """Runs /bin/true in an image that holds it and its libraries, with the restrictions of the chart's pods."""
    linked = subprocess.run(["ldd", "/bin/true"], capture_output=True, text=True, check=True).stdout
    files = ["/bin/true", *re.findall(r"(/\S+) \(0x", linked)]
    archive = subprocess.run(["tar", "--create", "--dereference", "--absolute-names", *files], capture_output=True, check=True)
    image = "localhost/saker-probe:test"
    podman("import", "-", image, stdin=archive.stdout)
    restrictions = ["--user=10001:0", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--memory=64m"]
    podman("run", "--rm", "--network=none", *restrictions, image, "/bin/true", timeout=60)


class Cluster:
    """Pods of one rendering on a network of their own; all of it is gone after `remove`."""

    def __init__(self, podman, objects, name):
        self.podman = podman
        self.name = name
        self.objects = {(thing["kind"], thing["metadata"]["name"]): thing for _, thing in objects}
        self.pods = {}
        self.volumes = []
        self.secrets = []
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="saker-pods-"))
        self.addresses = {}

    def start(self):
        """The network, and the Secrets."""
        self.podman("network", "create", self.name)
        [subnet] = json.loads(self.podman("network", "inspect", self.name))[0]["subnets"]
        self.prefix = subnet["subnet"].rsplit(".", 1)[0]
        for (kind, secret), thing in self.objects.items():
            if kind == "Secret":
                # As Podman's own `kube play` looks secrets up: values in base64, by key.
                self.podman("secret", "create", secret, "-", stdin=json.dumps(thing["data"]).encode())
                self.secrets.append(secret)

    def secret(self, name, key):
        return base64.b64decode(self.objects["Secret", name]["data"][key]).decode()

    def volume(self, claim):
        """The folder of a claim: of the group 0, as fsGroup would make it a group's."""
        if claim not in self.volumes:
            self.podman("volume", "create", claim)
            self.volumes.append(claim)
        folder = pathlib.Path(self.podman("volume", "inspect", "--format", "{{.Mountpoint}}", claim))
        folder.chmod(0o2775)
        return folder

    def reserve(self, names):
        """Addresses for pods that are not played yet, by the names of their Services."""
        for number, name in enumerate(names, start=10 + len(self.addresses)):
            self.addresses[name] = f"{self.prefix}.{number}"

    def pod(self, kind, name, services):
        """The first Pod of a workload."""
        thing = self.objects[kind, name]
        template = copy.deepcopy(chart.pod_template(thing))
        spec = template["spec"]
        pod = {"Deployment": f"{name}-6d5f8-x7v2k", "StatefulSet": f"{name}-0", "Pod": name}[kind]
        spec["hostAliases"] = [{"ip": self.addresses[service], "hostnames": [service]} for service in services]
        for claim in thing["spec"].get("volumeClaimTemplates", []):
            volume = claim["metadata"]["name"]
            spec["volumes"].append({"name": volume, "persistentVolumeClaim": {"claimName": f"{volume}-{pod}"}})
        for volume in spec.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                self.volume(volume["persistentVolumeClaim"]["claimName"])
            if secret := volume.pop("secret", None):
                folder = self.folder / volume["name"]
                folder.mkdir(exist_ok=True)
                for item in secret["items"]:
                    (folder / item["path"]).write_text(self.secret(secret["secretName"], item["key"]))
                volume["hostPath"] = {"path": str(folder), "type": "Directory"}
        for volume in spec.get("volumes", []):
            volume["name"] = f"{pod}-{volume['name']}"
        for _, container in chart.containers(template):
            for mount in container.get("volumeMounts", []):
                mount["name"] = f"{pod}-{mount['name']}"
            for key in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "ports"):
                container.pop(key, None)
            variables = {each["name"]: self.variable(each, pod) for each in container.get("env", [])}
            container["args"] = [self.expanded(text, variables) for text in container.get("args", [])]
        # Otherwise Podman removes an init container before it has ended.
        annotations = {"io.podman.annotations.init.container.type": "always"}
        metadata = {"labels": template["metadata"].get("labels", {}), "name": pod, "annotations": annotations}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def variable(self, entry, pod):
        source = entry.get("valueFrom", {})
        if reference := source.get("secretKeyRef"):
            return self.secret(reference["name"], reference["key"])
        if source:
            assert source == {"fieldRef": {"fieldPath": "metadata.name"}}, source
            return pod
        return entry["value"]

    @staticmethod
    def expanded(text, variables):
        return re.sub(r"\$\((\w+)\)", lambda match: variables.get(match[1], match[0]), text)

    def play(self, kind, name, services=()):
        """Starts the pod of a workload at its address; its name."""
        pod = self.pod(kind, name, services)
        self.pods[name] = pod["metadata"]["name"]
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(pod))
        self.podman("kube", "play", "--network", self.name, "--ip", self.addresses[name], file, timeout=600)
        return pod["metadata"]["name"]

    def container(self, workload, name):
        return f"{self.pods[workload]}-{name}"

    def ended(self, workload, name):
        state = self.podman.inspect(self.container(workload, name))["State"]
        return None if state["Running"] else state["ExitCode"]

    def wait_ready(self, kind, workload):
        """Asks what each container's startup and readiness probe asks, for as long as the startup probe allows."""
        template = chart.pod_template(self.objects[kind, workload])
        address = self.addresses[workload]
        for is_init, container in chart.containers(template):
            startup = {} if is_init else container.get("startupProbe", {})
            due = time.monotonic() + startup.get("periodSeconds", 10) * startup.get("failureThreshold", 3)
            for probe in (startup, {} if is_init else container.get("readinessProbe", {})):
                way = next((way for way in ("httpGet", "tcpSocket") if way in probe), None)
                if not way:
                    continue
                port = next(p["containerPort"] for p in container["ports"] if p["name"] == probe[way]["port"])
                while not answers(address, port, probe[way].get("path")):
                    state = self.podman.inspect(self.container(workload, container["name"]))["State"]
                    if time.monotonic() > due or not state["Running"]:
                        text = self.podman_logs(workload, container["name"])
                        raise AssertionError(f"{workload}: {container['name']} does not get ready, {state['Status']}:\n{text}")
                    time.sleep(0.1)

    def podman_logs(self, workload, name):
        command = ["podman", "logs", "--tail", "20", self.container(workload, name)]
        ran = subprocess.run(command, capture_output=True, text=True, env=self.podman.environment)
        return ran.stdout + ran.stderr

    def grace(self, kind, workload):
        return chart.pod_template(self.objects[kind, workload])["spec"]["terminationGracePeriodSeconds"]

    def stop(self, kind, workload, name):
        """SIGTERM, and SIGKILL after the manifest's grace period; exit code and seconds."""
        started = time.monotonic()
        self.podman("stop", "--time", self.grace(kind, workload), self.container(workload, name))
        return self.podman.inspect(self.container(workload, name))["State"]["ExitCode"], time.monotonic() - started

    def stop_beside(self, kind, workload, name):
        """`stop` on a thread of its own; its result waits for the end."""
        return concurrent.futures.ThreadPoolExecutor(1).submit(self.stop, kind, workload, name)

    def remove(self):
        for pod in self.pods.values():
            self.podman("pod", "rm", "--force", "--time", "1", pod, check=False)
        for secret in self.secrets:
            self.podman("secret", "rm", secret, check=False)
        # Those of claims, and the emptyDirs, which are named after their pod.
        emptied = [name for name in self.podman("volume", "ls", "--quiet").splitlines() if name.startswith(self.name + "-")]
        for volume in {*self.volumes, *emptied}:
            self.podman("volume", "rm", "--force", volume, check=False)
        self.podman("network", "rm", "--force", self.name, check=False)
        subprocess.run(["rm", "-rf", self.folder])


def remove_images_since(podman, started):
    """Removes the nameless images of stages that were made since a time in Unix seconds: children first, so several times."""
    before = None
    while True:
        listed = json.loads(podman("images", "--all", "--format", "json"))
        nameless = sorted(image["Id"] for image in listed if image["Created"] >= started and not image.get("Names"))
        if not nameless or nameless == before:
            return
        podman("image", "rm", "--force", *nameless, check=False)
        before = nameless


def answers(address, port, path):
    """Whether a port is open, and says 200 at a path if one is given."""
    try:
        if path is None:
            socket.create_connection((address, port), timeout=2).close()
            return True
        return ask(address, port, path)[0] == 200
    except OSError:
        return False


def ask(address, port, path, body=None, method=None):
    """Status and body of one request on a connection of its own."""
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        headers = {"content-type": "application/json"} if body else {}
        connection.request(method or ("POST" if body else "GET"), path, json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class Load:
    """Clients that ask without a pause, each request on a connection of its own, and count what becomes of them."""

    def __init__(self, address, port, path, body=None, clients=4, accepted=200):
        self.accepted = accepted
        self.target = (address, port, path, body)
        self.asked = 0
        self.answered = 0
        self.refused = 0
        self.failures = []
        self.bodies = []
        self.lock = threading.Lock()
        self.done = threading.Event()
        self.threads = [threading.Thread(target=self.client, daemon=True) for _ in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        for thread in self.threads:
            thread.join()

    def client(self):
        address, port, path, body = self.target
        while not self.done.is_set():
            try:
                # Refused before anything was sent: the client of a Service would ask another pod.
                socket_of_it = socket.create_connection((address, port), timeout=10)
            except OSError:
                with self.lock:
                    self.refused += 1
                time.sleep(0.01)
                continue
            connection = http.client.HTTPConnection(address, port, timeout=30)
            connection.sock = socket_of_it
            with self.lock:
                self.asked += 1
            try:
                headers = {"content-type": "application/json"} if body else {}
                connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
                response = connection.getresponse()
                content = response.read()
                outcome = None if response.status == self.accepted else f"{response.status} {content[:200]!r}"
            except (OSError, http.client.HTTPException) as error:
                content, outcome = b"", f"{type(error).__name__}: {error}"
            finally:
                connection.close()
            with self.lock:
                if outcome is None:
                    self.answered += 1
                    self.bodies.append(content)
                else:
                    self.failures.append(outcome)


def status_of(pid):
    """/proc/PID/status as a dictionary."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}


def memory_limit(pid):
    """The limit that the kernel enforces, in bytes."""
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return int(pathlib.Path(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes").read_text())
        if number == "0" and not controllers:
            limit = pathlib.Path(f"/sys/fs/cgroup{path}/memory.max")
            if limit.exists():
                return int(limit.read_text())
    raise AssertionError(f"process {pid} has no memory cgroup")


def mounts(pid):
    """{mount point: options} as the process sees them."""
    lines = pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return {line.split()[4]: line.split()[5].split(",") for line in lines}
