"""How far the strict rules can be trusted, for whoever quotes a figure that they gave."""

from __future__ import annotations

from tga_jax.evaluation.metrics import wilson
from tga_jax.evaluation.strict_measured import MEASURED
from tga_jax.figure import Figure


def strict_accuracy(name: str = "measure") -> dict[str, Figure]:
    """Recall and precision of the strict rules on a labelled list, with 95% intervals.

    Recall is the share of the refusals that the rules find, precision the share of what they call
    a refusal that is one.

    Args:
        name: "measure": the list that was kept away from the writing of the rules; "build": the
            one that they were written with; "outside": an older one.
    """
    counts = MEASURED[name]
    found, called = counts["found"], counts["found"] + counts["false_alarms"]
    wholes = {"recall": counts["refusals"], "precision": called}
    return {
        metric: Figure(found / whole if whole else 0.0, *wilson(found, whole), whole)
        for metric, whole in wholes.items()
    }
