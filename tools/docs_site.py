"""What MkDocs is told beside `mkdocs.yml`: which files outside docs/ are pages, and where links to sources lead.

README is the first page, CONTRIBUTING, CHANGELOG and SECURITY are pages too. A link out of docs/ to a file or folder of
the checkout leads to a page that shows it, so a reader of the site alone follows every link. `make docs` calls MkDocs,
which calls the functions below by name.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, normpath, relpath
from typing import Any

ROOT = Path(__file__).parents[1]
# A file of the checkout, and the page that it becomes.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
_LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=[^)]*\))")
_FENCE = re.compile(r"^(```\w+)[ \t]+(?!title=)[^\n]*$", re.M)
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".sh": "bash", ".json": "json"}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made of files outside docs/."""
    from mkdocs.structure.files import File

    contents = {page: (source, (ROOT / source).read_text(encoding="utf-8")) for source, page in PAGES.items()}
    for file in list(files):
        if file.src_uri.endswith(".md"):
            contents[file.src_uri] = (f"docs/{file.src_uri}", Path(file.abs_src_path).read_text(encoding="utf-8"))
    shown: dict[str, str] = {}
    for page, (source, text) in list(contents.items()):
        contents[page] = (source, _relinked(text, source, page, shown))
    for page, target in shown.items():
        files.append(File.generated(config, page, content=_shown(ROOT / target, target)))
    for page in PAGES.values():
        files.append(File.generated(config, page, content=contents[page][1]))
    config["extra"]["relinked"] = {page: text for page, (_, text) in contents.items()}
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Give a page its links within the site; what tests read behind a block's language is left out."""
    text = config["extra"]["relinked"].get(page.file.src_uri, markdown)
    return _FENCE.sub(r"\1", text)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Make a column's empty head a plain cell, for a screen reader would announce a head that says nothing."""
    return re.sub(r"<th( [^>]*)?></th>", r"<td\1></td>", html)


def _relinked(text: str, source: str, page: str, shown: dict[str, str]) -> str:
    """Lead each link of a file to where its target is in the site; files that become pages of their own are added."""

    def lead(match: re.Match[str]) -> str:
        target = match[1]
        if "://" in target or target.startswith("mailto:"):
            return target
        path = normpath(f"{dirname(source)}/{target}".lstrip("/"))
        if path in PAGES:
            goal = PAGES[path]
        elif path.startswith("docs/"):
            goal = path.removeprefix("docs/")
        elif (ROOT / path).exists():
            goal = f"checkout/{path}.md".replace("/.", "/")
            shown[goal] = path
        else:
            return target  # MkDocs says that it leads nowhere
        return relpath(goal, dirname(page) or ".")

    return _LINK.sub(lead, text)


def _shown(path: Path, name: str) -> str:
    """Write a page that shows a text file, or every text file of a folder."""
    files = sorted(path.glob("*")) if path.is_dir() else [path]
    parts = [f"# {name}\n\nAs it is in the checkout.\n"]
    for file in files:
        if file.is_file() and file.suffix in (*_LANGUAGES, ".md", ".csv", ""):
            text, language = file.read_text(encoding="utf-8")[:20_000], _LANGUAGES.get(file.suffix, "text")
            parts.append(f"## {file.name}\n\n````{language}\n{text}\n````\n")
    return "\n".join(parts)
