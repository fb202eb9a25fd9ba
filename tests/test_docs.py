"""The pages in docs/ and the README against the code: what they show works, and what they link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from v6_algorithm.experiment import Experiment

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = r"^```yaml(?: title=\S+)?\n(.*?)^```"
EXPERIMENTS = [
    pytest.param(block, id=f"{page.parent.name}-{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(BLOCK, page.read_text(encoding="utf-8"), re.M | re.S))
    if re.search(r"^data:", block, re.M)
]


def test_there_are_experiments_to_try():
    assert len(EXPERIMENTS) >= 5


@pytest.mark.parametrize("block", EXPERIMENTS)
def test_an_experiment_that_a_page_shows_is_valid(block):
    Experiment.parse(yaml.safe_load(block))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_every_command_is_named_in_the_readme_or_the_pages():
    from v6_algorithm.researcher.cli import app

    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    names = [(command.name or command.callback.__name__).replace("_", "-") for command in app.registered_commands]
    assert [name for name in names if f"v6-algorithm {name}" not in text] == []


def test_the_page_for_a_paper_names_keys_that_a_result_has():
    table = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8").split("## A paragraph")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")][1:]
    names = {name for row in rows for name in re.findall(r"`([a-z_]+)(?:\.[\w.]+)?`", row)}
    assert len(names) > 12
    made = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "v6_algorithm" / "coordinator").rglob("*.py"))
    assert not {name for name in names - {"auroc_resolution"} if not re.search(rf"\b{name}\b", made)}
