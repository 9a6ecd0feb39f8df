"""The documents: the site builds without a broken link, every page is in its menu, and it fetches nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site() -> Path:
    """`make docs`, without the installation."""
    command = ["make", "-o", ".venv/docs", "docs", f"BIN={Path(sys.executable).parent}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "build" / "site"


def test_every_page_is_in_the_menu(site: Path) -> None:
    menu = set(re.findall(r"([a-z]+)\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} <= menu
    assert all((site / f"{page}.html").is_file() for page in menu)


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"<(?:script|img|link)\b[^>]*(?:src|href)=\"(https?:)?//", re.IGNORECASE)
    assert [page.name for page in site.glob("*.html") if loads.search(page.read_text(encoding="utf-8"))] == []
