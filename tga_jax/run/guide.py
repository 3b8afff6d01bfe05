"""The guide of a stage: `config.guide`, checked, with the layers that "auto" stands for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from tga_jax.alignment.guide import CENTERS, FORMS, GuideConfig
from tga_jax.alignment.layers import parse_layers
from tga_jax.data.lazy_records import has_flags
from tga_jax.data.records import Record
from tga_jax.errors import UserError, refuse_below
from tga_jax.files import read_json


def guide_config(config: ConfigDict, workdir: Path, layers: int, stage: str = "") -> GuideConfig:
    """The guide of a stage, or of no stage in particular; form "none" where it is turned off.

    Args:
        config: the whole configuration.
        workdir: where job `analyze` may have left the safety layers.
        layers: how many the decoder has.
        stage: "pretrain" or "finetune", whose `guide` key may turn the guide off.

    Raises:
        UserError: a key of config.guide has no such value, or "auto" has nothing to stand for.
    """
    guide = config.guide
    for key, allowed in (("form", FORMS), ("center", CENTERS)):
        if guide[key] not in allowed:
            raise UserError(
                f"config.guide.{key}={guide[key]!r} must be one of {', '.join(allowed)}"
            )
    for key in ("pair_weight", "hinge_weight", "answer_weight"):
        refuse_below(f"guide.{key}", guide[key], 0)
    if not 0 <= guide.center_decay < 1:
        raise UserError(f"config.guide.center_decay={guide.center_decay} must lie in 0..1, below 1")
    if stage and not config[stage].guide:
        # Its decoder need not have the layers that another stage guides.
        return GuideConfig(form="none", layers=parse_layers("all", layers))
    guided = guided_layers(guide, workdir, needed=guide.form != "none")
    own = bool(guide.answer_layers and guide.answer_weight)
    answers, key = (guide.answer_layers, "answer_layers") if own else (guided, "layers")
    return GuideConfig(
        form=guide.form,
        layers=parse_layers(guided, layers),
        center=guide.center,
        pair_weight=guide.pair_weight,
        hinge_weight=guide.hinge_weight,
        answer_weight=guide.answer_weight,
        answer_layers=parse_layers(answers, layers, key=f"config.guide.{key}", words="'all'"),
        center_decay=guide.center_decay,
        detach_caption=guide.detach_caption,
    )


def term_counts(
    guide: GuideConfig, records: Sequence[Record], *, asks: bool, retrieved: bool
) -> dict[str, int]:
    """How many samples have each term of the guide; 0 for a term whose weight is 0.

    Args:
        guide: of the stage.
        records: its samples.
        asks: whether its template has a question, as all but "plain" have: without one there is
            neither a place for a retrieved text nor a state from which an answer is read.
        retrieved: whether prompts hold retrieved texts (config.prompt.retrieved).
    """
    if not guide.active:
        return {"pair": 0, "hinge": 0, "answer": 0}
    image, caption, has_retrieved, tox, one_first = has_flags(records).T
    guided = image & caption & ~tox
    return {
        "pair": int(guided.sum()) * (guide.pair_weight != 0),
        "hinge": int((guided & has_retrieved).sum())
        * (guide.hinge_weight != 0 and asks and retrieved),
        "answer": int((guided & one_first).sum()) * (guide.answer_weight != 0 and asks),
    }


def guided_layers(guide: ConfigDict, workdir: Path, *, needed: bool = True) -> str:
    """config.guide.layers, with "auto" replaced by layers like "4-6"; "all" where not `needed`.

    Raises:
        UserError: there is no analysis, or it found no safety layers.
    """
    if guide.layers.strip() != "auto":
        return str(guide.layers)
    if not needed:
        return "all"
    place = Path(guide.layers_from) if guide.layers_from else workdir / "analyze"
    path = summary_path(place)
    if path is None:
        raise UserError(
            f"config.guide.layers='auto' needs the result of job `analyze`, but there is no "
            f"summary.json in {place}; run --job=analyze first or set config.guide.layers_from"
        )
    found = read_json(path)
    if not isinstance(found, dict) or "safety_layers" not in found:
        raise UserError(f"{path}: not a summary of job `analyze`, it has no safety_layers")
    layers, reason = found["safety_layers"], found.get("reason")
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
