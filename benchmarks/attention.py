"""CPU: blockwise attention beside plain XLA products and torch's SDPA, forward and backward.

    taskset -c 1 python -m benchmarks.attention --length 512

The arms take turns in one process; medians of CPU time. Causal, no padding, float32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.guard import write_ratios
from tga_jax.models.attention import attend
from tga_jax.models.visibility import Visibility


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in dict(batch=4, length=512, heads=8, width=64, repeats=7).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--write", type=Path, help="leave the ratios in this file for the guard")
    args = parser.parse_args()
    shape = (args.batch, args.length, args.heads, args.width)
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=shape).astype(np.float32) for _ in range(3)]
    arms = {name: _jax_arm(name, inputs) for name in ("xla", "blockwise")}
    arms["torch"] = _torch_arm(inputs)
    times: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(args.repeats + 1):
        for name, run in arms.items():
            start = time.process_time()
            run()
            if turn:  # the first turn compiles
                times[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {name: round(medians["blockwise"] / value, 3) for name, value in medians.items()}
    if args.write:
        lower = {f"CPU time over {name}": ratios[name] for name in ("xla", "torch")}
        write_ratios(args.write, "attention", higher={}, lower=lower)
    print(json.dumps({"shape": shape, "cpu_s": medians, "blockwise_over": ratios}))


def _jax_arm(backend: str, inputs: list[np.ndarray]) -> Callable[[], Any]:
    batch, length = inputs[0].shape[:2]
    positions = jnp.broadcast_to(jnp.arange(length), (batch, length))
    segments = jnp.ones((batch, length), jnp.int32)
    visible = Visibility(positions, positions, segments, segments)

    def loss(q: jax.Array, k: jax.Array, v: jax.Array, visible: Visibility) -> jax.Array:
        return attend(q, k, v, visible, backend=backend).sum()

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    arrays = [jnp.asarray(x) for x in inputs]
    return lambda: jax.block_until_ready(step(*arrays, visible))


def _torch_arm(inputs: list[np.ndarray]) -> Callable[[], Any]:
    import torch

    q, k, v = (torch.tensor(x).transpose(1, 2).requires_grad_() for x in inputs)

    def run() -> Any:
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return torch.autograd.grad(out.sum(), (q, k, v))

    return run


if __name__ == "__main__":
    main()
