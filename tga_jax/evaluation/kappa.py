"""Cohen's kappa (Educ. Psychol. Meas. 20, 1960): how far two judges agree beyond chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tga_jax.evaluation.metrics import Clusters, bootstrap, wilson
from tga_jax.figure import Figure


def cohen_kappa(first: Sequence[bool], second: Sequence[bool]) -> float:
    """(observed - chance) / (1 - chance) of the verdicts of two judges on the same answers.

    Chance is how often they would agree if each drew its verdicts by lot, as often yes as it says
    yes. NaN where both say the same of every answer: then chance alone agrees, too.
    """
    observed = float(np.mean(np.equal(first, second)))
    chance = _chance(first, second)
    return math.nan if chance == 1 else (observed - chance) / (1 - chance)


def kappa_figure(
    first: Sequence[bool], second: Sequence[bool], clusters: Clusters = None
) -> Figure | None:
    """`cohen_kappa` with a bootstrap interval; None where it is not defined.

    Whole clusters are drawn where there are any. Where all draws are alike (judges that agree on
    every answer), the interval reaches as far as Wilson's says that so many answers without a
    disagreement could hide some.
    """
    value = cohen_kappa(first, second)
    if math.isnan(value):
        return None
    together = list(range(len(first))) if clusters is None else clusters
    pairs = np.array([first, second], bool).T
    low, high = bootstrap(lambda part: cohen_kappa(*part.T), pairs, clusters=[together])
    if high <= low:
        room = wilson(0, len(set(together)))[1] / (1 - _chance(first, second))
        low, high = max(-1.0, value - room), min(1.0, value + room)
    return Figure(value, low, high, len(first))


def _chance(first: Sequence[bool], second: Sequence[bool]) -> float:
    yes, other_yes = float(np.mean(first)), float(np.mean(second))
    return yes * other_yes + (1 - yes) * (1 - other_yes)
