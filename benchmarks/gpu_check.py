"""Whether a GPU computes what a CPU does: `python -m benchmarks.gpu_check`.

Three whole TGA steps of the tiny model on the same weights and batch, for every mode, dtype and
attention backend named, on the device and in float32 with plain products on the CPU. Prints a JSON
line a case with the largest relative difference of the losses, and ends with 1 where it exceeds
the dtype's bound. On the device float32 products are made exact (a GPU's TF32 is not).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gpu import DEFAULTS, MODES, Arm, make_input
from benchmarks.gpu_arm import Settings

BOUNDS = {"float32": 1e-4, "bfloat16": 2e-2}
BACKENDS = ("xla", "auto")  # auto: on a GPU cuDNN's, in bfloat16
STEPS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--mode", choices=MODES, action="append", help="may be repeated")
    args = parser.parse_args()
    os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
    bad = False
    for mode in args.mode or MODES:
        with tempfile.TemporaryDirectory() as folder:
            for case in compared(mode, args.device, Path(folder)):
                print(json.dumps(case), flush=True)
                bad |= not case["within_bound"]
    sys.exit(bad)


def compared(mode: str, device: str, folder: Path) -> list[dict[str, Any]]:
    """Every dtype and backend of a mode beside the CPU."""
    reference = Settings(mode, "float32", "cpu", "none", "xla", 0)
    make_input(reference, "tiny", DEFAULTS["tiny"], folder)
    expected, _ = losses(reference, folder)
    cases = []
    for dtype in BOUNDS:
        for backend in BACKENDS:
            found, kind = losses(Settings(mode, dtype, device, "none", backend, 0), folder)
            pairs = zip(found, expected, strict=True)
            difference = max(abs(a - b) / abs(b) for a, b in pairs)
            case: dict[str, Any] = {"mode": mode, "device": kind, "dtype": dtype}
            case["attention"] = backend
            case |= {"loss_difference": difference, "bound": BOUNDS[dtype]}
            cases.append(case | {"within_bound": bool(difference <= BOUNDS[dtype])})
    return cases


def losses(settings: Settings, folder: Path) -> tuple[list[float], str]:
    """Of the first steps, and the device they ran on."""
    arm = Arm("tga_jax", settings, folder)
    arm.start()
    for _ in range(STEPS):
        arm.ask("step")
    arm.end()
    if arm.failed:
        raise SystemExit(f"the steps with {settings} did not run; see above")
    return [step["loss"] for step in arm.steps], arm.described["device"]


if __name__ == "__main__":
    main()
