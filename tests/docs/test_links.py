"""Links between the pages, without the site's builder; `make docs` is the strict one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path("docs")
PAGES = sorted(DOCS.glob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", [*PAGES, Path("README.md")], ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [link.partition("#")[0] for link in LINK.findall(page.read_text())]
    inner = [target for target in targets if target and "://" not in target]
    assert not [target for target in inner if not (page.parent / target).exists()]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_page_is_on_the_site(page: Path) -> None:
    navigation = Path("mkdocs.yml").read_text().partition("\nnav:\n")[2]
    assert re.search(rf"\b{re.escape(page.name)}$", navigation, re.MULTILINE)
