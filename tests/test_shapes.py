"""What the annotations of the core say about shapes and dtypes is what the programs do."""

from __future__ import annotations

import subprocess
import sys


def test_the_core_keeps_to_its_annotations() -> None:
    command = [sys.executable, "-m", "tests.traced_shapes"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
