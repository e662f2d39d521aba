"""CONTRIBUTING.md and the pages for those who add something: the files, scripts and Rust names that they give exist."""

import re

import pytest

import chart

PAGES = ["CONTRIBUTING.md", *(f"docs/adding-{what}.md" for what in ("an-operator", "a-step", "a-command"))]
# A path is written from the repository's root, or from one of these folders, as the page says.
FOLDERS = {
    "CONTRIBUTING.md": [],
    "docs/adding-an-operator.md": ["crates/saker-workflow", "scripts/benchmark"],
    "docs/adding-a-step.md": [
        "crates/saker-assemble/src", "crates/saker-pipeline", "crates/saker-steps", "backends/fused_recommendation", "backends/unroll",
        "tests/server", "scripts/benchmark",
    ],
    "docs/adding-a-command.md": ["helm/saker", "tests/deploy"],
}
# What the reader makes, or a program writes, or stands for a name of the reader's.
MADE = re.compile(r"[<>*…$]|NAME|DATASET|\.saker/|^(workflow|graph)\.json$|^/proc/|^lib\.rs$")
PATH = re.compile(r"`([\w./<>*-]+\.(?:rs|py|md|toml|json|js|h|txt)|(?:scripts|docs|tests|deploy|crates|backends|helm|src)/[\w./<>*-]+)`")


def found(page, path):
    places = [chart.ROOT, *(chart.ROOT / folder for folder in FOLDERS[page])]
    return [place / path for place in places if (place / path).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_files_exist(page):
    paths = {path for path in PATH.findall((chart.ROOT / page).read_text()) if not MADE.search(path)}
    assert len(paths) > 5
    for path in sorted(paths):
        assert found(page, path), path


@pytest.mark.parametrize("page", PAGES[1:])
def test_rust_names_exist(page):
    """Each `fn name`, `enum Name`, `struct Name` and `NAMES` of the page is in a file that the page names."""
    # Blocks show what the reader writes.
    text = re.sub(r"```.*?```", "", (chart.ROOT / page).read_text(), flags=re.DOTALL)
    sources = "".join(file.read_text() for path in PATH.findall(text) for file in found(page, path) if file.is_file())
    names = set(re.findall(r"`((?:enum|fn|function|struct|trait) \w+|[A-Z_]{5,})`", text))
    assert len(names) >= 2
    for name in sorted(names):
        assert re.search(rf"\b{name}\b", sources), f"no file that the page names has {name}"


def test_the_pages_are_linked():
    text = (chart.ROOT / "CONTRIBUTING.md").read_text()
    for page in PAGES[1:]:
        assert f"]({page})" in text
