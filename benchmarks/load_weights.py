"""Speed and memory of reading and writing a checkpoint: `python -m benchmarks.load_weights`.

Makes checkpoints of random weights in a temporary folder (2.3 GB in bfloat16 by default), and does
each of these in a fresh process, in turns: our loading and export, `safetensors.torch`'s loading
and saving of the same tensors, and `from_pretrained` of transformers. Prints a JSON line of medians
for each. Rates are gigabytes of the file a second; the file is in the page cache. Torch's loading
maps the file, so every tensor is copied; of transformers' model every page is touched.
`over_model_bytes` is what the peak of the process (interpreter and libraries included) exceeds the
model by.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.guard import processor
from tga_jax.models.config import DecoderConfig, LlavaConfig, VisionConfig

VISION = VisionConfig(336, 14, 1024, 2, 16, 4096)
WIDTH, FFN, HEADS, VOCAB = 2048, 5632, 16, 32064
CASES = (("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16"))
READERS = ("tga_jax", "safetensors.torch", "transformers")
WRITERS = ("tga_jax export", "safetensors.torch save")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--arm", help="what the parent asks its child to measure")
    parser.add_argument("--folder", help="for the child: the checkpoint")
    parser.add_argument("--dtype", help="for the child: of the parameters")
    args = parser.parse_args()
    if args.arm:
        print(json.dumps(_measure(args.arm, Path(args.folder), args.layers, args.dtype)))
        return
    print(json.dumps({"processor": processor(), "cores": len(os.sched_getaffinity(0))}))
    with tempfile.TemporaryDirectory() as folder:
        for stored, wanted in CASES:
            checkpoint = Path(folder) / stored
            if not checkpoint.exists():
                _write(checkpoint, args.layers, stored)
            for line in _in_turns(checkpoint, wanted, args.layers, args.turns):
                print(json.dumps({"file": stored, "memory": wanted} | line), flush=True)


def _in_turns(folder: Path, dtype: str, layers: int, turns: int) -> list[dict[str, Any]]:
    """Medians of each arm; in every turn all arms run, one after the other."""
    stored = folder.name
    arms = [*READERS, *(WRITERS if stored == dtype else ())]
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for _ in range(turns):
        for arm in arms:
            child = [sys.executable, "-m", "benchmarks.load_weights", "--arm", arm]
            flags = ["--folder", str(folder), "--dtype", dtype, "--layers", str(layers)]
            done = subprocess.run([*child, *flags], check=True, capture_output=True, text=True)
            found[arm].append(json.loads(done.stdout.splitlines()[-1]))
    return [{"arm": arm} | medians(runs) for arm, runs in found.items()]


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of every figure over the runs."""
    return {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}


def parameter_shapes(layers: int, dtype: str) -> dict[str, Any]:
    """Parameter -> shape, dtype and place (this process's device)."""
    import flax.linen as nn
    import jax
    from flax.traverse_util import flatten_dict

    from tga_jax.models.llava import Llava, PixelNorm

    model = Llava(_config(layers), PixelNorm((0.5,) * 3, (0.5,) * 3))
    shapes = nn.meta.unbox(model.abstract_params())
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return {
        path: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=device)
        for path, leaf in flatten_dict(shapes, sep="/").items()
    }


def _config(layers: int) -> LlavaConfig:
    decoder = DecoderConfig(VOCAB, WIDTH, layers, HEADS, HEADS, WIDTH // HEADS, FFN)
    return LlavaConfig(VISION, decoder, 32000)


def _values(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.random(shape, np.float32)


def _write(folder: Path, layers: int, dtype: str) -> None:
    from tga_jax.hf import names
    from tga_jax.hf.tensor_writing import NewTensor, write_tensors

    rng = np.random.default_rng(0)
    tensors = [
        NewTensor(slot.name, slot.shape, functools.partial(_values, rng, slot.shape))
        for path, leaf in parameter_shapes(layers, "bfloat16").items()
        for slot in names.slots(path, leaf.shape)
    ]
    write_tensors(folder, tensors, dtype=dtype, max_bytes=1_000_000_000)
    (folder / "config.json").write_text(json.dumps(_hf_config(layers)))


def _hf_config(layers: int) -> dict[str, Any]:
    """config.json, for transformers."""
    text = {
        "model_type": "llama",
        "vocab_size": VOCAB,
        "hidden_size": WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "intermediate_size": FFN,
    }
    vision = {
        "model_type": "clip_vision_model",
        "image_size": VISION.image_size,
        "patch_size": VISION.patch_size,
        "hidden_size": VISION.width,
        "num_hidden_layers": VISION.layers,
        "num_attention_heads": VISION.heads,
        "intermediate_size": VISION.ffn,
    }
    return {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "image_token_index": 32000,
        "text_config": text,
        "vision_config": vision,
    }


def _measure(arm: str, folder: Path, layers: int, dtype: str) -> dict[str, Any]:
    """One arm, in this process; what it needs is imported and, for writers, loaded before."""
    kinds: dict[str, Callable[..., Any]] = {
        "tga_jax": _ours,
        "safetensors.torch": _safetensors,
        "transformers": _transformers,
        "tga_jax export": _our_export,
        "safetensors.torch save": _safetensors_save,
    }
    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        work = kinds[arm](folder, layers, dtype, Path(out))
        start, before = time.perf_counter(), os.times()
        model_bytes = work()
        seconds, after = time.perf_counter() - start, os.times()
    file_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return {
        "seconds": seconds,
        "cpu_seconds": after.user + after.system - before.user - before.system,
        "gigabytes_per_second": file_bytes / seconds / 1e9,
        "over_model_bytes": _peak_bytes() - model_bytes,
    }


def _ours(folder: Path, layers: int, dtype: str, _: Path) -> Callable[[], int]:
    from tga_jax.hf.weights import load_weights

    leaves = parameter_shapes(layers, dtype)
    return lambda: sum(x.nbytes for x in load_weights(folder, leaves, family="llava").values())


def _our_export(folder: Path, layers: int, dtype: str, out: Path) -> Callable[[], int]:
    from tga_jax.hf.saving import save_weights
    from tga_jax.hf.weights import load_weights

    params = load_weights(folder, parameter_shapes(layers, dtype), family="llava")

    def work() -> int:
        save_weights(params, out, config=_config(layers), dtype=dtype)
        return sum(array.nbytes for array in params.values())

    return work


def _torch_tensors(folder: Path, dtype: str) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    kind = getattr(torch, dtype)
    out = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            out[name] = tensor.to(kind, copy=True)
    return out


def _safetensors(folder: Path, layers: int, dtype: str, _: Path) -> Callable[[], int]:
    import torch  # noqa: F401 - imported before the clock starts

    return lambda: sum(tensor.nbytes for tensor in _torch_tensors(folder, dtype).values())


def _safetensors_save(folder: Path, layers: int, dtype: str, out: Path) -> Callable[[], int]:
    from safetensors.torch import save_file

    tensors = _torch_tensors(folder, dtype)

    def work() -> int:
        save_file(tensors, out / "model.safetensors")
        reach_the_disk(out / "model.safetensors")  # as our export does
        return sum(tensor.nbytes for tensor in tensors.values())

    return work


def reach_the_disk(path: Path) -> None:
    """Wait until a written file is on disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _transformers(folder: Path, layers: int, dtype: str, _: Path) -> Callable[[], int]:
    import torch
    from transformers import LlavaForConditionalGeneration

    def work() -> int:
        kind = getattr(torch, dtype)
        model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=kind)
        for parameter in model.parameters():  # those that are mapped are read now
            parameter.detach().reshape(-1)[::1024].sum()
        return sum(parameter.nbytes for parameter in model.parameters())

    return work


def _peak_bytes() -> int:
    """Highest resident memory of this process (Linux); getrusage's counts the parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
