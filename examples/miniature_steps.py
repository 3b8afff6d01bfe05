"""Refusals of the miniature's harmful and harmless images over the steps of training.

    python -m examples.miniature_steps --workdir=runs/steps

Reads the held-out figures (`config.<stage>.evaluate_every`) of the arms in a workdir. The command
that made docs/miniature_steps.png stands in docs/miniature.md.
"""

from __future__ import annotations

from pathlib import Path

from examples.drawing import axes_of, options, save
from tga_jax.config import STAGES
from tga_jax.files import read_log

KINDS = {"probe_refused_harmful": ("harmful", "-"), "probe_refused_harmless": ("harmless", ":")}


def points(arm: Path, figure: str) -> list[tuple[int, float]]:
    """The figure by step, those of the second stage behind those of the first."""
    found: list[tuple[int, float]] = []
    for stage in STAGES:
        rows = [row for row in read_log(arm / stage / "metrics.jsonl") if figure in row]
        before = found[-1][0] if found else 0
        found += [(before + row["step"], row[figure]) for row in rows if row["step"] or not before]
    return found


def plot(arms: list[Path], out: Path) -> None:
    """A line for each arm and kind of image, in percent."""
    axes = axes_of(7, 4)
    for number, arm in enumerate(arms):
        for name, (kind, line) in KINDS.items():
            steps, shares = zip(*points(arm, name), strict=True)
            percent = [100 * share for share in shares]
            axes.plot(steps, percent, line, color=f"C{number}", label=f"{arm.name}, {kind}")
    second = max(row["step"] for row in read_log(arms[0] / STAGES[0] / "metrics.jsonl"))
    axes.axvline(second, color="0.6", linewidth=1)
    axes.annotate("second stage", (second, 97), xytext=(4, 0), textcoords="offset points")
    axes.set_ylim(0, 102)
    label = "answer would begin with an apology, %"
    save(axes, out, x_label="step", y_label=label, fontsize=8)


def main() -> None:
    """The command line."""
    args = options(__doc__, "docs/miniature_steps.png")
    plot(sorted(path for path in (args.workdir / "arms").iterdir() if path.is_dir()), args.out)


if __name__ == "__main__":
    main()
