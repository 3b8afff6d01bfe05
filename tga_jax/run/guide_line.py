"""The guide of a stage in words: its terms, and how many samples have each of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from tga_jax.alignment.guide import GuideConfig
from tga_jax.alignment.layers import layers_text
from tga_jax.data.lazy_records import has_flags
from tga_jax.data.records import Record


def term_counts(records: Sequence[Record], *, asks: bool, retrieved: bool) -> dict[str, int]:
    """How many samples have each term of the guide: "pair", "hinge" and "answer".

    Args:
        records: of the stage.
        asks: whether its template has a question, as all but "plain" have: without one there is
            neither a place for a retrieved text nor a state from which an answer is read.
        retrieved: config.prompt.retrieved.
    """
    picture, caption, text, tox = np.asarray(has_flags(records)).T
    pair = picture & caption & ~tox
    return {
        "pair": int(pair.sum()),
        "hinge": int((pair & text).sum()) if asks and retrieved else 0,
        "answer": int(pair.sum()) if asks else 0,
    }


def guide_line(
    guide: GuideConfig, counts: Mapping[str, int], samples: int, *, batch_size: int
) -> str:
    """The guide of a stage as a line of the log: form, terms, weights, layers, centring, samples.

    It ends with a warning where a term has a weight and no sample can have it.

    Args:
        guide: of the stage.
        counts: `term_counts` of its samples.
        samples: how many there are.
        batch_size: samples a step.
    """
    if not guide.active:
        return "guide: none"
    weights = {
        "pair": (guide.pair_weight, guide.layers),
        "hinge": (guide.hinge_weight, guide.layers),
        "answer": (guide.answer_weight, guide.answer_layers),
    }
    used = {name: at for name, at in weights.items() if at[0]}
    terms = [
        f"{name} {weight:g} on layers {layers_text(layers)} ({counts[name]} of {samples} samples)"
        for name, (weight, layers) in used.items()
    ]
    line = f"guide: form {guide.form}; {', '.join(terms) or 'no term has a weight'}"
    line += f"; centred: {guide.center}"
    return f"{line}{_problem(guide, counts, used, batch_size)}"


def _problem(
    guide: GuideConfig, counts: Mapping[str, int], used: Collection[str], batch_size: int
) -> str:
    """Why nothing is guided though a term has a weight, or "" where something is."""
    if not used:
        return ""
    if not any(counts[name] for name in used):
        return "; warning: no sample has a term, so nothing is guided"
    if guide.center != "none" and batch_size < 2 and (guide.center == "batch" or "answer" in used):
        return (
            "; warning: a step of one sample has no mean but the sample itself, so it is not "
            "guided; set config.guide.center='none' or a larger batch_size"
        )
    return ""
