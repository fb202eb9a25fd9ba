"""The report and the docs site in a browser: axe-core finds nothing, nothing is wider than a phone, nothing is loaded.

Needs Chromium and `make axe`, which installs tools/axe; without them it is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import v6_algorithm.api as v6
from v6_algorithm.researcher.report import write_artifacts

ROOT = Path(__file__).parents[3]
TOOL = ROOT / "tools" / "axe"
SITE = ROOT / "build" / "site"
BROWSER = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(
    not (BROWSER and shutil.which("node") and (TOOL / "node_modules").exists()), reason="no Chromium, or no `make axe`"
)


def look_at(*pages: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", str(TOOL / "axe.mjs"), *map(str, pages)],
        env={**os.environ, "CHROMIUM": str(BROWSER)},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
@needs_browser
def test_a_report_has_no_findings_at_two_widths_light_dark_and_on_paper(tmp_path):
    keys = {"target": "label", "data": {"target": "label"}, "rounds": 2, "model": "logistic"}
    keys["evaluation"] = {"subgroups": ["sex"]}
    import numpy as np
    import pandas as pd

    draw = np.random.default_rng(0)
    table = pd.DataFrame(draw.normal(size=(300, 3)), columns=["age", "a column with a name as long as they come", "b"])
    table["sex"] = draw.choice(["female", "male"], 300)
    table["label"] = (table["age"] + draw.normal(size=300) > 0).astype(int)
    keys["data"] |= {"categorical": ["sex"]}
    result = v6.run(keys, {"a hospital with a long name": table[:150], "b": table[150:220], "c": table[220:]})
    write_artifacts(result.content, tmp_path)
    done = look_at(tmp_path / "report.html")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@needs_browser
@pytest.mark.skipif(not (SITE / "index.html").exists(), reason="no `make docs`")
def test_pages_of_the_docs_site_have_none():
    """One with consoles, one with code, one whose tables are wider than a phone."""
    done = look_at(SITE / "quickstart.html", SITE / "python.html", SITE / "benchmarks.html")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@needs_browser
def test_a_page_with_faults_has_findings(tmp_path):
    (tmp_path / "bad.html").write_text(
        '<html><body><img src="x.png"><div style="width:2000px;background:#fff;color:#eee">wide</div>'
    )
    done = look_at(tmp_path / "bad.html")
    assert done.returncode == 1
    for finding in ("image-alt", "color-contrast", "wider than the screen", "html-has-lang"):
        assert finding in done.stdout, finding
