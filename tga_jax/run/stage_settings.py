"""What decides a stage's result: written when it begins, compared when it goes on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tga_jax.cluster import shared_files
from tga_jax.config import STAGES
from tga_jax.errors import UserError
from tga_jax.files import flat
from tga_jax.run.guide import guided_layers
from tga_jax.run.job import Job
from tga_jax.run.prompts import PromptStyle
from tga_jax.run.sample_files import WRITERS, Content
from tga_jax.run.weights import Weights, finished_stage, trained_with

# Changing these does not change what a stage computes.
FREE_STAGE_KEYS = (
    "save_every", "save_minutes", "keep", "keep_every", "log_every", "evaluate_every",
    "accept_changed_data",
)  # fmt: skip
# Where the data lies is free, too: its content is compared instead.
FREE_DATA_KEYS = ("workers", "max_bad_fraction", "path", "captions", "retrieved", "image_dir")
FREE_PLACES = ("path", "image_dir")  # of a stage
# What config.<stage>.accept_changed_data lets go on: which samples there are, and their length.
DATA_KEYS = ("data.content", "data.used", "data.max_length", "data.buckets", "data.caption_buckets")

Settings = dict[str, Any]


def stage_settings(
    job: Job,
    style: PromptStyle,
    content: Content,
    *,
    used: str | None,
    steps: int,
    start: Weights,
) -> Settings:
    """All that decides what the job's stage computes, as JSON.

    Args:
        job: whose configuration it is.
        style: how its prompts are written.
        content: of the files that its samples come from.
        used: a hash of which samples are usable; None where they were not read.
        steps: how many steps the stage has.
        start: the weights that it starts from.
    """
    config, workdir, stage = job.config, job.workdir, job.name
    free = (*FREE_STAGE_KEYS, *FREE_PLACES)
    own = {k: v for k, v in config[stage].to_dict().items() if k not in free}
    data = {k: v for k, v in config.data.to_dict().items() if k not in FREE_DATA_KEYS}
    data |= {"content": content, "used": used}
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
    if config[stage].best:  # then they decide which checkpoint is the result
        settings[stage] |= {"evaluate_every": config[stage].evaluate_every}
        held = config.held_out.to_dict()
        settings["held_out"] = {k: v for k, v in held.items() if k != "batch_size"}
    return json.loads(json.dumps(settings))


def as_trained(job: Job) -> Job:
    """The job with the guide, prompts, padding and own keys of its finished stages.

    What the present command says of them otherwise is told and does not count: the weights are no
    longer changed by it.
    """
    config = job.config.copy_and_resolve_references()
    for stage in STAGES:
        if finished_stage(job.workdir, stage) is None:
            continue
        found = trained_with(job.workdir, stage)
        own = found.get(stage, {})
        taken = {
            "prompt": {k: v for k, v in found.get("prompt", {}).items() if k != "date"},
            "guide": found.get("guide", {}) if own.get("guide") else {},
            "data": {k: v for k, v in found.get("data", {}).items() if k == "pad_to_square"},
            stage: own,
        }
        for section, keys in taken.items():
            for key, value in keys.items():
                config[section][key] = value
    _say_taken(job, config)
    return dataclasses.replace(job, config=config)


def say_other_template(job: Job, style: PromptStyle, weights: Weights) -> None:
    """Warn where the second stage's model is asked in another template than it was trained with."""
    if weights.stage != "finetune":
        return
    found = trained_with(job.workdir, weights.stage)
    own = found.get(weights.stage, {}).get("template") or found.get("prompt", {}).get("template")
    if own and style.named(own) != style.template:
        job.say(
            f'WARNING: prompts are written in template "{style.template}", and the model was '
            f'trained with "{style.named(own)}": it may answer worse, and less safely'
        )


def _say_taken(job: Job, config: ConfigDict) -> None:
    resolved = ("guide.layers", "prompt.template")  # "auto" is written as what it stands for
    was, now = (flat(json.loads(json.dumps(one.to_dict()))) for one in (job.config, config))
    changed = [k for k in now if was.get(k) != now[k] and not (k in resolved and was[k] == "auto")]
    steps = [f"{stage}.steps" for stage in STAGES]  # settings have them where epochs give them
    told = [f"{key}={now[key]!r}" for key in changed if key not in steps]
    if told:
        job.say(f"as in training, not as config says now: {', '.join(told)}")


def guide_settings(config: ConfigDict, workdir: Path, stage: str) -> Settings:
    """config.guide as it counts in the stage: with the layers that "auto" stands for."""
    guide = config.guide.to_dict()
    del guide["layers_from"]
    if not guide["newlines"]:  # as before there was the key
        del guide["newlines"]
    if guide["form"] != "none" and config[stage].guide:
        guide["layers"] = guided_layers(config.guide, workdir)
    return guide


def claim_folder(job: Job, settings: Settings) -> None:
    """Write the stage's settings into its folder; refuse one that holds a run with others.

    With config.<stage>.accept_changed_data other samples are no reason to refuse: the stage goes
    on with them, and the new settings are written.
    """
    path = job.workdir / job.name / "settings.json"
    found = shared_files.read_json(path, missing_ok=True)
    if found is not None:
        changed = changed_keys(found, settings)
        data = [key for key in changed if is_data(key, job.name)]
        if not (data == changed and job.config[job.name].accept_changed_data):
            refuse_others(path.parent, found, settings)
        if data:
            job.say(f"goes on with other data than before: {', '.join(data)} changed")
    if found != settings:
        shared_files.write_json(path, settings)


def check_finished(
    job: Job, style: PromptStyle, content: Content, *, done: Weights, start: Weights
) -> None:
    """Refuse settings that are not those which the finished stage was trained with.

    No samples are read: where their number gives the steps, the steps that were done are taken.
    Texts that later jobs of the same command write may differ: they were not there before.
    """
    folder, steps = job.workdir / job.name, job.config[job.name].steps
    found = shared_files.read_json(folder / "settings.json", missing_ok=True)
    if found is None:
        return
    settings = stage_settings(
        job,
        style,
        content,
        used=found["data"].get("used"),
        steps=steps if steps >= 0 else found[job.name]["steps"],
        start=start,
    )
    accepted = job.config[job.name].accept_changed_data
    if accepted:
        settings["data"] = found["data"]
    for texts, writer in WRITERS.items():
        if writer in job.following:  # a command that is run again finds what it wrote after this
            settings["data"]["content"][texts] = found["data"]["content"].get(texts)
    refuse_others(folder, found, settings, finished=True)


def changed_keys(found: Settings, settings: Settings) -> list[str]:
    """The dotted keys whose values differ, in the order of the alphabet."""
    old, new = flat(found), flat(settings)
    return sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))


def is_data(key: str, stage: str) -> bool:
    """Whether a key of the settings says which samples there are, or how long they may be."""
    return key.startswith(DATA_KEYS) or key in (f"{stage}.steps", f"{stage}.max_length")


def refuse_others(
    folder: Path, found: Settings, settings: Settings, *, finished: bool = False
) -> None:
    """Refuse a stage's folder that was begun with `found` where `settings` are others.

    Args:
        folder: the stage's.
        found: what it was begun with.
        settings: what it would go on with.
        finished: whether the stage is, so that it cannot go on with other data.
    """
    changed = changed_keys(found, settings)
    if not changed:
        return
    key, stage, other = changed[0], folder.name, "use another --workdir, or delete that folder"
    if any(one.startswith(("data.content", "data.used")) for one in changed):
        accept = f"--config.{stage}.accept_changed_data=true"
        ways = (
            f"the stage is finished and does not train on them: {other}, or keep it as it is with "
            if finished
            else f"{other}, or go on deliberately with "
        )
        raise UserError(
            f"{folder} was begun with other data: {changed_data(changed)}; {ways}{accept}"
        )
    if key == "start":
        # A changed key of config.model is named before this one, as it comes first in the
        # alphabet; so the keys are the same, and it is the files that changed.
        raise UserError(
            f"{folder} was begun from other weights than config.model's files, or the "
            f"stage before, now hold: {other}"
        )
    old, new = flat(found), flat(settings)
    advised = is_data(key, stage) and not finished
    accept = f"; or set --config.{stage}.accept_changed_data=true" * advised
    raise UserError(
        f"{folder} was begun with config.{key}={old.get(key)!r}, now it is "
        f"{new.get(key)!r}: {other}{accept}"
    )


def changed_data(changed: Sequence[str]) -> str:
    """Which of the files that the samples come from have changed, in words."""
    names = {
        "data.content.records": "the samples (config.data.path)",
        "data.content.captions": "the captions (config.data.captions)",
        "data.content.retrieved": "the retrieved texts (config.data.retrieved)",
        "data.used": "which of the samples are usable (see samples.json)",
    }
    found = [words for key, words in names.items() if any(c.startswith(key) for c in changed)]
    return " and ".join(found) + " changed"
