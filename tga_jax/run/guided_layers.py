"""config.guide.layers="auto": the safety layers that job `analyze` found."""

from __future__ import annotations

import json
from pathlib import Path

from tga_jax.errors import UserError
from tga_jax.run.context import Context


def guided_layers(context: Context, *, needed: bool = True) -> str:
    """config.guide.layers, with "auto" replaced by layers like "4-6"; "all" where not `needed`.

    Raises:
        UserError: there is no analysis, or it found no safety layers.
    """
    guide = context.config.guide
    if guide.layers.strip() != "auto":
        return str(guide.layers)
    if not needed:
        return "all"
    place = Path(guide.layers_from) if guide.layers_from else context.workdir / "analyze"
    path = summary_path(place)
    if path is None:
        raise UserError(
            f"config.guide.layers='auto' needs the result of job `analyze`, but there is no "
            f"summary.json in {place}; run --job=analyze first or set config.guide.layers_from"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        layers, reason = found["safety_layers"], found.get("reason")
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{path}: not a summary of job `analyze`: {error!r}") from error
    if not isinstance(layers, str):
        raise UserError(f"config.guide.layers='auto': {path}: {reason or 'no safety layers'}")
    return layers


def summary_path(place: Path) -> Path | None:
    """The summary at a file or a folder; in a folder that of the weights before any training.

    The safety layers are the starting model's; those that a trained model has must not change
    what a run that is started again trains.
    """
    choices = (place / "start" / "summary.json", place / "summary.json")
    for path in choices if place.is_dir() else (place,):
        if path.is_file():
            return path
    return None
