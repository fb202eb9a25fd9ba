"""The docs site: every link leads somewhere, every page is in the menu, and a reader's browser asks no other host."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Six builds of a second each; `make docs` is one.
pytestmark = pytest.mark.slow


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a checkout."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_each_page_of_docs_and_the_readme_are_in_the_site(site):
    pages = [str(page.relative_to(ROOT / "docs")).replace(".md", ".html") for page in (ROOT / "docs").rglob("*.md")]
    assert len(pages) >= 25
    assert [page for page in [*pages, "index.html", "contributing.html"] if not (site / page).exists()] == []


def test_no_page_loads_anything_from_another_host(site):
    loading = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(https?:)?//|<link\b[^>]*href=\"?(https?:)?//")
    for page in site.rglob("*.html"):
        assert not loading.search(page.read_text(encoding="utf-8")), page
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"(?:@import|url\()\s*['\"]?(?:https?:)?//", text), sheet


def test_what_a_block_tells_the_tests_is_not_shown_and_the_block_is_a_block(site):
    page = (site / "python.html").read_text(encoding="utf-8")
    assert "no-run" not in page
    assert "```" not in page


def test_links_out_of_docs_lead_to_the_file_in_the_site(site):
    page = (site / "extend.html").read_text(encoding="utf-8")
    (target,) = set(re.findall(r'href="(checkout/[^"]+)"', page))
    assert "class QuantileRegression" in re.sub(r"<[^>]+>", "", (site / target).read_text(encoding="utf-8"))


@pytest.mark.parametrize("link", ["evaluation.md#no-such-heading", "no-such-page.md", "../no/such/file.py"])
def test_a_link_that_leads_nowhere_fails_the_build(tmp_path, link):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "evaluation.md").write_text(f"# Evaluation\n\n[there]({link})\n")
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"):
        (tmp_path / name).write_text("# Page\n")
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "docs_site.py", tmp_path / "tools")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:")[0]
    (tmp_path / "mkdocs.yml").write_text(re.sub(r"extra_(css|javascript): .*\n", "", settings))
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert link.split("#")[-1] in done.stderr
