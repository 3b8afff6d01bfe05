"""What decides a stage's result: written when it begins, compared when it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tga_jax.cluster import shared_files
from tga_jax.errors import UserError
from tga_jax.run.fingerprint import flat
from tga_jax.run.guide import guided_layers
from tga_jax.run.job import Job
from tga_jax.run.prompts import PromptStyle
from tga_jax.run.samples import prepared_folder, samples_digest
from tga_jax.run.weights import Weights

# Changing these does not change what a stage computes.
FREE_STAGE_KEYS = ("save_every", "save_minutes", "keep", "keep_every", "log_every")
FREE_DATA_KEYS = ("workers", "max_bad_fraction")

Settings = dict[str, Any]


def stage_settings(job: Job, style: PromptStyle, steps: int, start: Weights) -> Settings:
    """All that decides what the job's stage computes, as JSON."""
    config, workdir, stage = job.config, job.workdir, job.name
    own = {k: v for k, v in config[stage].to_dict().items() if k not in FREE_STAGE_KEYS}
    data = {k: v for k, v in config.data.to_dict().items() if k not in FREE_DATA_KEYS}
    path = config[stage].path or config.data.path
    if config.data.mixture or prepared_folder(config, workdir, path):
        data["samples"] = samples_digest(config, workdir, stage)
    settings = {
        "seed": config.seed,
        "dtype": config.dtype,
        "trained_dtype": config.trained_dtype,
        "moments": config.moments,
        "start": start.digest,
        "model": config.model.to_dict(),
        "prompt": style.settings(config.prompt),
        "guide": guide_settings(config, workdir, stage),
        "lora": config.lora.to_dict(),
        "data": data,
        stage: own | {"steps": steps},
    }
    return json.loads(json.dumps(settings))


def guide_settings(config: ConfigDict, workdir: Path, stage: str) -> Settings:
    """config.guide as it counts in the stage: with the layers that "auto" stands for."""
    guide = config.guide.to_dict()
    del guide["layers_from"]
    if guide["form"] != "none" and config[stage].guide:
        guide["layers"] = guided_layers(config.guide, workdir)
    return guide


def claim_folder(folder: Path, settings: Settings) -> None:
    """Write the stage's settings into its folder; refuse one that holds a run with others."""
    path = folder / "settings.json"
    found = shared_files.read_json(path, missing_ok=True)
    if found is None:
        shared_files.write_json(path, settings)
        return
    refuse_others(folder, found, settings)


def check_finished(job: Job, style: PromptStyle, *, done: Weights, start: Weights) -> None:
    """Refuse settings that are not those which the finished stage was trained with.

    No samples are read: where their number gives the steps, the steps that were done are taken.
    And prepared data that came or went after the training is no reason to refuse its weights.
    """
    folder, steps = job.workdir / job.name, job.config[job.name].steps
    found = shared_files.read_json(folder / "settings.json", missing_ok=True)
    if found is None:
        return
    settings = stage_settings(job, style, steps if steps >= 0 else done.step, start)
    if "samples" not in found["data"].keys() & settings["data"].keys():
        for one in (found, settings):
            one["data"].pop("samples", None)
    refuse_others(folder, found, settings)


def refuse_others(folder: Path, found: Settings, settings: Settings) -> None:
    """Refuse a stage's folder that was begun with `found` where `settings` are others."""
    old, new = flat(found), flat(settings)
    changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    if not changed:
        return
    key = changed[0]
    if key == "start":
        # A changed key of config.model is named before this one, as it comes first in the
        # alphabet; so the keys are the same, and it is the files that changed.
        raise UserError(
            f"{folder} was begun from other weights than config.model's files, or the "
            "stage before, now hold: use another --workdir, or delete that folder"
        )
    raise UserError(
        f"{folder} was begun with config.{key}={old.get(key)!r}, now it is "
        f"{new.get(key)!r}: use another --workdir, or delete that folder"
    )
