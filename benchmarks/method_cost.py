"""What the guide adds to a train step: `taskset -c 1 python -m benchmarks.method_cost`.

Five steps, in turn: the language model's loss alone; the guide with the caption in a forward pass
of its own (what is shipped); the same with only the first half of the layers compared; the same
with a batch that has no caption; and the guide with the caption behind the row's tokens, a segment
that sees itself alone and whose states no gradient enters. Time and peak memory as in
benchmarks/train_step.py; the FLOPs of the program; and, compiled for eight devices that share the
parameters (fsdp), the bytes that a device sends. FLOPs and bytes count the caption pass also where
the batch has no caption. Prints a JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import train_step
from benchmarks.guard import write_ratios

ARMS = ("language model alone", "caption pass", "half the layers", "no captions", "caption segment")
ALONE, PASS, HALF, NO_CAPTIONS, SEGMENT = ARMS
DEVICES = 8


def main() -> None:
    args = arguments()
    if args.worker:
        print(json.dumps(WORKERS[args.worker](args, Path(args.folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        child("make", folder)
        result: dict[str, Any] = {"losses": child("check", folder)}
        result |= child("time", folder)
        result["peak_gigabytes"] = {arm: child("memory", folder, arm) for arm in ARMS}
        result["executed_tflop"] = {arm: child("flops", folder, arm) for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        child("make", folder, devices=DEVICES)
        sent = {arm: child("sent", folder, arm, devices=DEVICES) for arm in ARMS}
    result["sent_gigabytes_of_fsdp"] = sent
    result["over_alone"] = {
        name: {arm: round(figures[arm] / figures[ALONE], 3) for arm in ARMS[1:]}
        for name, figures in result.items()
        if name not in ("losses", "settings")
    }
    if args.write:
        over = result["over_alone"]
        lower = {f"{name} over the language model's loss alone": over[name][PASS] for name in over}
        write_ratios(args.write, "method_cost", higher={}, lower=lower)
    print(json.dumps(result | {"settings": train_step.settings(args)}, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    train_step.add_sizes(parser)
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    return train_step.parse(parser, WORKERS)


def child(worker: str, folder: str, arm: str = ALONE, *, devices: int = 1) -> Any:
    """What a worker in a process of its own prints; on several devices a batch has a row each."""
    flags, variables = ["--arm", arm], {}
    if devices > 1:
        flags += ["--batch", str(devices)]
        variables["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    return train_step.run_worker("benchmarks.method_cost", worker, folder, *flags, **variables)


def make_arm(name: str, args: argparse.Namespace, folder: Path) -> Any:
    """An `OurStep`."""
    from benchmarks.our_step import OurStep, compute_of
    from tga_jax.training import objective

    batch = dict(np.load(folder / "batch.npz"))
    if name == NO_CAPTIONS:
        batch |= {key: np.zeros_like(batch[key]) for key in batch if key.startswith("caption_")}
    form = "none" if name == ALONE else "paper"
    chosen = caption_segment if name == SEGMENT else objective.forward
    with mock.patch.object(objective, "forward", chosen):  # while the step is traced
        made = OurStep(
            folder,
            batch,
            compute_of("float32", args.remat, args.attention),
            learning_rate=train_step.RATE,
            form=form,
            layers=max(1, args.layers // 2) if name == HALF else None,
        )
    return made


def caption_segment(
    model: Any, params: Any, batch: dict[str, Any], *, guided: bool, ce_chunk: int, **_: Any
) -> Any:
    """`tga_jax.training.objective.forward` with the caption as a segment of the row."""
    import jax
    import jax.numpy as jnp

    from tga_jax.alignment.guide import GuideStates
    from tga_jax.alignment.pooling import span_mask
    from tga_jax.training.cross_entropy import shift_labels, token_nll
    from tga_jax.training.passes import Passes

    assert guided
    length, words = batch["tokens"].shape[1], batch["caption_tokens"]
    places = jnp.broadcast_to(jnp.arange(words.shape[1]), words.shape)
    embeddings = jnp.concatenate(
        [
            model.embed(params, batch["tokens"], batch["images"]),
            model.embed(jax.lax.stop_gradient(params), words, None),
        ],
        axis=1,
    )
    spans = [batch["image_span"], batch["retrieved_span"], batch["caption_span"] + length]
    out = model.decode(
        params,
        embeddings,
        positions=jnp.concatenate([batch["positions"], places], axis=1),
        segments=jnp.concatenate([batch["segments"], 2 * batch["caption_segments"]], axis=1),
        pool=span_mask(jnp.stack(spans, axis=1), length + words.shape[1]),
    )
    image, retrieved, caption = (out.pooled[:, :, i] for i in range(3))
    hidden = model.final_norm(params, out.hidden[:, :length])
    labels = shift_labels(batch["labels"])
    nll = token_nll(hidden, model.head_kernel(params), labels, chunk=ce_chunk)
    return Passes(nll, GuideStates(image, retrieved, jax.lax.stop_gradient(caption)))


def check(args: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Losses of three steps; the same for both ways to take the caption's states.

    Raises:
        AssertionError: they differ.
    """
    losses = {}
    for name in ARMS:
        made = make_arm(name, args, folder)
        losses[name] = [made.step() for _ in range(3)]
        del made
    np.testing.assert_allclose(losses[SEGMENT], losses[PASS], 1e-4)
    assert abs(losses[PASS][0] - losses[ALONE][0]) > 1e-3, losses
    return losses


def times(args: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """CPU seconds of a step: all arms in turn, medians."""
    made = {name: make_arm(name, args, folder) for name in ARMS}
    taken: dict[str, list[float]] = {name: [] for name in ARMS}
    for turn in range(args.warmup + args.turns):
        for name, one in made.items():
            _, seconds = train_step.timed(one.step)
            if turn >= args.warmup:
                taken[name].append(seconds)
    return {"cpu_seconds": {name: round(statistics.median(s), 4) for name, s in taken.items()}}


def memory(args: argparse.Namespace, folder: Path) -> float:
    """An arm's peak, GB."""
    return train_step.peak_of(make_arm(args.arm, args, folder))


def flops(args: argparse.Namespace, folder: Path) -> float:
    """Executed in a step, in 10^12."""
    from tga_jax.training.flops import count_flops

    return round(count_flops(make_arm(args.arm, args, folder).traced.jaxpr).hardware / 1e12, 6)


def sent(args: argparse.Namespace, folder: Path) -> float:
    """Bytes that a device sends in a step, in 10^9."""
    from tga_jax.planning.hlo import parse_program
    from tga_jax.planning.traffic import collective_bytes

    program = parse_program(make_arm(args.arm, args, folder).compiled.as_text())
    return round(sum(collective_bytes(program, devices=DEVICES).values()) / 1e9, 6)


WORKERS: dict[str, Callable[[argparse.Namespace, Path], Any]] = {
    "make": train_step.make,
    "check": check,
    "time": times,
    "memory": memory,
    "flops": flops,
    "sent": sent,
}

if __name__ == "__main__":
    main()
