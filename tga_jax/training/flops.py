"""Exact FLOPs of a traced step: all matrix products and convolutions of its jaxpr.

A multiplication and an addition are two; everything else (norms, softmax, the optimizer) is not
counted, as usual. Loops count with their length, branches with the dearer one, programs under
`shard_map` and in kernels with the number of their copies. What a layer costs follows from the
program: forward 2 a parameter and token; 2 more where a gradient passes through; 2 more where
the parameter is trained.

`hardware` is what is executed. `model` leaves out what rematerialisation computes again, and
counts the decoder's causal attention at half its square (the masked half is not work that
the model needs); it is what model FLOPs utilisation is made of (arXiv 2204.02311, appendix B).
Splash attention leaves out the tiles above the diagonal, and its backward kernels compute the
scores again (seven products where the model needs four); a row's padding to whole tiles is counted
in both. cuDNN's kernels are counted from their shapes, all tiles. The blockwise attention of CPUs
counts its recomputed scores as the model's. The head counts at every position, though chunks
without a label are skipped when it runs: of a 7B model that is at most 2% too much.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

from jax.extend.core import jaxprs_in_params
from jax.interpreters import partial_eval

PARTS = {"VisionTower": "vision", "Projector": "projector", "Decoder": "decoder"}
_CUDNN_FORWARD = "dot_product_attention_fwd_wrapper"
_CUDNN_BACKWARD = "dot_product_attention_bwd_wrapper"
# Of a backward kernel's products: what is not computed a second time.
_NEEDED = {"splash_mha_dkv": 3 / 4, "splash_mha_dq": 1 / 3, _CUDNN_BACKWARD: 4 / 5}
REST = "head and loss"  # the head's product is taken outside the decoder, chunk by chunk


@dataclasses.dataclass(frozen=True)
class Flops:
    """Of one step, on all devices together; `parts`: of `model`, by part of the model."""

    hardware: float
    model: float
    parts: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Product:
    """A matrix product or convolution: FLOPs of all its repetitions, where it stands."""

    flops: float
    path: str  # names of modules and transformations, outermost first
    batch_axes: int  # of a matrix product; attention has two, products with parameters none
    tiles: int = 0  # of a kernel: along the keys


def count_flops(jaxpr: Any) -> Flops:
    """FLOPs of a closed jaxpr, as `jax.jit(f).trace(...)` has it; dead code is left out.

    Raises:
        ValueError: a product inside a `while` whose length is not known.
    """
    live, _ = partial_eval.dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars))
    hardware = 0.0
    parts: dict[str, float] = {}
    for product in products(live):
        part = next((name for key, name in PARTS.items() if key in product.path), REST)
        causal = part == "decoder" and (product.batch_axes >= 2 or product.tiles > 0)
        if causal and product.tiles:
            hardware += product.flops * (product.tiles + 1) / (2 * product.tiles)
        else:
            hardware += product.flops
        if "rematted_computation" in product.path:
            continue
        needed = next((share for key, share in _NEEDED.items() if key in product.path), 1.0)
        model = product.flops * needed * (0.5 if causal else 1.0)
        parts[part] = parts.get(part, 0.0) + model
    return Flops(hardware, sum(parts.values()), parts)


def products(
    jaxpr: Any, *, times: float = 1.0, path: str = "", tiles: int = 0
) -> Iterator[Product]:
    """All products of an (open) jaxpr and of those inside it."""
    for eqn in jaxpr.eqns:
        here = f"{path}/{eqn.source_info.name_stack}"
        count = _COUNTS.get(eqn.primitive.name)
        if count is not None:
            where = f"{here}/{eqn.primitive.name}"
            yield Product(times * count(eqn), where, _batch_axes(eqn), tiles)
        elif eqn.primitive.name == "cond":
            branches = [
                list(products(branch, times=times, path=here, tiles=tiles))
                for branch in jaxprs_in_params(eqn.params)
            ]
            yield from max(branches, key=lambda found: sum(p.flops for p in found))
        else:
            repeats, kernel = _repeats(eqn), eqn.primitive.name == "pallas_call"
            side = eqn.params["grid_mapping"].grid[-1] if kernel else tiles
            for inner in jaxprs_in_params(eqn.params):
                found = products(inner, times=times * (repeats or 1), path=here, tiles=side)
                if repeats is None and next(found, None) is not None:
                    raise ValueError(f"a product in a while loop of unknown length, at {here}")
                yield from found


def _repeats(eqn: Any) -> int | None:
    """How often the inner program runs; None: not known."""
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        return params["length"]
    if name == "while":
        return None
    if name == "shard_map":
        return math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
    if name == "pallas_call":
        return math.prod(params["grid_mapping"].grid)
    return 1


def _batch_axes(eqn: Any) -> int:
    if eqn.primitive.name in (_CUDNN_FORWARD, _CUDNN_BACKWARD):
        return 2
    if eqn.primitive.name != "dot_general":
        return 0
    return len(eqn.params["dimension_numbers"][1][0])


def _dot(eqn: Any) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    inner = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
    return 2.0 * inner * math.prod(eqn.outvars[0].aval.shape)


def _attention(eqn: Any, products: int) -> float:
    """A cuDNN kernel's, from queries [B, T, H, C] and keys [B, S, K, C]."""
    query, key = (var.aval.shape for var in eqn.invars[:2])
    return 2.0 * products * math.prod(query) * key[1]


def _conv(eqn: Any) -> float:
    """Every output element sees one filter: the kernel's size without its output channels."""
    kernel = eqn.invars[1].aval.shape
    channels = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) / channels


_COUNTS: dict[str, Callable[[Any], float]] = {
    "dot_general": _dot,
    "conv_general_dilated": _conv,
    _CUDNN_FORWARD: functools.partial(_attention, products=2),
    _CUDNN_BACKWARD: functools.partial(_attention, products=5),
}
