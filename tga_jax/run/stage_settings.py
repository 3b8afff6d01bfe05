"""What decides a stage's result: written when it begins, compared when it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tga_jax.cluster import hosts
from tga_jax.errors import UserError
from tga_jax.files import write_json
from tga_jax.run.context import Context, Weights, read_marker
from tga_jax.run.fingerprint import flat
from tga_jax.run.guided_layers import guided_layers
from tga_jax.run.samples import prepared_folder, samples_digest

# Changing these does not change what a stage computes.
FREE_STAGE_KEYS = ("save_every", "save_minutes", "keep", "keep_every", "log_every")


FREE_DATA_KEYS = ("workers", "max_bad_fraction")


def stage_settings(context: Context, stage: str, steps: int, start: Weights) -> dict[str, Any]:
    """All that decides what a stage computes, as JSON."""
    config = context.config
    own = {k: v for k, v in config[stage].to_dict().items() if k not in FREE_STAGE_KEYS}
    data = {k: v for k, v in config.data.to_dict().items() if k not in FREE_DATA_KEYS}
    if config.data.mixture or prepared_folder(context, config[stage].path or config.data.path):
        data["samples"] = samples_digest(context, stage)
    settings = {
        "seed": config.seed,
        "dtype": config.dtype,
        "trained_dtype": config.trained_dtype,
        "moments": config.moments,
        "start": start.digest,
        "model": config.model.to_dict(),
        "prompt": context.prompt_settings(config[stage].template),
        "guide": guide_settings(context, stage),
        "lora": config.lora.to_dict(),
        "data": data,
        stage: own | {"steps": steps},
    }
    return json.loads(json.dumps(settings))


def guide_settings(context: Context, stage: str) -> dict[str, Any]:
    """config.guide as it counts in the stage: with the layers that "auto" stands for."""
    guide = context.config.guide.to_dict()
    del guide["layers_from"]
    if guide["form"] != "none" and context.config[stage].guide:
        guide["layers"] = guided_layers(context)
    return guide


def claim_folder(context: Context, stage: str, settings: dict[str, Any]) -> None:
    """Write the stage's settings; refuse a folder that holds a run with others."""
    path = context.stage_folder(stage) / "settings.json"
    found = hosts.from_first(lambda: read_marker(path))
    if found is None:
        write_json(path, settings)
        return
    refuse_others(path.parent, found, settings)


def check_finished(context: Context, done: Weights, start: Weights) -> None:
    """Refuse settings that are not those which the finished stage was trained with.

    Reads no samples: where their number gives the steps, the steps that were done are taken. And
    prepared data that came or went after the training is no reason to refuse its weights.
    """
    stage = context.job
    folder = context.stage_folder(stage)
    found = hosts.from_first(lambda: read_marker(folder / "settings.json"))
    if found is None:
        return
    steps = context.config[stage].steps
    settings = stage_settings(context, stage, steps if steps >= 0 else done.step, start)
    if "samples" not in found["data"].keys() & settings["data"].keys():
        for one in (found, settings):
            one["data"].pop("samples", None)
    refuse_others(folder, found, settings)


def refuse_others(folder: Path, found: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refuse a stage's folder that was begun with `found` where `settings` are others."""
    old, new = flat(found), flat(settings)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            if key == "start":  # sorted behind "model": that is the same
                raise UserError(
                    f"{folder} was begun from other weights than config.model's files, or the "
                    "stage before, now hold: use another --workdir, or delete that folder"
                )
            raise UserError(
                f"{folder} was begun with config.{key}={old.get(key)!r}, now it is "
                f"{new.get(key)!r}: use another --workdir, or delete that folder"
            )
