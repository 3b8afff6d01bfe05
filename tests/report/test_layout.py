"""The page in a browser: nothing is cut or lies on something else, and answers can be browsed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.report.fake import make_workdir
from tests.report.measure import LAYOUT, layout, measured, opening
from tests.report.screenshot import print_pdf
from tga_jax.main import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium"),
]
PAPER = 672  # pixels of A4 between its margins
ARMS = ("baseline", "tga", "a_model_with_a_very_long_name-without-any-blank-in-it-7b-v1.5")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of three models, one of a long name."""
    workdir = make_workdir(tmp_path_factory.mktemp("run") / "miniature", arms=ARMS, each=24)
    pair = f"--config.report.pair=tga,{ARMS[2]}"
    flags = ["--config=configs/from_hf.py", f"--workdir={workdir}", "--job=report", pair]
    assert main(["tga_jax", *flags]) == 0
    return workdir / "report" / "index.html"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("wide_font", [False, True])
def test_nothing_is_cut_and_nothing_overlaps(shown: Path, width: int, wide_font: bool) -> None:
    assert layout(shown, width=width, wide_font=wide_font) == []


def test_nothing_is_cut_in_the_dark(shown: Path) -> None:
    assert layout(shown, width=1280, dark=True) == []


def test_nothing_is_cut_on_paper(shown: Path) -> None:
    assert layout(shown, width=PAPER, printed=True) == []


@pytest.mark.parametrize(
    "fault",
    [
        ".bar-label { overflow: hidden; white-space: nowrap; width: 20px }",
        "h2 { margin-bottom: -24px }",
        ".scroll { overflow: visible } table { min-width: 3000px }",
    ],
)
def test_the_measurement_finds_faults(shown: Path, fault: str) -> None:
    assert measured(shown, LAYOUT.read_text(), width=390, style=fault)


def test_tables_say_that_they_scroll_on_a_phone(shown: Path) -> None:
    script = """return [...document.querySelectorAll(".scroll")].map((box) =>
      [box.scrollWidth > box.clientWidth + 1, box.querySelector(".cue").checkVisibility()])"""
    for width, some in ((390, True), (1280, False)):
        found = measured(shown, script, width=width)
        assert all(wider == cue for wider, cue in found)
        assert any(wider for wider, _ in found) or not some


def test_the_script_filters_answers(shown: Path) -> None:
    found = opening(shown, text="image", outcome="0", differ="judges")
    assert found["shown"] > 0 and found["scripts"] == 0
    total = 2 * 4 * 24
    assert found["filters"]["text=image"] == f"{total // 2} of {total} questions fit."
    for name in ("outcome=0", "differ=judges"):
        count = int(found["filters"][name].split()[0])
        assert 0 < count < total


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs pdftotext")
def test_no_heading_ends_a_printed_page(shown: Path, tmp_path: Path) -> None:
    print_pdf(shown, tmp_path / "page.pdf")
    done = subprocess.run(
        ["pdftotext", "-layout", tmp_path / "page.pdf", "-"], capture_output=True, check=True,
        text=True,
    )  # fmt: skip
    text = shown.read_text()
    headings = re.findall(r'<(?:h2|h3|dt|p class="caption")>(.*?)</', text)
    headings = {re.sub(r"<[^>]*>", "", heading).strip() for heading in headings}
    pages = [page.strip().splitlines() for page in done.stdout.split("\f") if page.strip()]
    assert len(pages) > 3 and "Glossary" in headings
    assert [page[-1].strip() for page in pages if page[-1].strip() in headings] == []
