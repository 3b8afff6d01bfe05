"""A picture of a report, by a Chromium that is installed.

python -m tests.report.screenshot runs/miniature/report/index.html docs/report.png [--dark]
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path


def screenshot(
    page: Path, picture: Path, *, dark: bool = False, width: int = 1200, height: int = 1250
) -> None:
    """Writes the top `height` pixels of a page as PNG, in its light or its dark colours."""
    with tempfile.TemporaryDirectory() as profile:
        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}",
            "--hide-scrollbars", f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--window-size={width},{height}", f"--screenshot={picture.resolve()}",
        ]  # fmt: skip
        command = ["chromium", *flags, page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--height", type=int, default=1250)
    flags = parser.parse_args()
    screenshot(flags.page, flags.picture, dark=flags.dark, height=flags.height)


if __name__ == "__main__":
    main()
