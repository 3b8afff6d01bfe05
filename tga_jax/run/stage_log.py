"""What a training stage says of itself: before its first step, and after its last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tga_jax.cluster import hosts
from tga_jax.data.loader import BatchSource
from tga_jax.files import read_log
from tga_jax.run.job import Job
from tga_jax.training.metrics import clock


def say_steps(job: Job, source: BatchSource, done: int) -> None:
    """Say how many steps, samples and tokens are to come after step `done`."""
    steps, records = len(source) - done, len(source.records)
    samples = steps * job.config[job.name].batch_size
    job.say(
        f"to come: {steps} steps, {samples} samples ({samples / records:.2f} epochs of {records}), "
        f"about {source.about_tokens(done):,} tokens"
    )


def say_done(job: Job, steps: int, seconds: float, terms: Mapping[str, int]) -> None:
    """Say what training came to: steps, time, the first and the last logged language loss (the
    guide's part is not there in every step), where they are, and which terms trained nothing.

    Args:
        job: of the stage.
        steps, seconds: how many it had, and how long they took.
        terms: how many samples have each term of the guide.
    """
    folder = job.workdir / job.name
    lines = list(read_log(folder / "metrics.jsonl")) if hosts.is_first() else []
    losses = [line["lm_loss"] for line in lines if line.get("lm_loss") is not None]
    first = f"{losses[0]:.4f} -> " if len(losses) > 1 else ""
    ends = f", language loss {first}{losses[-1]:.4f}" if losses else ""
    job.say(f"trained {steps} steps in {clock(seconds)}{ends}")
    for name in terms:
        if warning := idle_warning(name, terms[name], lines):
            job.say(warning)
    job.say(f"losses: {folder / 'metrics.jsonl'}; weights: {folder / 'checkpoints'}")


def say_plan(job: Job, counts: Mapping[str, int], warnings: Sequence[str]) -> None:
    """Say what is trained, by the parameters of each part, and what has no effect."""
    parts = ", ".join(f"{count:,} of the {part}" for part, count in counts.items())
    job.say(f"trains {sum(counts.values()):,} parameters: {parts}")
    if "adapters" in counts and not job.config.lora.train_decoder:
        job.say("the decoder's own weights are frozen (config.lora.train_decoder trains both)")
    for warning in filter(None, warnings):
        job.say(warning)


def idle_warning(term: str, samples: int, lines: Sequence[Mapping[str, Any]]) -> str:
    """What is to be said of a term of the guide that no logged step had, or that was always 0.

    Args:
        term: "pair", "hinge" or "answer".
        samples: how many samples have it.
        lines: of metrics.jsonl.
    """
    logged = [line for line in lines if "loss" in line]
    if not (samples and logged):
        return ""
    values = [line[f"guide_{term}"] for line in logged if line[f"guide_{term}"] is not None]
    if not values:
        return (
            f"WARNING: no logged step had the guide's term {term!r}, though {samples} samples have "
            "it; where states are centred, the only captioned sample of a step does not count"
        )
    if not any(values):
        return (
            f"WARNING: the guide's term {term!r} was 0 in every logged step; "
            "where states are centred, equal captions leave nothing to compare"
        )
    return ""
