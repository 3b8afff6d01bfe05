"""What a language model refuses when states are matched: by free embeddings, and by a projector.

    python -m examples.matched_states --workdir=runs/projector

Reads oracle/oracle.json and the arms of `--config=miniature:projector` or `smollm2:projector`, and
draws docs/matched_states.png: for each match the shares of harmful and of harmless samples that are
refused, with their 95% intervals.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from examples.drawing import axes_of, options, save
from tga_jax.files import read_json

KINDS = {"harmful": ("dsr", "C3"), "harmless": ("over_refusal", "C0")}
OF_ORACLE = {"harmful": "harmful", "harmless": "benign"}
NAMES = {
    "caption": "the caption itself",
    "random": "random embeddings",
    "mean": "mean of the image",
    "mean-centred": "mean of the image, centred",
    "answer": "where the answer begins",
    "answer-centred": "where the answer begins, centred",
    "answer-centred-early": "where the answer begins, centred, early layers",
    "tokens": "every token",
}
# Share that is refused, and its interval, by kind of sample.
Shares = dict[str, tuple[float, list[float]]]


def of_oracle(workdir: Path) -> dict[str, Shares]:
    """Match -> what is refused with free embeddings."""
    return {
        row["match"]: {
            kind: (row[key]["refused"], row[key]["interval"]) for kind, key in OF_ORACLE.items()
        }
        for row in read_json(workdir / "oracle" / "oracle.json")["matches"]
    }


def of_projector(workdir: Path, match: str) -> Shares | None:
    """What is refused with the projector of the arm of this name; None: it was not run."""
    rows = read_json(workdir / "arms" / match / "evaluate" / "metrics.json", missing_ok=True)
    if rows is None:
        return None
    found = {
        row["metric"]: (row["value"], row["interval"]) for row in rows if row["scene"] == "all"
    }
    return {kind: found[metric] for kind, (metric, _) in KINDS.items()}


def lines(workdir: Path) -> list[tuple[str, Shares]]:
    """The lines of the drawing from the top, each with its label."""
    out, free = [], of_oracle(workdir)
    for match, name in NAMES.items():
        projector = of_projector(workdir, match)
        if match in free:
            out.append((name if projector is None else f"{name}: free embeddings", free[match]))
        if projector is not None:
            out.append((f"{name}: a projector", projector))
    return out


def plot(workdir: Path, out: Path) -> None:
    """A point with its interval for each line and kind of sample."""
    axes: Any = axes_of(8, 3.6)
    found = lines(workdir)
    for offset, (kind, (_, color)) in zip((-0.12, 0.12), KINDS.items(), strict=True):
        places = [place + offset for place in range(len(found))]
        values = [100 * shares[kind][0] for _, shares in found]
        ends = [[100 * end for end in shares[kind][1]] for _, shares in found]
        widths = [
            [value - low for value, (low, _) in zip(values, ends, strict=True)],
            [high - value for value, (_, high) in zip(values, ends, strict=True)],
        ]
        axes.errorbar(values, places, xerr=widths, fmt="o", color=color, capsize=2, label=kind)
    axes.set_yticks(range(len(found)), [label for label, _ in found])
    axes.invert_yaxis()
    axes.set_xlim(-2, 102)
    save(axes, out, x_label="refused, %", y_label="", fontsize=8, loc="lower center")


def main() -> None:
    """The command line."""
    args = options(__doc__, "docs/matched_states.png")
    plot(args.workdir, args.out)


if __name__ == "__main__":
    main()
