"""A phase of job `miniature`: done once for its settings, or taken from the shipped models."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tga_jax.files import digest, read_json, write_json
from tga_jax.miniature import base_models
from tga_jax.miniature.sources import source_digest
from tga_jax.run.job import Job

Figures = dict[str, Any]


# Beginnings of the names of the world's sizes that no base model is trained with.
FOR_ALIGNMENT = (
    "pretrain", "finetune", "corpus", "eval", "captions_name", "caption_form", "retrieved",
    "harmful_pretrain", "harmful_finetune", "harmful_looks", "harmful_corpus",
)  # fmt: skip


def phase_settings(config: ConfigDict, world: Figures) -> dict[str, Figures]:
    """All that decides what the base models become; `world` is as `world.json` has its settings."""
    settings = config.miniature
    sizes = {k: v for k, v in world["sizes"].items() if not k.startswith(FOR_ALIGNMENT)}
    about = {"seed": config.seed, "world": sizes, "dtype": settings.dtype}
    about["source"] = source_digest(base_models.SOURCES)
    prompt = {key: config.prompt[key] for key in ("template", "system", "retrieved")}
    found = {
        "clip": about | {"clip": settings.clip.to_dict()},
        "llm": about | {"llm": settings.llm.to_dict(), "prompt": prompt},
    }
    return json.loads(json.dumps(found))  # tuples -> lists, as they are read back


def timed(make: Callable[[], Figures]) -> Figures:
    """What `make` returns as "figures", and the seconds that it took."""
    began = time.monotonic()
    figures = make()
    return {"figures": figures, "seconds": round(time.monotonic() - began, 1)}


def phase(job: Job, name: str, settings: Figures, make: Callable[[Path], Figures]) -> Figures:
    """Does a phase, unless it was done before with the same settings.

    Args:
        job: the run.
        name: of the phase; `<name>/` is the folder that it writes.
        settings: all that decides what it makes.
        make: does it, given a folder for its checkpoints that no other settings have used.

    Returns:
        {"settings", "figures", "seconds"}, as `training/<name>.json` keeps it; with "shipped" where
        the model was taken ready-made, so that the seconds were spent elsewhere.
    """
    path = job.workdir / "training" / f"{name}.json"
    if path.exists() and (job.workdir / name).is_dir():
        found: Figures = read_json(path)
        if found["settings"] == settings:
            job.say(f"{name}: finished before")
            return found
    path.unlink(missing_ok=True)
    shipped = take_shipped(job, name, settings)
    if shipped is not None:
        write_json(path, shipped)
        return shipped
    done = timed(lambda: make(path.with_name(f"{name}-{digest(settings)}")))
    write_json(path, {"settings": settings} | done)
    return done


def take_shipped(job: Job, name: str, settings: Figures) -> Figures | None:
    """Copies a phase's folder from config.miniature.shipped, if it was made by these settings."""
    folder = Path(job.config.miniature.shipped)
    about = folder / f"{name}.json"
    if not job.config.miniature.shipped or not about.exists():
        return None
    found: Figures = read_json(about)
    if found["settings"] != settings:
        job.say(f"{name}: {about} was made by other settings, so it is trained anew")
        return None
    job.say(f"{name}: taken from {folder / name}, which took {found['seconds']:.0f} s to train")
    shutil.copytree(folder / name, job.workdir / name, dirs_exist_ok=True)
    return found | {"shipped": True}
