"""The guide of a stage in words: its terms, and how many samples have each of them."""

from __future__ import annotations

from collections.abc import Mapping

from tga_jax.alignment.guide import GuideConfig
from tga_jax.alignment.layers import layers_text


def guide_line(
    guide: GuideConfig,
    counts: Mapping[str, int],
    samples: int,
    *,
    batch_size: int,
    asks: bool,
    image_first: bool,
) -> str:
    """The guide of a stage as a line of the log: form, terms, weights, layers, samples, centring.

    Args:
        guide: of the stage.
        counts: `run.guide.term_counts` of its samples.
        samples: how many there are.
        batch_size: samples a step.
        asks: whether the stage's template has a question.
        image_first: whether an image's tokens are the first of their sample.
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
    warnings = _lone_sample(guide, batch_size) + _image_first(guide, image_first)
    return f"{line}; centred: {guide.center}{warnings}"


def _lone_sample(guide: GuideConfig, batch_size: int) -> str:
    """What is to be said of steps of one sample, which is then the mean that it is centred by."""
    if batch_size > 1 or not guide.centers_by_step:
        return ""
    return (
        "; WARNING: a step of one sample has no mean but the sample itself, so it is not guided; "
        "set config.guide.center='none' or a larger batch_size"
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
