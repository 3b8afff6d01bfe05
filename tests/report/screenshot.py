"""An image or a PDF of a report, by a Chromium that is installed.

python -m tests.report.screenshot runs/miniature/report/index.html docs/report.png [--dark]
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path


def chromium(page: Path, *flags: str, dark: bool = False) -> str:
    """Runs a headless Chromium on a page and returns what it prints."""
    with tempfile.TemporaryDirectory() as profile:
        quiet = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={profile}", "--hide-scrollbars",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        ]  # fmt: skip
        command = ["chromium", *quiet, *flags, page.resolve().as_uri()]
        done = subprocess.run(command, check=True, capture_output=True, timeout=180, text=True)
        return done.stdout


def screenshot(
    page: Path, image: Path, *, dark: bool = False, width: int = 1200, height: int = 1250
) -> None:
    """Writes the top `height` pixels of a page as PNG, in its light or its dark colours."""
    size = f"--window-size={width},{height}"
    chromium(page, size, f"--screenshot={image.resolve()}", dark=dark)


def print_pdf(page: Path, target: Path) -> None:
    """Writes a page as it is printed."""
    chromium(page, "--no-pdf-header-footer", f"--print-to-pdf={target.resolve()}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=1250)
    flags = parser.parse_args()
    if flags.image.suffix == ".pdf":
        print_pdf(flags.page, flags.image)
        return
    size = {"width": flags.width, "height": flags.height}
    screenshot(flags.page, flags.image, dark=flags.dark, **size)


if __name__ == "__main__":
    main()
