"""Where each checkout compiles, and what it takes over from others: scripts/environment.sh, with a cargo that only notes its arguments."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROBE = """#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
alone "$@"
echo "$CARGO_TARGET_DIR"
"""


class Checkouts:
    def __init__(self, folder):
        self.folder = folder
        self.cache = folder / "cache"
        programs = folder / "programs"
        programs.mkdir(parents=True)
        for name in ("cargo", "rustc", "rustup"):
            program = programs / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >>"{folder}/calls"\n')
            program.chmod(0o755)
        self.environment = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(folder), "SAKER_CACHE": str(self.cache)}

    def checkout(self, name):
        scripts = self.folder / name / "scripts"
        scripts.mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "environment.sh", scripts)
        shutil.copy(ROOT / "rust-toolchain.toml", scripts.parent)
        (scripts / "probe").write_text(PROBE)
        (scripts / "probe").chmod(0o755)
        return scripts.parent

    def probe(self, checkout, **more):
        """(the folder into which the checkout compiles, what cargo was asked for)"""
        calls = self.folder / "calls"
        calls.unlink(missing_ok=True)
        done = subprocess.run([checkout / "scripts" / "probe"], env={**self.environment, **more}, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        lines = calls.read_text().splitlines() if calls.exists() else []
        return Path(done.stdout.splitlines()[-1]), [line for line in lines if line.startswith("cargo clean")]


@pytest.fixture
def checkouts(tmp_path):
    return Checkouts(tmp_path)


def compiled(target, text="a dependency"):
    """What a build leaves behind."""
    for part in (".fingerprint", "build", "deps", "incremental"):
        (target / "release" / part).mkdir(parents=True)
        (target / "release" / part / "one").write_text(text)
    (target / ".rustc_info.json").write_text("{}")


def test_each_checkout_compiles_into_a_folder_of_its_own(checkouts):
    first, second = checkouts.checkout("a/saker"), checkouts.checkout("b/saker")
    folders = [checkouts.probe(checkout)[0] for checkout in (first, second, first)]
    assert folders[0] == folders[2] != folders[1]
    assert folders[0].parent == checkouts.cache / "builds"
    assert (first / ".saker" / "target").resolve() == folders[0]


def test_a_new_checkout_links_dependencies_and_changes_nothing_of_the_other(checkouts):
    first, second = checkouts.checkout("first"), checkouts.checkout("second")
    compiled(checkouts.probe(first)[0])
    target, cleaned = checkouts.probe(second)
    assert cleaned == ["cargo clean --quiet --release --workspace"], "the crates of the first checkout are not taken for the second one's"
    other = checkouts.probe(first)[0]
    names = {part: (target / "release" / part / "one", other / "release" / part / "one") for part in (".fingerprint", "build", "deps")}
    assert all(mine.read_text() == theirs.read_text() for mine, theirs in names.values())
    assert {part: mine.samefile(theirs) for part, (mine, theirs) in names.items()} == {".fingerprint": False, "build": False, "deps": True}
    assert not (target / "release" / "incremental").exists()
    assert checkouts.probe(second) == (target, []), "once"
    assert checkouts.probe(first) == (other, [])


def test_the_folder_of_a_deleted_checkout_goes_to_the_next_new_one(checkouts):
    gone = [checkouts.checkout(name) for name in ("one", "two")]
    for place, checkout in enumerate(gone):
        target = checkouts.probe(checkout)[0]
        shutil.rmtree(target / "release", ignore_errors=True)
        compiled(target, checkout.name)
        os.utime(target / "checkout", (place, place))
        shutil.rmtree(checkout)
    target, cleaned = checkouts.probe(checkouts.checkout("three"))
    assert (target / "release" / "incremental" / "one").read_text() == "two", "the newest, with all that it holds"
    assert len(cleaned) == 1
    assert [folder for folder in (checkouts.cache / "builds").iterdir() if folder.is_dir()] == [target], "the other one is removed"


def test_what_all_checkouts_shared_before_is_taken_over(checkouts):
    compiled(checkouts.cache / "target")
    (checkouts.cache / "target" / "checkout").write_text("/no/such/checkout\n")
    target, cleaned = checkouts.probe(checkouts.checkout("new"))
    assert (target / "release" / "deps" / "one").exists()
    assert len(cleaned) == 1
    assert not (checkouts.cache / "target").exists()


def test_a_folder_of_ones_own_choice_is_left_alone(checkouts, tmp_path):
    compiled(checkouts.probe(checkouts.checkout("first"))[0])
    target, cleaned = checkouts.probe(checkouts.checkout("second"), CARGO_TARGET_DIR=str(tmp_path / "mine"))
    assert (target, cleaned) == (tmp_path / "mine", [])
    assert sorted(path.name for path in target.iterdir()) == ["checkout", "lock"]
