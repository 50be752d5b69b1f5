"""Helpers of tests/docs.

site.py assemble FOLDER   copies the chapters of docs/SUMMARY.md and the files that they link to
                          into FOLDER/src
site.py check FOLDER      fails if a link of the HTML pages in FOLDER has no target, and lists those
"""

import html
import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

SUMMARY = PurePosixPath("docs/SUMMARY.md")
FENCE = re.compile(r"^\s*(```|~~~).*?^\s*\1\s*$", re.MULTILINE | re.DOTALL)
# mdBook does not draw Mermaid diagrams, and shows their source instead.
MERMAID = re.compile(r"^```mermaid$.*?^```$\n*", re.MULTILINE | re.DOTALL)
# mdBook renames README.md to index.html, but not the links to it.
README_LINK = re.compile(r"(\]\([^)\s#]*?)README\.md\b")
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]:\s+(\S+)|(?:src|href)=\"([^\"]+)\"", re.MULTILINE)


def local_links(markdown):
    """The paths that a Markdown text links to, without fragments."""
    for match in LINK.finditer(FENCE.sub("", markdown)):
        link = urlsplit(next(filter(None, match.groups())))
        if not link.scheme and not link.netloc and link.path:
            yield unquote(link.path)


# A line with only a link to a file, and the code block below it.
QUOTE = re.compile(r"^\[([^\]]+)\]\(\1\)\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def outdated_quotes(page, markdown):
    """The files that a page quotes in full, if the quote differs from the file."""
    for path, quote in QUOTE.findall(markdown):
        if Path(page.parent / path).read_text() != quote:
            yield f"{page}: the code block below [{path}] differs from the file"


def resolve(page, link):
    return PurePosixPath(os.path.normpath(page.parent / link))


def assemble(folder):
    source = folder / "src"
    shutil.rmtree(folder, ignore_errors=True)
    source.mkdir(parents=True)
    summary = Path(SUMMARY).read_text()
    chapters = [resolve(SUMMARY, link) for link in local_links(summary)]
    # mdBook reads paths relative to its source folder, which is the root of the repository here.
    root_relative = re.sub(r"\]\(([^)]+)\)", lambda m: f"]({resolve(SUMMARY, m[1])})", summary)
    (source / "SUMMARY.md").write_text(README_LINK.sub(r"\1index.md", root_relative))
    shutil.copy(Path("docs/book.toml"), folder)

    problems = []
    for chapter in chapters:
        text = Path(chapter).read_text()
        problems.extend(outdated_quotes(chapter, text))
        target = source / chapter
        if target.name == "README.md":
            target = target.with_name("index.md")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(README_LINK.sub(r"\1index.md", MERMAID.sub("", text)))
        for link in map(lambda path: resolve(chapter, path), local_links(text)):
            if link in chapters:
                continue
            if Path(link).is_dir():
                copy_folder(Path(link), source / link)
            elif link.suffix == ".md" and Path(link).is_file():
                problems.append(f"{chapter}: {link} is not a chapter in {SUMMARY}")
            elif Path(link).is_file():
                (source / link).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(link, source / link)
            else:
                problems.append(f"{chapter}: {link} does not exist")
    return problems


def copy_folder(folder, target):
    """Copies a folder and gives it a page that lists its files: a static site has no listings."""
    shutil.copytree(folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.md"))
    files = sorted(path.relative_to(target) for path in target.rglob("*") if path.is_file())
    names = [html.escape(str(file)) for file in files]
    items = "".join(f'<li><a href="{name}">{name}</a></li>' for name in names)
    title = html.escape(f"{folder}/")
    (target / "index.html").write_text(
        f'<!doctype html><meta charset="utf-8"><title>{title}</title><h1>{title}</h1>'
        f"<ul>{items}</ul>\n"
    )


class Page(HTMLParser):
    """The links and the anchors of an HTML page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], {"", "top"}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            elif name in ("href", "src") and tag != "base" and value:
                self.links.append(value)


def check(folder):
    pages = {path: Page(path) for path in sorted(folder.rglob("*.html"))}
    problems, count = [], 0
    for path, page in pages.items():
        if path.name == "toc.html":
            # Shown in a frame by browsers without JavaScript; the same links are in toc.js.
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            count += 1
            target = path
            if parts.path:
                target = Path(os.path.normpath(path.parent / unquote(parts.path)))
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                problems.append(f"{path}: {link}: no such file")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                problems.append(f"{path}: {link}: no such anchor")
    if not count:
        problems.append(f"{folder}: no links found")
    if not problems:
        print(f"docs: {len(pages)} pages, {count} local links, none broken")
    return problems


if __name__ == "__main__":
    command, target = {"assemble": assemble, "check": check}[sys.argv[1]], Path(sys.argv[2])
    found = command(target)
    sys.exit("\n".join(f"docs: {problem}" for problem in found) if found else 0)
