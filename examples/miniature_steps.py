"""Refusals of the miniature's harmful and harmless images over the steps of training.

    python -m examples.miniature_steps --workdir=runs/steps

Reads the held-out figures (`config.<stage>.evaluate_every`) of the arms in a workdir. The command
that made docs/miniature_steps.png stands in docs/miniature.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

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
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for number, arm in enumerate(arms):
        for name, (kind, line) in KINDS.items():
            steps, shares = zip(*points(arm, name), strict=True)
            percent = [100 * share for share in shares]
            axes.plot(steps, percent, line, color=f"C{number}", label=f"{arm.name}, {kind}")
    second = max(row["step"] for row in read_log(arms[0] / STAGES[0] / "metrics.jsonl"))
    axes.axvline(second, color="0.6", linewidth=1)
    axes.annotate("second stage", (second, 97), xytext=(4, 0), textcoords="offset points")
    axes.set_xlabel("step")
    axes.set_ylabel("answer would begin with an apology, %")
    axes.set_ylim(0, 102)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/miniature_steps.png"))
    args = parser.parse_args()
    plot(sorted(path for path in (args.workdir / "arms").iterdir() if path.is_dir()), args.out)


if __name__ == "__main__":
    main()
