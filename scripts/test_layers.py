"""Runs the compiled test programs in layers and sums up; `scripts/test` calls this.

Cargo is asked for the programs once, for the whole workspace: naming packages would change which
features are unified, and compile half of the dependencies again.
"""

import json
import os
import re
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LAYERS = {
    "1": "kernels: transforms, stores, index and command line, against the goldens",
    "2": "sdk: the SDK's lifecycle on a fake of Triton's C API",
    "3": "server: backends and ensemble on a real Triton and a real Valkey",
    "4": "clients: NVIDIA's Python clients, over gRPC and HTTP; Schemathesis, on the gateway",
    "5": "perf_analyzer: the ensemble and each model alone under load",
    "6": "storefront: the shop's pages in a headless Chromium, before everything real",
    "7": "fuzz: every reader of bytes from outside, under libFuzzer",
}
SDK = {"triton-rs-sys", "triton-backend", "triton-testing", "scale"}
RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.MULTILINE)


class Program:
    """A test program, which of its tests to run, and the environment that cargo would give it."""

    def __init__(self, title, command, folder, environment):
        self.title = title
        self.command = command
        self.folder = folder
        self.environment = environment

    def run(self):
        """Runs it, output as it comes; returns how many tests passed, failed and were ignored."""
        print(f"--- {self.title}", flush=True)
        process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        output = []
        for line in process.stdout:
            output.append(line)
            if line.strip():
                sys.stdout.write(line)
                sys.stdout.flush()
        status = process.wait()
        results = [[int(count) for count in found] for found in RESULT.findall("".join(output))]
        passed, failed, ignored = (sum(column) for column in zip(*results)) if results else (0, 0, 0)
        if status != 0 and failed == 0:
            print(f"{self.title}: ended with status {status} before its summary", flush=True)
            failed = 1
        return passed, failed, ignored


class Check(Program):
    """A script of which the exit status alone counts, as one test."""

    def run(self):
        passed, failed, ignored = super().run()
        return (passed or int(not failed)), failed, ignored


def cargo(*arguments):
    return ["cargo", *arguments, "--release", "--workspace"]


def programs():
    """The compiled test programs of the workspace, by layer."""
    compiled = subprocess.run(
        [*cargo("test"), "--no-run", "--message-format=json-render-diagnostics"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    layers = {layer: [] for layer in LAYERS}
    for line in compiled.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] != "compiler-artifact" or not message["executable"]:
            continue
        if not message["profile"]["test"]:
            continue
        folder = os.path.dirname(message["manifest_path"])
        package = message["package_id"].rsplit("/", 1)[-1].split("#")
        name = package[-1].split("@")[0] if "@" in package[-1] else package[0]
        target = message["target"]
        # What tests read at run time of cargo's environment: trybuild and insta do.
        environment = dict(
            os.environ,
            CARGO="cargo",
            CARGO_MANIFEST_DIR=folder,
            CARGO_PKG_NAME=name,
            CARGO_PKG_VERSION=package[-1].split("@")[-1],
        )
        kind = target["kind"][0]
        title = f"{name} {'unit tests' if kind != 'test' else 'tests/' + target['name']}"
        command = [message["executable"]]
        if folder == ROOT and target["name"] == "server":
            others = ["--skip", "clients::", "--skip", "perf_analyzer::", "--skip", "storefront::"]
            layers["3"].append(Program(title, command + others, folder, environment))
            layers["4"].append(Program(title, command + ["clients::"], folder, environment))
            layers["5"].append(Program(title, command + ["perf_analyzer::"], folder, environment))
            layers["6"].append(Program(title, command + ["storefront::"], folder, environment))
        else:
            layers["2" if name in SDK else "1"].append(Program(title, command, folder, environment))
    documentation = [*cargo("test"), "--doc", "--quiet"]
    abi = [os.path.join(ROOT, "scripts", "check-abi")]
    fuzz = [os.path.join(ROOT, "scripts", "fuzz"), "--readers", "10"]
    layers["7"].append(Check("every fuzz target, ten seconds each", fuzz, ROOT, dict(os.environ)))
    layers["2"].append(Check("the ABI header against NVIDIA's headers", abi, ROOT, dict(os.environ)))
    layers["2"].append(Program("documentation examples", documentation, ROOT, dict(os.environ)))
    return layers


def main():
    chosen = sys.argv[1:] or list(LAYERS)
    unknown = [layer for layer in chosen if layer not in LAYERS]
    if unknown:
        sys.exit(f"unknown layer {', '.join(unknown)}: there are {', '.join(LAYERS)}")
    layers = programs()
    table = []
    total_passed = total_failed = 0
    for layer in chosen:
        print(f"\n=== layer {layer}, {LAYERS[layer]}", flush=True)
        start = time.monotonic()
        passed = failed = ignored = 0
        for program in layers[layer]:
            counts = program.run()
            passed, failed, ignored = (a + b for a, b in zip((passed, failed, ignored), counts))
        if passed + failed == 0:
            print(f"layer {layer} ran no test: that is a failure", flush=True)
            failed = 1
        seconds = time.monotonic() - start
        table.append(f"layer {layer} {LAYERS[layer].split(':')[0]:14}{passed:5} passed{failed:5} failed{ignored:5} ignored{seconds:8.1f} s")
        total_passed += passed
        total_failed += failed
    print("\n" + "\n".join(table))
    print(f"{total_passed} passed, {total_failed} failed", flush=True)
    sys.exit(1 if total_failed else 0)


if __name__ == "__main__":
    main()
