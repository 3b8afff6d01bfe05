"""States of prompts that job `evaluate` leaves for job `analyze`, so that these are run only once.

A prompt's file is found by the model and by what is asked. The files are for one process.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from tga_jax.analysis.prompts import analysed_system, make_prompts
from tga_jax.cluster import hosts
from tga_jax.evaluation.asked import read_benchmarks
from tga_jax.evaluation.benchmarks.load import Benchmark
from tga_jax.evaluation.examinee import Examinee, See
from tga_jax.evaluation.items import EvalItem, items_digest
from tga_jax.files import digest, read_json, replacing, write_json
from tga_jax.inference.prompt_states import PromptStates
from tga_jax.run.job import Job
from tga_jax.run.model import OpenModel
from tga_jax.run.weights import Weights, model_digest

ABOUT = "model.json"  # beside the states: all that decides them but for what is asked


class KeptStates:
    """A folder of states, float32 arrays in the .npy format."""

    def __init__(self, folder: Path, model: Mapping[str, Any]) -> None:
        """Names the folder; what another model left there counts as absent.

        Args:
            folder: of the files.
            model: all that decides the states of a prompt, as JSON values.
        """
        self._folder, self._model = folder, dict(model)
        self._key = digest(self._model)

    def begin(self) -> None:
        """Make the folder ready for this model's states; another model's are removed."""
        about = self._folder / ABOUT
        if read_json(about, missing_ok=True) != {"model": self._key}:
            self.remove()
            self._folder.mkdir(parents=True)
            write_json(about, {"model": self._key})

    def remove(self) -> None:
        """Remove the folder, if it exists."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def path(self, item: EvalItem) -> Path:
        """The file of a prompt, whether it exists or not."""
        return self._folder / f"{digest([self._key, items_digest([item])])}.npy"

    def rows(self, items: Sequence[EvalItem]) -> set[int]:
        """The places of the prompts whose states are there."""
        if not self._folder.is_dir():
            return set()
        return {row for row, item in enumerate(items) if self.path(item).is_file()}

    def keep(self, item: EvalItem, last: np.ndarray, image: np.ndarray) -> None:
        """Write float[1 + L, D] and float[L, D]; the latter is of use beside a caption alone."""
        rows = [last, image] if "caption" in item.extra else [last]
        with replacing(self.path(item)) as temporary, temporary.open("wb") as file:
            np.save(file, np.concatenate(rows).astype(np.float32))

    def read(
        self, items: Sequence[EvalItem], *, layers: int, size: int, dtype: Any
    ) -> PromptStates:
        """The states of prompts, filled up to `size` with repeats; `dtype` is the model's."""
        found = [np.load(self.path(item), allow_pickle=False) for item in items]
        found += [found[-1]] * (size - len(found))
        last = np.stack([states[: 1 + layers] for states in found], axis=1)
        image = np.zeros_like(last[1:])
        for row, states in enumerate(found):
            image[: len(states) - 1 - layers, row] = states[1 + layers :]
        return PromptStates(jnp.asarray(last, dtype), jnp.asarray(image))


def settings_of_states(config: ConfigDict, model: OpenModel, weights: Weights) -> dict[str, Any]:
    """All that decides the states of a prompt that is analysed, but for what is asked."""
    return {
        "weights": weights.tag,
        "checkpoint": model_digest(model, weights),
        "model": config.model.to_dict(),
        "seed": config.seed,  # of a new projector
        "dtype": config.dtype,
        "template": model.prompts.template,
        "prompt_date": model.prompts.written_date,
        "system": analysed_system(config, model.prompts),
        "pictures": model.image_settings,
        "max_length": config.data.max_length,
        "newlines": config.guide.newlines,
    }


def kept_states(job: Job, model: OpenModel, weights: Weights) -> KeptStates:
    """The states that lie between the jobs `evaluate` and `analyze` of a workdir."""
    settings = settings_of_states(job.config, model, weights)
    return KeptStates(job.workdir / "analyze" / "states", settings)


def keeper(
    job: Job, model: OpenModel, examinee: Examinee, benchmarks: Sequence[Benchmark]
) -> See | None:
    """What keeps the states of prompts that job `analyze` asks, too; None where it asks none.

    It must be run next, in this process alone, and ask under the same system text.
    """
    config, cfg = job.config, job.config.analyze
    alike = analysed_system(config, model.prompts) == examinee.system
    if "analyze" not in job.following or hosts.several() or not alike:
        return None
    read = read_benchmarks(job, "analyze.benchmarks") if cfg.benchmarks else benchmarks
    prompts = make_prompts(
        read, image_prompt=cfg.image_prompt, scene_prompt=cfg.scene_prompt, limit=cfg.limit
    )
    kept = kept_states(job, model, examinee.weights)
    kept.begin()
    items = [prompt.item for prompt in prompts if prompt.kind != "scenes"]
    there = kept.rows(items)
    missing = {kept.path(item): item for row, item in enumerate(items) if row not in there}

    def see(item: EvalItem, states: PromptStates) -> None:
        caption = item.extra.get("caption")
        plain = dataclasses.replace(item, extra={"caption": caption} if caption else {})
        wanted = missing.pop(kept.path(plain), None)
        if wanted is not None:
            kept.keep(wanted, np.asarray(states.last, np.float32), np.asarray(states.image))

    return see
