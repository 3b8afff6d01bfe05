"""Every setting of the guide that the miniature's search tried: refusals against naming.

    python -m examples.miniature_search --workdir=runs/search

Reads the arms of `--config=configs/miniature.py:search` from summary.json: one seed, development
images.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from configs.miniature import arms
from examples.drawing import axes_of, options, save

# Colours: without a guide, with the paper's terms, with the answer term.
KINDS = {"none": "0.3", "paper": "C0", "answer": "C1"}


def kind(changes: dict[str, Any]) -> str:
    """Which terms of the guide an arm has, by the keys that it changes."""
    guide = changes.get("guide", {})
    if guide.get("form") == "none":
        return "none"
    return "paper" if guide.get("answer_weight") == 0 else "answer"


def plot(summary: dict[str, dict[str, float]], out: Path) -> None:
    """A numbered point for each arm, in percent, in the colour of its kind."""
    axes = axes_of(8, 4.2)
    tried = [(name, changes) for name, changes in arms("search").items() if name in summary]
    for number, (name, changes) in enumerate(tried, start=1):
        named = 100 * summary[name]["naming_accuracy"]
        refused = 100 * summary[name]["picture_dsr_at_5pct"]
        axes.plot(named, refused, "o", color=KINDS[kind(changes)], label=f"{number}  {name}")
        axes.annotate(str(number), (named, refused), xytext=(4, 4), textcoords="offset points")
    axes.margins(0.08)
    axes.set_ylim(bottom=0)
    save(
        axes, out, x_label="harmless images named, %",
        y_label="harmful images refused\nat 5% over-refusal, %",
        loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False,
    )  # fmt: skip


def main() -> None:
    """The command line."""
    args = options(__doc__, "docs/miniature_search.png")
    plot(json.loads((args.workdir / "summary.json").read_text()), args.out)


if __name__ == "__main__":
    main()
