#!/usr/bin/env python3
"""Runs a compiled Kubeflow pipeline on this machine: each step's command as a process, in the order of the graph.

Usage: deploy/pipelines/run_local.py FILE [OPTION...]

  FILE                     a compiled pipeline, such as deploy/pipelines/compiled/full.yaml
  --parameter NAME=VALUE   a parameter of the run; repeat it for others. `state` and `releases` are folders of this machine here
  --env NAME[=VALUE]       a variable that the steps see, by default with the value that it has here. Steps see nothing else of the
                           environment but PATH, HOME, TMPDIR and what the pipeline sets or takes from a Secret
  --run FOLDER             logs and outputs of this run, .saker/runs/<time> by default. A run that failed or was killed goes on
                           when its folder is given again
  --cache FOLDER           outputs of cached steps, .saker/runs/cache by default
  --no-cache               run cached steps, too
  --backoff-scale NUMBER   multiplies the time between two attempts; 1 by default
  --verbose                print what the steps print, too; otherwise it is in their logs

What Kubeflow does: parameters, placeholders, conditions, caching by inputs, command, image and claims, retries with backoff, timeouts.
What it does and this does not: containers, volumes, resources, nodes, artefacts as inputs, loops, exit handlers. A pipeline that needs one of the last
three is refused. Secrets are variables of the same name in this environment.

Exit codes: 0 success, 1 a step failed, 2 wrong arguments or a pipeline that this cannot run, 130 and 143 stopped.
Needs PyYAML.
"""

import argparse
import ctypes
import datetime
import fcntl
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import uuid

import yaml

TASK_KEYS = {"cachingOptions", "componentRef", "dependentTasks", "inputs", "retryPolicy", "taskInfo", "triggerPolicy"}
CONDITION = re.compile(r"inputs\.parameter_values\['([^']+)'\] == '([^']*)'")
INHERITED = ("PATH", "HOME", "TMPDIR")
KILL_AFTER_SECONDS = 10
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


class Refused(Exception):
    """A pipeline or argument that cannot be run."""


class Failed(Exception):
    """A step that failed."""


def say(name, text):
    print(f"{time.strftime('%H:%M:%S')}  {name:14} {text}", flush=True)


class Pipeline:
    """A compiled pipeline: the specification, and what Kubernetes adds to it."""

    def __init__(self, path):
        try:
            documents = list(yaml.safe_load_all(path.read_text()))
        except (OSError, yaml.YAMLError) as error:
            raise Refused(f"cannot read {path}: {error}") from error
        self.spec = documents[0] if documents else None
        if not isinstance(self.spec, dict) or not str(self.spec.get("schemaVersion", "")).startswith("2."):
            raise Refused(f"{path} is no pipeline that kfp compiled")
        platform = documents[1] if len(documents) > 1 else {}
        kubernetes = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {})
        self.platform = kubernetes.get("executors", {})
        self.executors = self.spec["deploymentSpec"]["executors"]
        self.name = self.spec["pipelineInfo"]["name"]

    def hash(self):
        return hashlib.sha256(json.dumps([self.spec, self.platform], sort_keys=True).encode()).hexdigest()

    def parameters(self, given):
        """Every parameter of a run, those that are given as text and the defaults."""
        definitions = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        for name in given:
            if name not in definitions:
                raise Refused(f"{name} is no parameter of {self.name}; there are {', '.join(definitions)}")
        values = {}
        for name, definition in definitions.items():
            if name in given:
                values[name] = typed(name, given[name], definition["parameterType"])
            elif "defaultValue" in definition:
                values[name] = definition["defaultValue"]
            else:
                raise Refused(f"the parameter {name} has no default; give --parameter {name}=VALUE")
        return values


def typed(name, text, kind):
    """A parameter's value from its text."""
    try:
        return {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": float}[kind](text)
    except KeyError:
        raise Refused(f"{name} is a {kind}, which this cannot run") from None
    except ValueError:
        raise Refused(f"{name}={text}: a {kind} is expected") from None


def shown(value):
    """A value as Kubeflow writes it into an argument: a whole number without a point."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


class Run:
    def __init__(self, pipeline, parameters, arguments):
        self.pipeline, self.arguments = pipeline, arguments
        self.parameters = parameters
        self.inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self.given = self.given_variables()
        self.check(pipeline.spec["root"]["dag"])
        self.folder = arguments.run
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = open(self.folder / "lock", "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another run_local.py runs in {self.folder}") from None
        self.record = self.open()
        self.process = None
        self.stopped = None

    def open(self):
        """What the folder says of the run; a folder of another run is refused."""
        path = self.folder / "run.json"
        own = {"pipeline": self.pipeline.hash(), "parameters": self.parameters}
        if path.exists():
            known = json.loads(path.read_text())
            if any(known[key] != own[key] for key in own):
                raise Refused(f"{self.folder} holds a run of another pipeline or with other parameters; give another folder with --run")
            say(self.pipeline.name, f"goes on in {self.folder}")
            return known
        record = {**own, "id": str(uuid.uuid4())}
        write_json(path, record)
        say(self.pipeline.name, f"run {record['id']} in {self.folder}")
        return record

    def given_variables(self):
        env = {}
        for text in self.arguments.env:
            name, equals, value = text.partition("=")
            if not equals and name not in os.environ:
                raise Refused(f"--env {name}: the variable is not set here; set it, or give --env {name}=VALUE")
            env[name] = value if equals else os.environ[name]
        return env

    def check(self, dag):
        """Refuses, before anything runs, a graph with something that this cannot run."""
        for name in ordered(dag["tasks"]):
            task = dag["tasks"][name]
            unknown = set(task) - TASK_KEYS
            if unknown:
                raise Refused(f"{name} has {', '.join(sorted(unknown))}, which this cannot run")
            if set(task.get("inputs", {})) - {"parameters"}:
                raise Refused(f"{name} takes artefacts, which this cannot run")
            condition = task.get("triggerPolicy", {}).get("condition")
            if condition and not CONDITION.fullmatch(condition):
                raise Refused(f"the condition {condition!r} is not of the form inputs.parameter_values['NAME'] == 'TEXT'")
            component = self.pipeline.spec["components"][task["componentRef"]["name"]]
            if "dag" in component:
                self.check(component["dag"])
                continue
            executor = component["executorLabel"]
            if "container" not in self.pipeline.executors[executor]:
                raise Refused(f"{name} is no container, which this cannot run")
            for secret in self.pipeline.platform.get(executor, {}).get("secretAsEnv", []):
                for variable in (entry["envVar"] for entry in secret["keyToEnv"]):
                    if not secret.get("optional") and variable not in {**os.environ, **self.given}:
                        raise Refused(f"{name} takes {variable} from the Secret {secret['secretName']}; set the variable here")

    def dag(self, dag, inputs, path=()):
        """Runs the tasks of a graph, one after the other."""
        tasks = dag["tasks"]
        outputs, skipped = {}, set()
        for name in ordered(tasks):
            task = tasks[name]
            shown_name = task["taskInfo"]["name"]
            if skipped & set(task.get("dependentTasks", [])):
                skipped.add(name)
                say(shown_name, "left out: what it depends on did not run")
                continue
            values = self.resolve(name, task, inputs, outputs)
            condition = task.get("triggerPolicy", {}).get("condition")
            if condition:
                key, wanted = CONDITION.fullmatch(condition).groups()
                if values[key] != wanted:
                    skipped.add(name)
                    say(shown_name, f"left out: {key.removeprefix('pipelinechannel--')}={values[key]}")
                    continue
            component = self.pipeline.spec["components"][task["componentRef"]["name"]]
            if "dag" in component:
                self.dag(component["dag"], values, (*path, name))
            else:
                outputs[name] = self.task("/".join((*path, name)), task, component, values)

    def resolve(self, name, task, inputs, outputs):
        """The values of a task's parameters."""
        values = {}
        for key, source in task.get("inputs", {}).get("parameters", {}).items():
            if "runtimeValue" in source:
                value = source["runtimeValue"]["constant"]
                if value == "{{$.pipeline_job_uuid}}":
                    value = self.record["id"]
                values[key] = value
            elif "componentInputParameter" in source:
                values[key] = inputs[source["componentInputParameter"]]
            elif "taskOutputParameter" in source:
                output = source["taskOutputParameter"]
                values[key] = outputs[output["producerTask"]][output["outputParameterKey"]]
            else:
                raise Refused(f"{name}: the parameter {key} comes from {', '.join(source)}, which this cannot run")
        return values

    def task(self, path, task, component, values):
        """Runs a container's command unless it has run already; its output parameters."""
        step = Step(self, path, task, component, values)
        done = read_json(step.folder / "done.json")
        if done:
            say(step.name, f"done before{said(done['parameters'])}")
            return done["parameters"]
        cached = step.cached()
        if cached:
            write_json(step.folder / "done.json", cached)
            say(step.name, f"cached{said(cached['parameters'])}")
            return cached["parameters"]
        return step.run()

    def stop(self, number, _frame):
        self.stopped = number
        if self.process:
            end(self.process, number)


class Step:
    """A task that is a container."""

    def __init__(self, run, path, task, component, values):
        self.run_, self.values = run, values
        self.name = task["taskInfo"]["name"]
        self.folder = run.folder / "steps" / path
        self.folder.mkdir(parents=True, exist_ok=True)
        self.definitions = component.get("outputDefinitions", {})
        executor = component["executorLabel"]
        self.container = run.pipeline.executors[executor]["container"]
        self.platform = run.pipeline.platform.get(executor, {})
        self.policy = task.get("retryPolicy", {})
        self.caches = task.get("cachingOptions", {}).get("enableCache", False) and not run.arguments.no_cache

    def fingerprint(self):
        """A hash of all that Kubeflow's cache compares."""
        key = {
            "inputs": self.values,
            "outputs": self.definitions,
            "container": {name: self.container.get(name) for name in ("image", "command", "args", "env")},
            "claims": sorted(mount["constant"] for mount in self.platform.get("pvcMount", [])),
        }
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()

    def cache_file(self):
        return self.run_.arguments.cache / self.run_.pipeline.name / f"{self.fingerprint()}.json"

    def cached(self):
        """What the step left when it last ran with the same inputs, if that is still there."""
        known = read_json(self.cache_file()) if self.caches else None
        if known and all(pathlib.Path(artefact["path"]).exists() for artefact in known["artefacts"].values()):
            return known
        return None

    def env(self):
        """What the command sees: --env wins over the pipeline's own values."""
        env = {entry["name"]: entry["value"] for entry in self.container.get("env", [])}
        secrets = (entry["envVar"] for secret in self.platform.get("secretAsEnv", []) for entry in secret["keyToEnv"])
        env |= {name: os.environ[name] for name in secrets if name in os.environ}
        return {**self.run_.inherited, **env, **self.run_.given}

    def run(self):
        """Runs the command until it succeeds or its attempts are used up."""
        attempts = 1 + int(self.policy.get("maxRetryCount", 0))
        pause = seconds(self.policy.get("backoffDuration", "0s"))
        factor = float(self.policy.get("backoffFactor", 2))
        longest = seconds(self.policy.get("backoffMaxDuration", "3600s"))
        for attempt in range(1, attempts + 1):
            start = time.monotonic()
            why = self.attempt()
            if why is None:
                return self.finish(time.monotonic() - start)
            if self.run_.stopped:
                raise Failed(f"{self.name} was stopped")
            for line in self.tail():
                say(self.name, f"| {line}")
            say(self.name, f"{why}, attempt {attempt} of {attempts}; log: {self.folder / 'log'}")
            if attempt < attempts:
                wait = min(pause, longest) * self.run_.arguments.backoff_scale
                say(self.name, f"again in {wait:g} s")
                self.wait(wait)
                pause *= factor
        raise Failed(f"{self.name} failed")

    def wait(self, duration):
        until = time.monotonic() + duration
        while not self.run_.stopped and time.monotonic() < until:
            time.sleep(min(0.2, max(0, until - time.monotonic())))
        if self.run_.stopped:
            raise Failed(f"{self.name} was stopped")

    def paths(self):
        """The files of the step's outputs, by their kind and name."""
        parameters = {name: self.folder / "outputs" / name for name in self.definitions.get("parameters", {})}
        artefacts = {name: self.folder / "artefacts" / name for name in self.definitions.get("artifacts", {})}
        return parameters, artefacts

    def arguments(self):
        """The command with its placeholders filled in."""
        parameters, artefacts = self.paths()
        schemas = self.definitions.get("artifacts", {})
        executor_input = {
            "inputs": {"parameterValues": self.values},
            "outputs": {
                "parameters": {name: {"outputFile": str(path)} for name, path in parameters.items()},
                "artifacts": {
                    name: {"artifacts": [{"name": name, "type": schemas[name]["artifactType"], "uri": path.as_uri(), "metadata": {}}]}
                    for name, path in artefacts.items()
                },
                "outputFile": str(self.folder / "outputs" / "metadata.json"),
            },
        }
        replaced = {"{{$}}": json.dumps(executor_input)}
        replaced |= {f"{{{{$.inputs.parameters['{name}']}}}}": shown(value) for name, value in self.values.items()}
        replaced |= {f"{{{{$.outputs.parameters['{name}'].output_file}}}}": str(path) for name, path in parameters.items()}
        for name, path in artefacts.items():
            replaced[f"{{{{$.outputs.artifacts['{name}'].path}}}}"] = str(path)
            replaced[f"{{{{$.outputs.artifacts['{name}'].uri}}}}"] = path.as_uri()
        filled = []
        for text in [*self.container["command"], *self.container.get("args", [])]:
            # Once from left to right: a value that looks like a placeholder stays as it is.
            filled.append(re.sub(r"\{\{\$.*?\}\}", lambda found: self.filled(found[0], replaced), text))
        return filled

    def filled(self, placeholder, replaced):
        if placeholder not in replaced:
            raise Refused(f"{self.name} has the placeholder {placeholder}, which this cannot run")
        return replaced[placeholder]

    def attempt(self):
        """One attempt: why it failed, or None."""
        parameters, artefacts = self.paths()
        for path in (*parameters.values(), *artefacts.values(), self.folder / "outputs" / "metadata.json"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        command, env = self.arguments(), self.env()
        if self.run_.stopped:
            return "was stopped"
        say(self.name, "starts")
        with open(self.folder / "log", "ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            try:
                process = subprocess.Popen(
                    command,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE if self.run_.arguments.verbose else log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=end_with_parent,
                )
            except OSError as error:
                return f"cannot be started: {command[0]}: {error.strerror}"
            self.run_.process = process
            if self.run_.stopped:
                end(process, self.run_.stopped)
            copies = threading.Thread(target=copy, args=(process, log))
            if self.run_.arguments.verbose:
                copies.start()
            limit = int(self.platform.get("activeDeadlineSeconds", 0)) or None
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                end(process, signal.SIGTERM)
                process.wait()
                return f"took longer than {limit} s"
            finally:
                self.run_.process = None
                if self.run_.arguments.verbose:
                    copies.join()
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        if code:
            return f"ended with {code}"
        missing = [name for name, path in parameters.items() if not path.is_file()]
        return f"wrote no {', '.join(missing)}" if missing else None

    def finish(self, duration):
        """Notes what the step left, in the run and in the cache."""
        parameters, artefacts = self.paths()
        kinds = self.definitions.get("parameters", {})
        values = {name: typed(name, path.read_text(), kinds[name]["parameterType"]) for name, path in parameters.items()}
        noted = read_json(self.folder / "outputs" / "metadata.json") or {}
        left = {
            "parameters": values,
            "artefacts": {
                name: {
                    "path": str(path),
                    "metadata": noted.get("artifacts", {}).get(name, {}).get("artifacts", [{}])[0].get("metadata", {}),
                }
                for name, path in artefacts.items()
                if path.exists()
            },
        }
        if self.caches:
            write_json(self.cache_file(), left)
        write_json(self.folder / "done.json", left)
        say(self.name, f"done in {duration:.1f} s{said(values)}")
        return values

    def tail(self):
        lines = (self.folder / "log").read_text(errors="replace").rstrip().splitlines()
        return lines[-10:]


def ordered(tasks):
    """The names of the tasks, each after those that it depends on."""
    names, rest = [], dict(tasks)
    while rest:
        ready = [name for name, task in rest.items() if not set(task.get("dependentTasks", [])) - set(names)]
        if not ready:
            raise Refused(f"{', '.join(rest)} depend on each other or on what is not there")
        names.append(ready[0])
        del rest[ready[0]]
    return names


def said(parameters):
    text = ", ".join(f"{name}={value}" for name, value in parameters.items())
    return f": {text}" if text else ""


def seconds(text):
    return float(str(text).removesuffix("s"))


def end_with_parent():
    """A step does not outlive a runner that is killed."""
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)


def end(process, number):
    """Signals a step's processes; kills them when they go on for too long."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return

    def kill():
        try:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    timer = threading.Timer(KILL_AFTER_SECONDS, kill)
    timer.daemon = True
    timer.start()


def copy(process, log):
    for line in process.stdout:
        log.write(line)
        sys.stdout.buffer.write(line)
        sys.stdout.flush()


def read_json(path):
    return json.loads(path.read_text()) if path.is_file() else None


def write_json(path, value):
    """Whole or not at all: a runner that is killed leaves no half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(value, indent=1) + "\n")
    beside.replace(path)


def main():
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("file", nargs="?", type=pathlib.Path)
    parser.add_argument("--parameter", action="append", default=[])
    parser.add_argument("--env", action="append", default=[])
    runs = pathlib.Path(".saker/runs")
    parser.add_argument("--run", type=pathlib.Path, default=runs / datetime.datetime.now().strftime("%Y%m%dT%H%M%S"))
    parser.add_argument("--cache", type=pathlib.Path, default=runs / "cache")
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("--backoff-scale", type=float, default=1.0)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    if arguments.help or not arguments.file:
        print(__doc__.strip())
        return 0 if arguments.help else 2
    for name in ("run", "cache"):
        setattr(arguments, name, getattr(arguments, name).absolute())
    try:
        given = dict(text.split("=", 1) for text in arguments.parameter if "=" in text)
        if len(given) != len(arguments.parameter):
            raise Refused("--parameter: NAME=VALUE is expected, each name once")
        pipeline = Pipeline(arguments.file)
        run = Run(pipeline, pipeline.parameters(given), arguments)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, run.stop)
        run.dag(pipeline.spec["root"]["dag"], run.parameters)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Failed as error:
        if run.stopped:
            say(pipeline.name, f"stopped; --run {run.folder} goes on")
            return 128 + run.stopped
        say(pipeline.name, f"{error}; --run {run.folder} goes on there")
        return 1
    say(pipeline.name, "done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
