"""How far the arms' images look to the language model like their captions, layer by layer.

    python -m examples.real_llm.layers --workdir=runs/real

Reads analyze/layers.csv of the arms of `--config=smollm2`, and draws docs/real_llm.png: on the left
how far apart harmful and harmless images lie along the refusal direction (the captions, in the
image's place, lie 1 apart), on the right the centred cosine of image and caption.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from examples.drawing import axes_of, options, save
from tga_jax.analysis.layer_values import LayerValue, layer_band, over_layers, read_layers

ARMS = ("baseline", "tga", "tga-centred", "tga-centred-bare-captioned", "tga-answer")
DIRECTION, COSINE = "refusal_direction", "image_caption_cos_centred"
# In the first layers the two kinds of captions are hardly apart, so a distance in units of theirs
# has no meaning there.
FIRST = 12


def gap(values: list[LayerValue]) -> list[tuple[float, float]]:
    """(layer, harmful images' projection on the refusal direction less the harmless ones')."""
    kinds = (over_layers(values, f"{kind}_images", DIRECTION) for kind in ("harmful", "benign"))
    pairs = zip(*kinds, strict=True)
    return [(layer, harmful - benign) for (layer, harmful), (_, benign) in pairs if layer >= FIRST]


def plot(workdir: Path, out: Path) -> None:
    """A line for each arm that has been analyzed."""
    left, right = axes_of(10, 4, panels=2)
    for number, arm in enumerate(ARMS):
        values = read_layers(workdir / "arms" / arm / "analyze" / "layers.csv")
        if not values:
            continue
        left.plot(*zip(*gap(values), strict=True), color=f"C{number}", label=arm)
        line = over_layers(values, "harmful_images", COSINE)
        right.plot(*zip(*line, strict=True), color=f"C{number}", label=arm)
        _shade(right, layer_band(values, "harmful_images", COSINE), f"C{number}")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.axhline(1, color="0.5", linestyle=":", label="captions")
    left.set_title("harmful less harmless, along the refusal direction", fontsize=10)
    right.set_title("harmful images and their captions", fontsize=10)
    save(left, out, x_label="layer", y_label="in units of the captions' distance", fontsize=8)
    save(right, out, x_label="layer", y_label="centred cosine of the mean states", fontsize=8)


def _shade(axes: Any, band: tuple[tuple[float, float, float], ...], color: str) -> None:
    if band:
        axes.fill_between(*zip(*band, strict=True), color=color, alpha=0.15, linewidth=0)


def main() -> None:
    """The command line."""
    args = options(__doc__, "docs/real_llm.png")
    plot(args.workdir, args.out)


if __name__ == "__main__":
    main()
