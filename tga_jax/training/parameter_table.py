"""The table of a stage's parameters that is printed before its first step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import jax
from clu import parameter_overview

from tga_jax.models.quantised import parameter_count
from tga_jax.training.step import TrainState


@dataclasses.dataclass(frozen=True)
class _Line:
    """A line of the table; the fields are its columns."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    sharding: str
    state: str  # "trained" or "frozen"


def parameter_table(state: TrainState) -> str:
    """A line for each parameter: name, shape, dtype, size, sharding, trained or frozen; totals.

    Args:
        state: arrays, or `jax.ShapeDtypeStruct`s with shardings.
    """
    lines = [
        _Line(path, x.shape, str(x.dtype), parameter_count(path, x), _axes(x.sharding), kind)
        for kind, params in (("trained", state.trained), ("frozen", state.frozen))
        for path, x in params.items()
    ]
    table = parameter_overview.make_table(sorted(lines, key=lambda line: line.name))
    totals = (
        f"{name}: {_total(params)}"
        for name, params in (
            ("Total", state.flat_params),
            ("trained", state.trained),
            ("frozen", state.frozen),
        )
    )
    return "\n".join((table, "; ".join(totals)))


def _axes(sharding: jax.sharding.Sharding) -> str:
    """The mesh axes of each side, such as "-, fsdp, tensor"; "whole" where nothing is sharded."""
    spec = tuple(getattr(sharding, "spec", ()))
    names = ["+".join((side,) if isinstance(side, str) else side or ("-",)) for side in spec]
    return ", ".join(names) if set(names) - {"-"} else "whole"


def _total(params: Mapping[str, jax.Array]) -> str:
    count = sum(parameter_count(path, x) for path, x in params.items())
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in params.values())
    return f"{count:,} parameters, {size:,} bytes"
