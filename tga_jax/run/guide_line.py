"""The guide of a stage in words: its terms, and how many samples have each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tga_jax.alignment.guide import GuideConfig
from tga_jax.alignment.layers import layers_text
from tga_jax.data.lazy_records import has_flags
from tga_jax.data.records import Record

NO_QUESTION = "the template has no question"
OFTEN = 0.2  # this share of the captioned samples alone in their step is worth a warning


def guide_line(
    guide: GuideConfig,
    counts: Mapping[str, int],
    samples: int,
    *,
    images: int,
    batch_size: int,
    asks: bool,
    image_first: bool,
) -> str:
    """The guide of a stage as a line of the log: form, terms, weights, layers, samples, centring.

    Args:
        guide: of the stage.
        counts: `run.guide.term_counts` of its samples.
        samples: how many there are.
        images: how many of them have an image; only these share a step with a captioned one.
        batch_size: samples a step.
        asks: whether the stage's template has a question.
        image_first: whether an image's tokens are the first of their sample.
    """
    if not guide.active:
        return "guide: none"
    terms = []
    for name, weight in _weights(guide).items():
        reason = f": {NO_QUESTION}" if name != "pair" and not asks else ""
        layers = guide.answer_layers if name == "answer" else guide.layers
        place = f"on layers {layers_text(layers)}"
        terms.append(f"{name} {weight:g} {place} ({counts[name]} of {samples} samples{reason})")
    line = f"guide: form {guide.form}; {', '.join(terms) or 'no term has a weight'}"
    alone = _lone_samples(guide, max(counts.values()) / max(images, 1), batch_size)
    return f"{line}; centred: {guide.center}{alone}{_image_first(guide, image_first)}"


def guide_warnings(
    guide: GuideConfig,
    records: Sequence[Record],
    counts: Mapping[str, int],
    *,
    asks: bool,
    retrieved: bool,
) -> list[str]:
    """What is to be said of a guide that is on and has no effect, or of a term that has none.

    A stage whose template has no question is as the recipe `tga_answer` wants it, so no warning.

    Args:
        guide: of the stage.
        records: its samples.
        counts: `run.guide.term_counts` of them.
        asks: whether the stage's template has a question.
        retrieved: whether prompts hold retrieved texts (config.prompt.retrieved).
    """
    if not guide.active:
        return []
    weights = _weights(guide)
    reasons = {
        name: _why_none(name, records, asks=asks, retrieved=retrieved)
        for name in weights
        if not counts[name]
    }
    if weights.keys() == reasons.keys():
        return [_no_effect(guide, list(reasons.values()))]
    return [
        f"WARNING: the guide's term {name!r} has weight {weights[name]:g} and no effect, since "
        f"{reason}"
        for name, reason in reasons.items()
        if reason != NO_QUESTION  # which the guide's line says
    ]


def _weights(guide: GuideConfig) -> dict[str, float]:
    """Term -> weight, of the terms that have one."""
    weights = {
        "pair": guide.pair_weight,
        "hinge": guide.hinge_weight,
        "answer": guide.answer_weight,
    }
    return {name: weight for name, weight in weights.items() if weight}


def _no_effect(guide: GuideConfig, reasons: Sequence[str]) -> str:
    """What is to be said where no term with a weight has a sample, for these reasons."""
    others = [reason for reason in reasons if reason != NO_QUESTION]
    if reasons and not others:
        return (
            "the guide has no effect in this stage: its terms need a question in the prompt, and "
            "the stage's template has none, so it trains on the language-modelling loss alone"
        )
    no_weight = "all of its weights are 0 (config.guide.pair_weight and its like)"
    return (
        f"WARNING: the guide is on (config.guide.form={guide.form}) and has no effect, since "
        f"{others[0] if others else no_weight}: this stage trains on the language-modelling loss "
        "alone"
    )


def _why_none(term: str, records: Sequence[Record], *, asks: bool, retrieved: bool) -> str:
    """Why no sample has a term."""
    if term != "pair" and not asks:
        return NO_QUESTION
    image, caption, _, tox, _ = has_flags(records).T
    if not image.any():
        return "no sample has an image"
    if not (image & caption).any():
        return (
            "no sample with an image has a caption (the key image_caption of a sample, or "
            "config.data.captions; see samples.json)"
        )
    if not (image & caption & ~tox).any():
        return "all captioned images belong to text safety samples (the key tox of a sample)"
    if term == "hinge" and not retrieved:
        return "prompts have no retrieved texts (config.prompt.retrieved)"
    if term == "hinge":
        return (
            "no captioned image has a retrieved text (the key retrieved_caption of a sample, or "
            "config.data.retrieved; see samples.json)"
        )
    return (
        "no sample with a caption has exactly one image in its first turn (or there a later turn "
        "has the first answer)"
    )


def _lone_samples(guide: GuideConfig, captioned: float, batch_size: int) -> str:
    """What is to be said of captioned samples alone in their step, whose mean they then are.

    Args:
        guide: of the stage.
        captioned: which share of the samples with an image has a term.
        batch_size: samples a step.
    """
    alone = (1 - captioned) ** (batch_size - 1)  # that none of the others is captioned
    if not (guide.centers_by_step and captioned and alone >= OFTEN):
        return ""
    return (
        f"; WARNING: about {alone:.0%} of the captioned samples will be the only one of their "
        "step, which has no mean but that sample itself, so they are not guided; set "
        "config.guide.center='none' or a larger batch_size"
    )


def _image_first(guide: GuideConfig, image_first: bool) -> str:
    """What is to be said of means that have the state of a sequence's first token in them.

    Language models use that token as an attention sink (Xiao et al., arXiv 2309.17453), whatever
    it is. In SmolLM2-135M its state is 20 to 190 times as long as the others on layers 12 to 29.
    """
    if not (image_first and guide.pair_weight):
        return ""
    return (
        "; WARNING: the image is the first thing in a sample, since this tokenizer puts no token "
        "before it, and the state of a sequence's first token may be far longer than the others "
        "whatever it shows (an attention sink), so that the pair term compares little else; turn "
        "the guide off in this stage (its key `guide`)"
    )
