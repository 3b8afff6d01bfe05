"""How long saving and restoring a stage's checkpoint takes: `python -m benchmarks.checkpoints`.

A train state with random parameters and both of Adam's moments (2.6 GB by default) is saved and
restored as a stage does it, each turn in a fresh process and folder. Prints a JSON line of medians:

- `blocked_seconds`: how long the train step waits, while the arrays are copied on the host;
- `save_gigabytes_per_second`: until all is on disk, which goes on while the next steps run;
- `restore_gigabytes_per_second`: from the page cache, into arrays on the device;
- `safetensors.torch save`: the rate of one file with the same arrays, from the call to the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.guard import processor
from benchmarks.load_weights import medians, parameter_shapes, reach_the_disk


def main() -> None:
    """Print the medians of all turns, or in a child one turn's figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=1, help="of width 2048")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--child", action="store_true", help="what the parent asks a child for")
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measured(args.layers)))
        return
    command = [sys.executable, "-m", "benchmarks.checkpoints", "--child"]
    turns = []
    for _ in range(args.turns):
        done = subprocess.run(
            [*command, "--layers", str(args.layers)], check=True, stdout=subprocess.PIPE, text=True
        )
        turns.append(json.loads(done.stdout.splitlines()[-1]))
    said = {"processor": processor(), "cores": len(os.sched_getaffinity(0))}
    print(json.dumps(said | medians(turns)))


def measured(layers: int) -> dict[str, float]:
    """One turn: save, restore, and torch's file of the same arrays."""
    from tga_jax.training.checkpoints import Checkpoints

    state = train_state(layers)
    arrays = [*state.trained.values(), *state.opt_state.values()]
    gigabytes = sum(array.nbytes for array in arrays) / 1e9
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder) / "checkpoints")
        began = time.perf_counter()
        checkpoints.save(1, state, {})
        blocked = time.perf_counter() - began
        checkpoints.wait()
        saved = time.perf_counter() - began
        began = time.perf_counter()
        found = checkpoints.restore(1, state).state
        [array.block_until_ready() for array in found.trained.values()]
        restored = time.perf_counter() - began
        checkpoints.close()
        in_torch = torch_save(arrays, Path(folder) / "model.safetensors")
    return {
        "gigabytes": gigabytes,
        "blocked_seconds": blocked,
        "save_gigabytes_per_second": gigabytes / saved,
        "restore_gigabytes_per_second": gigabytes / restored,
        "safetensors.torch save": gigabytes / in_torch,
    }


def train_state(layers: int) -> Any:
    """A language model's parameters and Adam's moments, all float32."""
    import jax

    from tga_jax.training.step import TrainState

    rng = np.random.default_rng(0)

    def values(shape: tuple[int, ...]) -> jax.Array:
        return jax.device_put(rng.random(shape, np.float32))

    shapes = {path: leaf.shape for path, leaf in parameter_shapes(layers, "float32").items()}
    params = {path: values(shape) for path, shape in shapes.items()}
    moments = {f"{m}/{path}": values(s) for m in ("mu", "nu") for path, s in shapes.items()}
    zero = jax.device_put(np.zeros((), np.int32))
    return TrainState(step=zero, trained=params, frozen={}, opt_state=moments, running=None)


def torch_save(arrays: list[Any], path: Path) -> float:
    """Seconds until safetensors.torch has the arrays on disk."""
    import torch
    from safetensors.torch import save_file

    tensors = {str(i): torch.from_numpy(np.array(array)) for i, array in enumerate(arrays)}
    began = time.perf_counter()
    save_file(tensors, path)
    reach_the_disk(path)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
