"""Memory and speed of reading a checkpoint: `python -m benchmarks.load_weights`.

Makes a checkpoint of random bfloat16 weights in a temporary folder (2.3 GB by default), reads
it in a fresh process into each dtype, and prints a JSON line a reading. `over_model_bytes` is
what the peak of the process (interpreter and libraries included) exceeds the model by.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.hf import names
from tga_jax.hf.tensor_files import NewTensor, write_tensors
from tga_jax.models.config import DecoderConfig, LlavaConfig, VisionConfig

VISION = VisionConfig(336, 14, 1024, 2, 16, 4096)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--read", help="folder to read (what the parent asks its child for)")
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()
    if args.read:
        print(json.dumps(_measure(Path(args.read), args.layers, args.dtype)))
        return
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), args.layers)
        for dtype in ("bfloat16", "float32"):
            child = [sys.executable, "-m", "benchmarks.load_weights", "--read", folder]
            subprocess.run([*child, "--dtype", dtype, "--layers", str(args.layers)], check=True)


def _leaves(layers: int, dtype: str) -> dict[str, Any]:
    import flax.linen as nn
    import jax
    from flax.traverse_util import flatten_dict

    from tga_jax.models.llava import Llava, PixelNorm

    decoder = DecoderConfig(32064, 2048, layers, 16, 16, 128, 5632)
    model = Llava(LlavaConfig(VISION, decoder, 32000), PixelNorm((0.5,) * 3, (0.5,) * 3))
    shapes = nn.meta.unbox(model.abstract_params())
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return {
        path: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=device)
        for path, leaf in flatten_dict(shapes, sep="/").items()
    }


def _values(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.random(shape, np.float32)


def _write(folder: Path, layers: int) -> None:
    rng = np.random.default_rng(0)
    tensors = [
        NewTensor(slot.name, slot.shape, functools.partial(_values, rng, slot.shape))
        for path, leaf in _leaves(layers, "bfloat16").items()
        for slot in names.slots(path, leaf.shape)
    ]
    write_tensors(folder, tensors, dtype="bfloat16", max_bytes=1_000_000_000)


def _measure(folder: Path, layers: int, dtype: str) -> dict[str, Any]:
    from tga_jax.hf.weights import load_weights

    leaves = _leaves(layers, dtype)
    before = _peak_bytes()
    start = time.perf_counter()
    params = load_weights(folder, leaves, family="llava")
    seconds = time.perf_counter() - start
    model_bytes = sum(array.nbytes for array in params.values())
    file_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return {
        "dtype": dtype,
        "file_bytes": file_bytes,
        "model_bytes": model_bytes,
        "peak_before_bytes": before,
        "peak_bytes": _peak_bytes(),
        "over_model_bytes": _peak_bytes() - model_bytes,
        "seconds": round(seconds, 2),
        "file_gigabytes_per_second": round(file_bytes / seconds / 1e9, 3),
    }


def _peak_bytes() -> int:
    """Highest resident memory of this process (Linux); getrusage's counts the parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
