"""What several files of the project must agree on: the compiler's version, and the manifests of the crates that are published."""

import re
import tomllib

import pytest

import chart

CARGO = tomllib.loads((chart.ROOT / "Cargo.toml").read_text())
WORKSPACE = CARGO["workspace"]["package"]
PUBLISHED = re.search(r"^crates=\((.*)\)$", (chart.ROOT / "scripts" / "check-publish").read_text(), re.MULTILINE)[1].split()


def folders():
    """{name: folder} of every crate of the workspace."""
    found = {}
    for member in CARGO["workspace"]["members"]:
        for manifest in chart.ROOT.glob(f"{member}/Cargo.toml"):
            found[tomllib.loads(manifest.read_text())["package"]["name"]] = manifest.parent
    return found


FOLDERS = folders()


def manifest(name):
    return tomllib.loads((FOLDERS[name] / "Cargo.toml").read_text())


def value(name, key):
    """A key of [package], or the workspace's where the crate inherits it."""
    own = manifest(name)["package"].get(key)
    return WORKSPACE[key] if own == {"workspace": True} else own


def requirement(name, dependency, entry):
    """The entry of a dependency, with what it inherits, as a table."""
    if isinstance(entry, dict) and entry.get("workspace"):
        shared = CARGO["workspace"]["dependencies"][dependency]
        shared = {"version": shared} if isinstance(shared, str) else shared
        return {**shared, **entry}
    return {"version": entry} if isinstance(entry, str) else entry


def test_the_compiler_is_the_one_that_cargo_asks_for():
    wanted = WORKSPACE["rust-version"]
    toolchain = tomllib.loads((chart.ROOT / "rust-toolchain.toml").read_text())["toolchain"]
    assert re.fullmatch(re.escape(wanted) + r"\.\d+", toolchain["channel"]), f"rust-version is {wanted}"
    # More components would be fetched by every build of an image.
    assert toolchain == {"channel": toolchain["channel"], "profile": "minimal"}


def test_only_the_sdk_is_published():
    """Every other crate says that it is not."""
    assert len(PUBLISHED) == 4
    for name in FOLDERS:
        assert value(name, "publish") is (None if name in PUBLISHED else False), name


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_crate_has_its_metadata(name):
    package = manifest(name)["package"]
    assert 20 <= len(package["description"]) <= 200 and not package["description"].endswith(".")
    # crates.io takes at most five of each.
    assert 1 <= len(package["keywords"]) <= 5
    for keyword in package["keywords"]:
        assert re.fullmatch(r"[a-z][a-z0-9-]{0,19}", keyword), keyword
    assert 1 <= len(package["categories"]) <= 5
    assert package["documentation"] == f"https://docs.rs/{name}"
    assert value(name, "license") == "Apache-2.0"
    assert value(name, "rust-version") == WORKSPACE["rust-version"]
    readme = FOLDERS[name] / package["readme"]
    assert readme.parent == FOLDERS[name], "a file outside of the crate's folder is not packaged"
    text = readme.read_text()
    assert text.startswith(f"# {name}\n")
    assert "```rust" in text or "```c" in text, "the README shows an example"
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target.startswith("https://"), f"{target}: a relative link leads nowhere on crates.io"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_crate_depends_on_published_versions(name):
    """Cargo drops the path when it packages, and refuses a dependency that has nothing else."""
    content = manifest(name)
    for kind in ("dependencies", "build-dependencies"):
        for dependency, entry in content.get(kind, {}).items():
            entry = requirement(name, dependency, entry)
            assert entry.get("version"), f"{dependency} has no version"
            if "path" in entry:
                assert dependency in PUBLISHED, f"{dependency} is not published"
                assert PUBLISHED.index(dependency) < PUBLISHED.index(name), f"scripts/check-publish packages {dependency} too late"
                assert entry["version"] == WORKSPACE["version"], f"{dependency} is at {WORKSPACE['version']}"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_crate_reads_nothing_outside_of_its_folder(name):
    """Neither at compile time nor in its build script; the tests of a package are not run."""
    folder = FOLDERS[name]
    sources = [*folder.glob("src/**/*.rs"), *folder.glob("build.rs")]
    assert sources
    for path in sources:
        for macro, read in re.findall(r"\b(include(?:_str|_bytes)?)!\(\s*\"([^\"]+)\"", path.read_text()):
            place = (path.parent / read).resolve()
            assert place.is_relative_to(folder) and place.is_file(), f"{path}: {macro}!({read})"


def picture():
    """[(floor, {crate: {dependency}})] of ARCHITECTURE.md, from the highest floor down."""
    text = (chart.ROOT / "ARCHITECTURE.md").read_text()
    block = text.split("## Which way the arrows point", 1)[1].split("```")[1]
    floors = []
    # A list that ends in a comma goes on in the next line.
    for line in re.sub(r",\n +", ", ", block).strip("\n").splitlines():
        if not line.strip():
            continue
        floor, _, rest = line.partition("  ")
        if floor:
            floors.append((floor, {}))
        name, _, dependencies = rest.strip().partition(" ──▶ ")
        floors[-1][1][name] = set(filter(None, dependencies.split(", ")))
    return floors


def test_the_picture_of_the_crates_is_that_of_the_manifests():
    paths = [chart.ROOT / "Cargo.toml", chart.ROOT / "triton-rs-sys" / "Cargo.toml"]
    for folder in ("crates", "backends"):
        paths += sorted(chart.ROOT.glob(f"{folder}/*/Cargo.toml"))
    manifests = {(loaded := tomllib.loads(path.read_text()))["package"]["name"]: loaded for path in paths}
    imported = {name: manifests.keys() & loaded.get("dependencies", {}).keys() for name, loaded in manifests.items()}
    drawn = {name: dependencies for _, crates in picture() for name, dependencies in crates.items()}
    assert drawn == imported


def test_no_arrow_of_the_picture_points_up():
    floors = picture()
    assert [floor for floor, _ in floors][-1] == "SDK for Triton"
    for place, (floor, crates) in enumerate(floors):
        # Programs and offline crates never import a backend, nor a backend them.
        below = [set(names) for other, names in floors[place:] if (other == "backends") == (floor == "backends") or other in ("shared", "SDK for Triton")]
        reachable = set().union(*below)
        for name, dependencies in crates.items():
            assert dependencies <= reachable, f"{name} of {floor} imports {dependencies - reachable}"


def test_no_target_has_the_name_of_a_dependency():
    """`cargo clean --workspace`, which a new checkout runs on what it links, removes by name: a test `parquet` takes the crate with it."""
    dependencies = {package["name"].replace("-", "_") for package in tomllib.loads((chart.ROOT / "Cargo.lock").read_text())["package"] if "source" in package}
    files = {path for name in FOLDERS for kind in ("tests", "examples") for path in (FOLDERS[name] / kind).glob("*.rs")}
    assert len(files) > 20
    assert not [str(path.relative_to(chart.ROOT)) for path in files if path.stem in dependencies]
    named = {(name, target["name"]) for name in FOLDERS for kind in ("bin", "bench", "test", "example") for target in manifest(name).get(kind, [])}
    assert ("saker-benches", "kernel_times") in named
    assert not [target for target in named if target[1] in dependencies]
