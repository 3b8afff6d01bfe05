"""Answers on meshes of eight devices are those of one, and the cache is cut as its axes say.

Runs inside `tests/parallel/test_eight_devices.py`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests import tiny
from tga_jax.inference.generate import Decoding, decode_one, make_generate, prefill
from tga_jax.inference.refill import Group, Refill
from tga_jax.models.cache import KVCache
from tga_jax.models.llava import Params
from tga_jax.parallel.mesh import AXES, make_mesh
from tga_jax.parallel.sharding import (
    RULES,
    batch_sharding,
    batch_shards,
    param_shardings,
    replicated,
)

NEW, LENGTH, ROWS = 6, 16, 8
GREEDY = Decoding(NEW, eos_ids=(), pad_id=tiny.PAD)
# data, fsdp, tensor; the tiny model has 4 heads, in pairs that share one of 2 kv heads
SLOW = [pytest.param(sizes, marks=pytest.mark.slow) for sizes in ((1, 4, 2), (8, 1, 1))]
MESHES = [(2, 2, 2), (1, 2, 4), *SLOW]
ON_MESHES = pytest.mark.parametrize("sizes", MESHES)

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")


@functools.cache
def _prompts() -> tuple[np.ndarray, ...]:
    return tiny.prompts(3, ROWS, LENGTH, image_every=2)


def _keys() -> jax.Array:
    return jax.random.split(jax.random.key(0), ROWS)


@functools.cache
def _on_one_device() -> np.ndarray:
    return np.asarray(make_generate(tiny.model(), GREEDY)(tiny.params(), *_prompts(), _keys()))


def _on(mesh: Mesh) -> tuple[Params, tuple[jax.Array, ...]]:
    """Parameters and prompts as the jobs place them."""
    boxed = jax.eval_shape(tiny.model().init, jax.random.key(0))
    shardings = param_shardings(boxed, mesh)
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: jax.device_put(x, shardings["/".join(p.key for p in path)]), tiny.params()
    )
    return params, tuple(jax.device_put(x, batch_sharding(mesh)) for x in _prompts())


@ON_MESHES
def test_greedy_answers_are_those_of_one_device(sizes: tuple[int, int, int]) -> None:
    mesh = make_mesh(**dict(zip(AXES, sizes, strict=True)))
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        params, prompts = _on(mesh)
        generate = make_generate(tiny.model(), GREEDY, out_sharding=replicated(mesh))
        answers = np.asarray(generate(params, *prompts, _keys()))
    np.testing.assert_array_equal(answers, _on_one_device())
    assert len({tuple(row) for row in answers}) == ROWS


@ON_MESHES
def test_refilled_rows_give_the_answers_of_one_device(sizes: tuple[int, int, int]) -> None:
    mesh = make_mesh(**dict(zip(AXES, sizes, strict=True)))
    decoding = dataclasses.replace(GREEDY, eos_ids=(36, 38, 43, 49, 56))
    want = np.asarray(make_generate(tiny.model(), decoding)(tiny.params(), *_prompts(), _keys()))
    assert len(set(np.sum(want != tiny.PAD, axis=1))) > 2  # answers end at unequal times
    ways, sharded = batch_shards(mesh), batch_sharding(mesh)

    def groups() -> Iterator[Group]:
        for start in range(0, 3 * ROWS - 1, ways):  # the last one is not full
            names = list(range(start, min(start + ways, 3 * ROWS - 1)))
            chosen = np.resize(names, ways) % ROWS
            inputs = [jax.device_put(x[chosen], sharded) for x in _prompts()]
            yield Group(names, *inputs, _keys()[chosen])

    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        refill = Refill(
            tiny.model(), decoding, rows=2 * ways, group=ways, lengths=(LENGTH,), ways=ways,
            out_sharding=replicated(mesh),
        )  # fmt: skip
        found = [one for some in refill.answers(_on(mesh)[0], groups()) for one in some]
    assert sorted(one.name for one in found) == list(range(3 * ROWS - 1))
    for one in found:
        np.testing.assert_array_equal(one.tokens, want[one.name % ROWS])


@ON_MESHES
def test_the_cache_is_cut_over_rows_and_heads(sizes: tuple[int, int, int]) -> None:
    mesh = make_mesh(**dict(zip(AXES, sizes, strict=True)))

    @jax.jit
    def first(params: Params, *prompts: jax.Array) -> KVCache:
        return prefill(tiny.model(), params, *prompts, new_tokens=NEW)[1]

    @jax.jit
    def second(params: Params, cache: KVCache) -> KVCache:
        ones = jax.numpy.ones(ROWS, jax.numpy.int32)
        return decode_one(tiny.model(), params, ones, ones, cache)[1]

    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        params, prompts = _on(mesh)
        cache = first(params, *prompts)
        caches = cache, second(params, cache)
    heads = tiny.CONFIG.decoder.kv_heads
    cut = "tensor" if heads % mesh.shape["tensor"] == 0 else None
    rows = PartitionSpec(("data", "fsdp"))
    for found in caches:
        for layer in found.layers:
            for x in (layer.k, layer.v):
                assert x.shape == (ROWS, heads, LENGTH + NEW, tiny.CONFIG.decoder.head_dim)
                _check_lies(x, NamedSharding(mesh, PartitionSpec(*rows, cut)))
        _check_lies(found.positions, NamedSharding(mesh, rows))
        _check_lies(found.segments, NamedSharding(mesh, rows))


def _check_lies(x: Any, sharding: NamedSharding) -> None:
    assert x.sharding.is_equivalent_to(sharding, x.ndim), x.sharding
