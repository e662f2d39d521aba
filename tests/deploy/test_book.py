"""scripts/docs: links and anchors of the documentation exist, the pages that mdBook gets link to each other, and the commands that pages
name exist with their options."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import chart
import test_programs

ROOT = chart.ROOT
SCRIPT = ROOT / "scripts" / "book.py"
_specification = importlib.util.spec_from_file_location("book", SCRIPT)
book = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(book)


def test_every_link_of_the_documentation_exists():
    assert not (wrong := book.check()), "\n".join(wrong)


@pytest.fixture
def tree(tmp_path):
    """A small repository without a fault."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# Shop\n\n[a](docs/a.md#how-it-works), [code](docs), `[no](link.md)`\n")
    (tmp_path / "docs" / "a.md").write_text("# A\n\n## How it *works*\n\n```\n[no](link.md)\n```\n\n[home](../README.md#shop)\n")
    (tmp_path / "docs" / "SUMMARY.md").write_text("# Summary\n\n[A](a.md)\n")
    return tmp_path


def test_a_tree_without_a_fault_passes(tree):
    assert book.check(tree) == []


@pytest.mark.parametrize(
    "file,text,message",
    [
        ("README.md", "[a](docs/b.md)", "README.md:1: docs/b.md: docs/b.md does not exist"),
        ("README.md", "\n[a](docs/a.md#missing)", "README.md:2: docs/a.md#missing: no heading of docs/a.md has the anchor #missing"),
        ("README.md", "[a](#here)", "README.md:1: #here: no heading of README.md has the anchor #here"),
        ("README.md", "![a picture](docs/a.svg)", "README.md:1: docs/a.svg: docs/a.svg does not exist"),
        ("README.md", "[![a](docs)](b)", "README.md:1: b: b does not exist"),
        ("docs/b.md", "# B", "docs/SUMMARY.md: docs/b.md is not listed; add a line such as '- [Title](b.md)'"),
        ("docs/SUMMARY.md", "[A](a.md)\n- [B](b.md)", "docs/SUMMARY.md:2: docs/b.md does not exist"),
        ("docs/SUMMARY.md", "[A](a.md)\n- [A](a.md)", "docs/SUMMARY.md:2: a.md is listed in line 1, too"),
        ("docs/a.md", "# Shop\n## How it works\n{{#include ../no.md}}", "docs/a.md:3: includes ../no.md, which does not exist"),
    ],
)
def test_a_fault_is_found(tree, file, text, message):
    (tree / file).write_text(text)
    assert message in book.check(tree)


@pytest.mark.parametrize(
    "heading,anchor",
    [
        ("## `[user]` and `[item]`", "user-and-item"),
        ("## What `saker promote` does", "what-saker-promote-does"),
        ("# Triton's control API", "tritons-control-api"),
        ("## `[towers]`, `[ranker]`, `[training]`", "towers-ranker-training"),
        ("## [linked](page.md) text", "linked-text"),
        ("## snake_case", "snake_case"),
    ],
)
def test_anchors_are_those_of_github(heading, anchor):
    assert book.anchors(heading) == {anchor}


def test_the_second_heading_of_a_name_has_a_number():
    assert book.anchors("# Shape\n## Shape\n") == {"shape", "shape-1"}


PLACES = {"docs/a.md": "a.md", "docs/backends/b.md": "backends/b.md", "backends/b/README.md": "backends/b.md"}


@pytest.mark.parametrize(
    "source,page,text,expected",
    [
        ("docs/a.md", "a.md", "[b](../backends/b/README.md#x)", "[b](backends/b.md#x)"),
        ("docs/a.md", "a.md", "[b](../backends/b)", "[b](backends/b.md)"),
        ("backends/b/README.md", "backends/b.md", "[a](../../docs/a.md)", "[a](../a.md)"),
        ("docs/a.md", "a.md", "[`x.rs`](../src/x.rs)", '<span title="src/x.rs">`x.rs`</span>'),
        ("docs/a.md", "a.md", "[two\nlines](../src/x.rs)", '<span title="src/x.rs">two\nlines</span>'),
        ("docs/a.md", "a.md", "[w](https://example.org) [h](#here)", "[w](https://example.org) [h](#here)"),
        ("docs/a.md", "a.md", "`[b](../src/x.rs)`", "`[b](../src/x.rs)`"),
        ("docs/a.md", "a.md", "```\n[b](../src/x.rs)\n```\n", "```\n[b](../src/x.rs)\n```\n"),
    ],
)
def test_links_lead_to_pages_of_the_book(source, page, text, expected):
    assert book.rewritten(text, source, page, PLACES) == expected


def pages(items):
    for item in items:
        if chapter := item.get("Chapter"):
            yield chapter["path"], chapter["content"]
            yield from pages(chapter["sub_items"])


def test_the_preprocessor_gives_mdbook_pages_whose_links_exist():
    """What mdBook 0.5 sends: all pages of SUMMARY.md with their texts."""
    folder = ROOT / "docs"
    chapters = [
        {"Chapter": {"name": name, "content": (folder / name).read_text(), "path": name, "source_path": name, "sub_items": []}}
        for _, name in book.chapters((folder / "SUMMARY.md").read_text())
    ]
    assert len(chapters) > 30
    answer = subprocess.run(
        [sys.executable, "../scripts/book.py"],
        cwd=folder,
        input=json.dumps([{}, {"items": chapters}]),
        capture_output=True,
        text=True,
        check=True,
    )
    texts = dict(pages(json.loads(answer.stdout)["items"]))
    assert len(texts) == len(chapters)
    assert "libtriton" in texts["backends/README.md"]
    for name, text in texts.items():
        assert "{{#include" not in text.replace("`{{#include", ""), name
        for number, target in book.links(text):
            if not book.relative(target):
                continue
            file, _, anchor = target.partition("#")
            goal = os.path.normpath(os.path.join(os.path.dirname(name), file)) if file else name
            if goal in texts:
                assert not anchor or anchor in book.anchors(texts[goal]), f"{name}: {target}"
            else:
                assert (folder / goal).is_file() and not goal.startswith(".."), f"{name}: {target}"


# In code of a page: a program or script where a command begins, and what follows it up to the end of the command.
COMMAND = re.compile(r"(?:^ *|[`\"(]|\$ |&& |; |\w=\S+ )((?:saker(?:-gateway|-updater|-follow)?|scripts/[a-z-]+)(?:[ ][^`\n|;&#<>\"]*)?)", re.MULTILINE)
CODE = re.compile(r"^```.*?^```|(?<!`)`[^`\n]+`(?!`)|^    \S.*$", re.MULTILINE | re.DOTALL)


def commands():
    """{(program, subcommand or ""): {option: page}} of the commands in code of README.md and docs/.

    The command of docs/adding-a-command.md is an example of one that somebody adds.
    """
    found = {}
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]:
        if page.name == "adding-a-command.md":
            continue
        for code in CODE.findall(page.read_text()):
            for command in COMMAND.findall(code):
                program, *words = command.split()
                subcommand = words[0] if program == "saker" and words and re.fullmatch("[a-z]+", words[0]) else ""
                options = found.setdefault((program, subcommand), {})
                options.update({word.split("=")[0]: page.name for word in words if re.fullmatch(r"--[a-z][\w-]*(=.*)?", word)})
    return found


COMMANDS = commands()


def unknown(options, text):
    return {f"{options[option]}: {option}" for option in test_programs.unknown(options, text)}


def test_commands_are_found():
    assert {"--user", "--explain", "--fused"} <= COMMANDS["saker", "recommend"].keys()
    assert "--detach" in COMMANDS["scripts/up", ""]
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("script", sorted({program for program, _ in COMMANDS if program.startswith("scripts/")}))
def test_scripts_of_the_pages_exist(script):
    path = ROOT / script
    assert path.exists(), COMMANDS[script, ""]
    if path.is_file() and path.read_text().startswith("#!/usr/bin/env bash"):
        # The comment block at the top is what --help prints.
        assert not unknown(COMMANDS[script, ""], path.read_text().split("set -euo")[0])


@pytest.mark.skipif(not test_programs.PROGRAMS, reason="SAKER_PROGRAMS is not set")
@pytest.mark.parametrize("program,subcommand", sorted(key for key in COMMANDS if not key[0].startswith("scripts/")))
def test_commands_of_the_pages_exist(program, subcommand):
    text = test_programs.help_of(pathlib.Path(test_programs.PROGRAMS) / program, *filter(None, [subcommand]))
    assert "Usage" in text, f"{program} {subcommand}: {text}"
    if subcommand:
        assert f"Usage: saker {subcommand}" in text, f"{program} {subcommand}"
    assert not unknown(COMMANDS[program, subcommand], text)
