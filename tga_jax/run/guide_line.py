"""The guide of a stage in words: its terms, and how many samples have each of them."""

from __future__ import annotations

from collections.abc import Mapping

from tga_jax.alignment.guide import GuideConfig
from tga_jax.alignment.layers import layers_text


def guide_line(
    guide: GuideConfig, counts: Mapping[str, int], samples: int, *, batch_size: int, asks: bool
) -> str:
    """The guide of a stage as a line of the log: form, terms, weights, layers, samples, centring.

    Args:
        guide: of the stage.
        counts: `run.guide.term_counts` of its samples.
        samples: how many there are.
        batch_size: samples a step.
        asks: whether the stage's template has a question.
    """
    if not guide.active:
        return "guide: none"
    weights = {
        "pair": (guide.pair_weight, guide.layers),
        "hinge": (guide.hinge_weight, guide.layers),
        "answer": (guide.answer_weight, guide.answer_layers),
    }
    terms = []
    for name, (weight, layers) in weights.items():
        reason = ": the template has no question" if name != "pair" and not asks else ""
        if weight:
            place = f"on layers {layers_text(layers)}"
            terms.append(f"{name} {weight:g} {place} ({counts[name]} of {samples} samples{reason})")
    line = f"guide: form {guide.form}; {', '.join(terms) or 'no term has a weight'}"
    return f"{line}; centred: {guide.center}{_lone_sample(guide, batch_size)}"


def _lone_sample(guide: GuideConfig, batch_size: int) -> str:
    """What is to be said of steps of one sample, which is then the mean that it is centred by."""
    if batch_size > 1 or not guide.centers_by_step:
        return ""
    return (
        "; WARNING: a step of one sample has no mean but the sample itself, so it is not guided; "
        "set config.guide.center='none' or a larger batch_size"
    )
