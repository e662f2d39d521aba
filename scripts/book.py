"""Checks the links of the documentation, and prepares its pages for mdBook. scripts/docs calls it.

    book.py check            every link and anchor exists; docs/SUMMARY.md lists every page of docs/
    book.py                  mdBook's preprocessor: a book as JSON comes on stdin and goes to stdout (docs/book.toml)
    book.py supports NAME    mdBook asks whether the renderer NAME is supported

Exit codes of check: 0 all links exist, 1 some do not (a line for each on stderr).
"""

import itertools
import json
import os
import re
import sys
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "*.md",
    "docs/**/*.md",
    "crates/*/README.md",
    "backends/*/README.md",
    "benches/*.md",
    "fuzz/*.md",
    "model_repository/*.md",
    "deploy/**/*.md",
    "helm/**/*.md",
)
# Text in backquotes holds no link. A target ends at a blank (before a title) or at the parenthesis.
CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)((?:\s[^()]*)?)\)")
DEFINITION = re.compile(r"^ {0,3}\[([^\]]+)\]:\s*(\S+)")
INCLUDE = re.compile(r"\{\{#include ([^:}\s]+)\}\}")
CHAPTER = re.compile(r"^\s*(?:[-*]\s+)?\[[^\]]+\]\(([^)]*)\)\s*$")


def prose(text):
    """(line number, line) of each line outside of fenced code blocks."""
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        mark = re.match(r"\s*(?:>\s*)?(`{3,}|~{3,})", line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip("`~"):
                fence = None
        elif mark:
            fence = mark[1]
        else:
            yield number, line


def without_code(line):
    """The line with blanks in place of code, so that positions stay."""
    return CODE.sub(lambda found: " " * len(found[0]), line)


def links(text):
    """(line number, target) of each link, image and link definition."""
    for number, line in prose(text):
        line = without_code(line)
        # The text of a link may be an image with a link of its own.
        for found in re.finditer(r"\]\(([^()\s]+)(?:\s[^()]*)?\)", line):
            yield number, found[1]
        if found := DEFINITION.match(line):
            yield number, found[2]


def anchors(text):
    """The anchors of a page's headings, as GitHub and mdBook name them."""
    found = set()
    for _, line in prose(text):
        heading = re.match(r"#{1,6}\s+(.*?)\s*#*$", line)
        if heading:
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            same, count = name, 0
            while same in found:
                count += 1
                same = f"{name}-{count}"
            found.add(same)
        found.update(re.findall(r'<a (?:id|name)="([^"]+)"', line))
    return found


def relative(target):
    return not re.match(r"[a-z][a-z0-9+.-]*:|//", target, re.IGNORECASE)


def expanded(path):
    """The text of a page with its includes in place."""

    def included(found):
        file = path.parent / found[1]
        return file.read_text() if file.is_file() else ""

    return INCLUDE.sub(included, path.read_text())


def broken_links(root, path):
    """A line for each link of the page at `path` whose file or anchor does not exist."""
    text = path.read_text()
    name = path.relative_to(root).as_posix()
    for number, line in prose(text):
        for found in INCLUDE.finditer(line):
            if not (path.parent / found[1]).is_file():
                yield f"{name}:{number}: includes {found[1]}, which does not exist"
    for number, target in links(text):
        if not relative(target):
            continue
        file, _, anchor = target.partition("#")
        goal = path if not file else path.parent / file
        if not goal.exists():
            yield f"{name}:{number}: {target}: {os.path.normpath(goal.relative_to(root))} does not exist"
        elif anchor and goal.suffix == ".md" and anchor not in anchors(expanded(goal)):
            yield f"{name}:{number}: {target}: no heading of {os.path.normpath(goal.relative_to(root))} has the anchor #{anchor}"


def chapters(summary):
    """(line number, path) of each page of a SUMMARY.md."""
    for number, line in prose(summary):
        found = CHAPTER.match(line)
        if found and found[1]:
            yield number, found[1]


def broken_summary(root):
    """A line for each page of docs/ that SUMMARY.md does not list, or lists twice, and for each listed page that does not exist."""
    folder = root / "docs"
    listed = {}
    for number, path in chapters((folder / "SUMMARY.md").read_text()):
        if path in listed:
            yield f"docs/SUMMARY.md:{number}: {path} is listed in line {listed[path]}, too"
        listed[path] = number
        if not (folder / path).is_file():
            yield f"docs/SUMMARY.md:{number}: docs/{path} does not exist"
    pages = {page.relative_to(folder).as_posix() for page in folder.glob("**/*.md")} - {"SUMMARY.md"}
    for page in sorted(pages - listed.keys()):
        yield f"docs/SUMMARY.md: docs/{page} is not listed; add a line such as '- [Title]({page})'"


def check(root=ROOT):
    """What is wrong with the documentation below `root`, a line each."""
    pages = sorted({page for pattern in PAGES for page in root.glob(pattern) if page.is_file()})
    return [line for page in pages for line in broken_links(root, page)] + list(broken_summary(root))


def homes():
    """{file of the repository: page of the book} of each page, and of each file that a page includes."""
    folder = ROOT / "docs"
    found = {}
    for _, page in chapters((folder / "SUMMARY.md").read_text()):
        found[f"docs/{page}"] = page
        path = folder / page
        for name in INCLUDE.findall(path.read_text()):
            found[os.path.relpath((path.parent / name).resolve(), ROOT)] = page
    return found


def rewritten(text, source, page, places):
    """`text` of the file `source` with links that work on the page `page` of the book.

    A link to a file that no page of the book shows becomes its text, with the file's path as a tooltip.
    """

    def link(found):
        image, words, target, title = found.groups()
        if image or not relative(target) or target.startswith("#"):
            return found[0]
        file, _, anchor = target.partition("#")
        goal = os.path.normpath(os.path.join(os.path.dirname(source), file))
        if goal in places:
            here = os.path.relpath(places[goal], PurePosixPath(page).parent)
            return f"[{words}]({here}{'#' + anchor if anchor else ''}{title})"
        # A page that includes a folder's README.md stands for the folder.
        if f"{goal}/README.md" in places:
            here = os.path.relpath(places[f"{goal}/README.md"], PurePosixPath(page).parent)
            return f"[{words}]({here})"
        if goal.startswith("docs/"):
            here = os.path.relpath(goal.removeprefix("docs/"), PurePosixPath(page).parent)
            return f"[{words}]({here}{title})"
        return f'<span title="{goal}">{words}</span>'

    outside = {number for number, _ in prose(text)}
    result = []
    # Lines between two code blocks belong together: the text of a link may go on in the next line.
    for is_prose, group in itertools.groupby(enumerate(text.splitlines(keepends=True), 1), lambda each: each[0] in outside):
        part = "".join(line for _, line in group)
        end = 0
        if is_prose:
            bare = without_code(part)
            for found in LINK.finditer(part):
                # Not what is in code. The text of a link may hold code.
                if bare[found.start()] == part[found.start()] and bare[found.end() - 1] == ")":
                    result += [part[end : found.start()], link(found)]
                    end = found.end()
        result.append(part[end:])
    return "".join(result)


def prepare(book):
    """Puts includes into the pages of mdBook's `book` and rewrites their links."""
    places = homes()

    def walk(items):
        for item in items:
            chapter = item.get("Chapter") if isinstance(item, dict) else None
            if not chapter:
                continue
            page = chapter["path"]
            if page:
                source = f"docs/{chapter.get('source_path') or page}"
                parts = re.split(INCLUDE, chapter["content"])
                for index, part in enumerate(parts):
                    if index % 2:
                        file = os.path.normpath(os.path.join(os.path.dirname(source), part))
                        parts[index] = rewritten((ROOT / file).read_text(), file, page, places)
                    else:
                        parts[index] = rewritten(part, source, page, places)
                chapter["content"] = "".join(parts)
            walk(chapter["sub_items"])

    # mdBook 0.5 says `items`, 0.4 `sections`.
    walk(book.get("items", book.get("sections")))
    return book


def main(arguments):
    if arguments in (["-h"], ["--help"]):
        print(__doc__.strip())
    elif arguments == ["check"]:
        wrong = check()
        for line in wrong:
            print(line, file=sys.stderr)
        return 1 if wrong else 0
    elif arguments[:1] == ["supports"]:
        return 0
    elif not arguments:
        _, book = json.load(sys.stdin)
        json.dump(prepare(book), sys.stdout)
    else:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
