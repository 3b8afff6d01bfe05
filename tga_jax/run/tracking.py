"""What a stage tells the trackers of config.trackers about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tga_jax.files import flat
from tga_jax.models.llava import Llava
from tga_jax.run.job import Job
from tga_jax.run.stage import trained_counts
from tga_jax.run.stage_settings import Settings
from tga_jax.training.trackers import About


def about_stage(
    job: Job, llava: Llava, factors: Mapping[str, float | None], settings: Settings
) -> About:
    """Returns what the trackers show beside the curves of the job's stage.

    Args:
        job: the stage's.
        llava: the model.
        factors: path of a parameter -> factor on the learning rate; None: frozen.
        settings: all that decides what the stage computes.
    """
    return About(
        name=f"{job.workdir.name}/{job.name}",
        config=job.config.to_dict(),
        hyperparameters=flat(settings),
        tables={"parameters": parameters_by_part(llava, factors)},
    )


def parameters_by_part(llava: Llava, factors: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Returns a line for each part of the model: how many parameters it has, how many are trained.

    Adapters are a part of their own.
    """
    counts = trained_counts(llava, dict.fromkeys(factors, 1.0))
    trained = trained_counts(llava, factors)
    return [
        {"part": part, "parameters": count, "trained": trained.get(part, 0)}
        for part, count in counts.items()
    ]
