"""Memory that a traced program needs at once, without compiling it: an estimate.

A value lives from where it is computed to its last use. An elementwise result that is used once
is taken as fused with its user and takes no room. What a compiler reorders or keeps longer is not
known here, nor its padding.
"""

from __future__ import annotations

import math
from typing import Any

from jax.extend.core import jaxprs_in_params

FUSED = frozenset(
    "add sub mul div max min neg exp log tanh logistic rsqrt sqrt integer_pow pow square select_n "
    "convert_element_type broadcast_in_dim reshape eq lt gt le ge ne and or not stop_gradient "
    "squeeze transpose copy sign abs erf iota sharding_constraint".split()
)


def peak_bytes(jaxpr: Any) -> int:
    """The most bytes that a closed jaxpr's values take at once, its arguments donated."""
    return _peak(jaxpr.jaxpr, {var: _size(var) for var in jaxpr.jaxpr.invars})


def _peak(jaxpr: Any, live: dict[Any, int], given: frozenset[Any] = frozenset()) -> int:
    """`live`: what is held at the start and may be freed here; `given`: room the caller made."""
    uses = _uses(jaxpr)
    total = peak = sum(live.values())
    left = dict(uses)
    for eqn in jaxpr.eqns:
        new = [v for v in eqn.outvars if v not in given and not _is_fused(eqn, v, uses)]
        made = {v: _size(v) for v in new}
        total += sum(made.values())
        inner = (_inner_peak(eqn, jaxpr) for jaxpr in jaxprs_in_params(eqn.params))
        peak = max(peak, total + max(inner, default=0))
        live |= made
        for var in eqn.invars:
            if not hasattr(var, "val") and var in left:  # a literal has a value
                left[var] -= 1
                if left[var] == 0:
                    total -= live.pop(var, 0)
        for var in eqn.outvars:
            if uses.get(var, 0) == 0:
                total -= live.pop(var, 0)
    return peak


def _inner_peak(eqn: Any, jaxpr: Any) -> int:
    """Of a program in an equation, beside the equation's arguments and results."""
    loop = eqn.primitive.name in ("scan", "while")  # a turn's results are not the loop's
    given = [] if loop else [v for v in jaxpr.outvars if not hasattr(v, "val")]
    return _peak(jaxpr, {}, frozenset(given))


def _uses(jaxpr: Any) -> dict[Any, int]:
    """How often each value is read; a result of the program once more, so that it stays."""
    count: dict[Any, int] = {}
    for var in [v for eqn in jaxpr.eqns for v in eqn.invars] + list(jaxpr.outvars):
        if not hasattr(var, "val"):
            count[var] = count.get(var, 0) + 1
    return count


def _is_fused(eqn: Any, var: Any, uses: dict[Any, int]) -> bool:
    return eqn.primitive.name in FUSED and uses.get(var, 0) == 1


def _size(var: Any) -> int:
    aval = var.aval
    dtype = getattr(aval, "dtype", None)
    return 0 if dtype is None else math.prod(aval.shape) * getattr(dtype, "itemsize", 8)
