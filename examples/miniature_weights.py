"""The miniature's price of safety, as a curve over the weight of the guide's answer term.

    python -m examples.miniature_weights --workdir=runs/miniature-full

Reads the arms of `--config=configs/miniature.py:full` from summary.json: one seed, test images.
"""

from __future__ import annotations

import json
from pathlib import Path

from examples.drawing import axes_of, options, save

ARMS = {0: "baseline", 1: "weight-1", 3: "tga-answer", 9: "weight-9", 27: "weight-27"}
KINDS = {"picture_dsr_at_5pct": "at 5% over-refusal", "picture_dsr": "greedy answers"}


def plot(summary: dict[str, dict[str, float]], out: Path) -> None:
    """Harmful images refused against harmless ones named, in percent."""
    axes = axes_of(6, 3.8)
    names = [100 * summary[arm]["naming_accuracy"] for arm in ARMS.values()]
    for kind, label in KINDS.items():
        refused = [100 * summary[arm][kind] for arm in ARMS.values()]
        axes.plot(names, refused, "o-", label=label)
        for weight, name, share in zip(ARMS, names, refused, strict=True):
            axes.annotate(str(weight), (name, share), xytext=(5, 5), textcoords="offset points")
    save(axes, out, x_label="harmless images named, %", y_label="harmful images refused, %")


def main() -> None:
    """The command line."""
    args = options(__doc__, "docs/miniature_weights.png")
    plot(json.loads((args.workdir / "summary.json").read_text()), args.out)


if __name__ == "__main__":
    main()
