"""Measures a report in Chromium: texts that are cut or lie on each other, and how fast it opens.

python -m tests.report.measure runs/miniature/report/index.html
"""

from __future__ import annotations

import argparse
import html
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from tests.report.screenshot import chromium

WIDE = "*{font-family:'DejaVu Sans Mono',monospace !important}"  # letters of a wide font
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
LAYOUT = Path(__file__).with_name("measure_layout.js")
OPENING = """
const before = performance.now();
const browser = document.getElementById("browser");
browser.open = true;
browser.dispatchEvent(new Event("toggle"));
document.body.offsetHeight;
const filters = {};
for (const [name, value] of WANTED) {
  const field = document.getElementById("filters").elements[name];
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  filters[name + "=" + value] = document.getElementById("found").textContent;
  field.value = "";
}
return {
  loaded: before, opened: performance.now(), filters,
  shown: document.querySelectorAll("#rows article").length,
  scripts: document.querySelectorAll("#rows script, #rows b").length,
};
"""


def measured(
    page: Path,
    script: str,
    *,
    width: int = 1280,
    style: str = "",
    dark: bool = False,
    printed: bool = False,
) -> Any:
    """What a script returns that runs at the end of a copy of the page.

    The copy stands in a frame of the wished width, as a window can't be as narrow as a phone.
    """
    text = POLICY.sub("", page.read_text())
    if printed:
        text = text.replace("@media print", "@media all")
    inner = (
        f"<style>{style}</style><script>addEventListener('load', () => parent.postMessage("
        f"JSON.stringify((() => {{{script}}})()), '*'))</script>"
    )
    framed = html.escape(text.replace("</body>", f"{inner}</body>"))
    outer = (
        "<!doctype html><pre id=measured></pre><script>onmessage = (e) => "
        "{ document.getElementById('measured').textContent = e.data }</script>"
        f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{framed}"></iframe>'
    )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "page.html"
        copy.write_text(outer)
        size = f"--window-size={max(width + 40, 800)},1000"
        dom = chromium(copy, size, "--dump-dom", "--virtual-time-budget=60000", dark=dark)
    found = re.search(r'<pre id="measured">(.*?)</pre>', dom, re.S)
    assert found and found[1], "the page measured nothing"
    return json.loads(html.unescape(found[1]))


def layout(page: Path, *, width: int, wide_font: bool = False, **forms: bool) -> list[str]:
    """What is cut off, leaves the page sideways, or lies on something else; none is right."""
    style = WIDE if wide_font else ""
    return list(measured(page, LAYOUT.read_text(), width=width, style=style, **forms))


def opening(page: Path, **filters: str) -> dict[str, Any]:
    """How many answers each filter lets through, and milliseconds to load and to open them all."""
    script = OPENING.replace("WANTED", json.dumps(list(filters.items())))
    return dict(measured(page, script))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    page = parser.parse_args().page
    for width in (1280, 768, 390):
        for wide_font in (False, True):
            problems = layout(page, width=width, wide_font=wide_font)
            print(f"{width} px, {'wide' if wide_font else 'own'} font: {len(problems)} problems")
            print("".join(f"  {problem}\n" for problem in problems[:20]), end="")
    print(opening(page, text="sorry", outcome="0"))


if __name__ == "__main__":
    main()
