"""Which decoder layers are guided: the meaning of `config.guide.layers`."""

from __future__ import annotations

from collections.abc import Sequence

from tga_jax.errors import UserError


def parse_layers(
    text: str, num_layers: int, *, key: str = "config.guide.layers", words: str = "'all', 'auto'"
) -> tuple[int, ...]:
    """Layers named by "all", or 1-based like "10-18" or "3,5,7-9", as sorted 0-based indices.

    `key` and `words` are what an error names: where the text stands, and what else is allowed.

    Raises:
        UserError: the text is not of that form, or a layer is not in 1..num_layers.
    """
    if text.strip() == "all":
        return tuple(range(num_layers))
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UserError(
                f"{key}={text!r}: write {words} or layers counted from 1, like '10-18' or '3,5,7'"
            )
        span = range(int(first), int(last if dash else first) + 1)
        if not span or span[0] < 1 or span[-1] > num_layers:
            raise UserError(
                f"{key}={text!r}: layers must lie in 1..{num_layers}, the layers of this "
                "model's decoder"
            )
        chosen.update(layer - 1 for layer in span)
    return tuple(sorted(chosen))


def layers_text(layers: Sequence[int]) -> str:
    """Sorted 0-based indices as the text that `parse_layers` reads: (2, 3, 4, 7) -> "3-5,8"."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    ends = (f"{run[0] + 1}" if len(run) == 1 else f"{run[0] + 1}-{run[-1] + 1}" for run in runs)
    return ",".join(ends)
