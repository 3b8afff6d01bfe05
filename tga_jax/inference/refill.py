"""Answers to many prompts: a row whose answer ended is given to the next prompt at once.

Letters: B rows, G prompts of a group, T their padded length, N new tokens.

Prompts come in groups of one shape. A group is run by itself, and its cache is put into free rows
of the cache of all; then all rows go on until there is room for the next group. So the devices
work on full batches whatever the lengths of the answers are, and the host is asked once a group.
There is a program for each shape of a group, and one for each length of the cache, of which there
are fewer: what is never seen costs little there.

On a mesh a group's prompts go to rows on the same devices, so that no cache is sent.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tga_jax.inference.generate import Answers, Decoding, begin, extend, for_decoding
from tga_jax.inference.prompt_states import PromptStates
from tga_jax.models.llava import Llava, Params
from tga_jax.models.tiling import TiledImages

# Is given the names of a group's prompts and their states, among those of the filling.
Watch = Callable[[Sequence[int], PromptStates], None]


@dataclasses.dataclass(frozen=True)
class Group:
    """Prompts of one shape: the first len(names) rows of the arrays; the rest is filling.

    tokens, segments int32[G, T]; images as `Llava.embed` takes them; keys key[G]; pool: the
    `prompt_spans` bool[G, 2, T] where the prompts' states are wanted.
    """

    names: Sequence[int]
    tokens: Array
    segments: Array
    images: Array | TiledImages
    keys: Array
    pool: Array | None = None


@dataclasses.dataclass(frozen=True)
class Answered:
    """An answer that ended.

    Attributes:
        name: of its prompt.
        tokens: int32[N], padded behind the end.
        margin: the first token's refusal margin; 0 without apologies.
        seconds: its share of the time on the devices.
        cold: whether a program was compiled meanwhile.
    """

    name: int
    tokens: np.ndarray
    margin: float
    seconds: float
    cold: bool


@dataclasses.dataclass
class _Owner:
    """Whose answer a row holds, and the time that it has taken."""

    name: int
    seconds: float = 0.0
    cold: bool = False

    def spend(self, seconds: float, *, cold: bool) -> None:
        self.seconds, self.cold = self.seconds + seconds, self.cold or cold


class Refill:
    """The rows and the compiled programs of a model."""

    def __init__(
        self,
        model: Llava,
        decoding: Decoding,
        *,
        rows: int,
        group: int,
        lengths: Sequence[int],
        ways: int = 1,
        apologies: tuple[int, ...] = (),
        out_sharding: Any = None,
    ) -> None:
        """Compiles nothing yet.

        Args:
            model: answers.
            decoding: how tokens are chosen.
            rows: how many answers are in the making at once, B.
            group: how many prompts a group has, G.
            lengths: of prompts, that the cache is made for; the last holds the longest prompt.
            ways: how many shards the mesh cuts rows and groups into; it divides both.
            apologies: token ids whose margin is wanted.
            out_sharding: of what the host reads: whole on every device.
        """
        self._rows, self._group, self._ways, self._seen = rows, group, ways, set[Any]()
        self._lengths, self._by_layer = lengths, jax.jit(functools.partial(for_decoding, model))

        def first(params: Params, tokens: Array, *rest: Any) -> tuple[Answers, Any]:
            new, states = begin(model, decoding, params, tokens, *rest, apologies=apologies)
            return _longer(new, self._length(tokens) - tokens.shape[1]), states

        self._begin = jax.jit(first, out_shardings=(None, out_sharding))
        self._empty = jax.jit(functools.partial(_empty, rows))
        self._longer = jax.jit(_longer, static_argnums=1)
        self._put = jax.jit(functools.partial(_put, ways), donate_argnums=0)

        def go_on(params: Params, answers: Answers, wanted: Array, shift: Any) -> Any:
            def busy(live: Array) -> Array:
                return jnp.min(jnp.sum(~_by_shard(live, ways), axis=1)) < wanted

            answers = extend(model, decoding, params, answers, busy, shift)
            return answers, (answers.live, answers.tokens, answers.margins)

        self._go_on = jax.jit(go_on, donate_argnums=1, out_shardings=(None, out_sharding))

    def answers(
        self,
        params: Params,
        groups: Iterable[Group],
        shift: Any = None,
        watch: Watch | None = None,
    ) -> Iterator[list[Answered]]:
        """Yields answers as they end.

        Args:
            params: nested parameters.
            groups: all prompts; the next group is asked for when there is room for it.
            shift: float[L, D], see `make_generate`; None: none.
            watch: is given the states of the groups that have a `pool`.
        """
        waiting, answers, owners = iter(groups), None, dict[int, _Owner]()
        layers = self._by_layer(params)
        group = next(waiting, None)
        while group is not None or owners:
            while group is not None and (rows := self._free_rows(owners, len(group.names))):
                answers = self._admit(params, answers, group, rows, owners, shift, watch)
                group = next(waiting, None)
            wanted = (self._group if group is not None else self._rows) // self._ways
            assert answers is not None
            inputs = layers, answers, np.int32(wanted), shift
            shape = ("go on", answers.cache.segments.shape, shift is None)
            (answers, read), seconds, cold = self._timed(shape, self._go_on, *inputs)
            live, tokens, margins = map(np.asarray, read)
            for owner in owners.values():
                owner.spend(seconds / len(owners), cold=cold)
            ended = {row: owners.pop(row) for row in list(owners) if not live[row]}
            if ended:
                yield [
                    Answered(one.name, tokens[row], float(margins[row]), one.seconds, one.cold)
                    for row, one in ended.items()
                ]

    def _free_rows(self, owners: Iterable[int], count: int) -> list[int]:
        """A free row for each of a group's first `count` prompts; none if they lack room.

        Of several shards each has a share of the rows, and takes its share of every group.
        """
        share, part = self._rows // self._ways, self._group // self._ways
        taken = set(owners)
        found: list[int] = []
        for first in range(0, self._rows, share):
            found += [row for row in range(first, first + share) if row not in taken][:part]
        return found[:count] if len(found) == self._group else []

    def _admit(
        self,
        params: Params,
        answers: Answers | None,
        group: Group,
        rows: Sequence[int],
        owners: dict[int, _Owner],
        shift: Any,
        watch: Watch | None,
    ) -> Answers:
        """Run a group's prompts and give them these rows."""
        inputs = group.tokens, group.segments, group.images, group.keys, shift, group.pool
        absent = shift is None, group.pool is None
        shape = (*(array.shape for array in jax.tree.leaves(inputs[:3])), *absent)
        (new, states), seconds, cold = self._timed(shape, self._begin, params, *inputs)
        if watch is not None and states is not None:
            watch(group.names, states)
        if answers is None:
            answers = self._empty(new)
        lacking = new.cache.segments.shape[1] - answers.cache.segments.shape[1]
        if lacking > 0:
            answers = self._longer(answers, lacking)
        # Filling goes to a row that there is not, and is dropped.
        places = np.full(self._group, self._rows, np.int32)
        places[: len(rows)] = rows
        for name, row in zip(group.names, rows, strict=True):
            owners[row] = _Owner(name, seconds / len(rows), cold)
        return self._put(answers, new, places)

    def _length(self, tokens: Array) -> int:
        """How many columns of the cache are for prompts of this padded length."""
        return min(length for length in self._lengths if length >= tokens.shape[1])

    def _timed(
        self, shape: Any, program: Callable[..., Any], *inputs: Any
    ) -> tuple[Any, float, bool]:
        """What a program returns, the seconds that it took, and whether its shape is new."""
        cold, began = shape not in self._seen, time.monotonic()
        self._seen.add(shape)
        out = jax.block_until_ready(program(*inputs))
        return out, time.monotonic() - began, cold


def _by_shard(x: Array, ways: int) -> Array:
    """[B, ...] -> [shards, B / shards, ...]."""
    return x.reshape(ways, -1, *x.shape[1:])


def _empty(rows: int, new: Answers) -> Answers:
    """Free rows like those of a group."""

    def repeat(x: Array) -> Array:
        return x if x.ndim == 0 else x[jnp.zeros(rows, int)]

    empty: Answers = jax.tree.map(repeat, new)
    return dataclasses.replace(empty, live=jnp.zeros(rows, bool)).sharded()


def _longer(answers: Answers, columns: int) -> Answers:
    return dataclasses.replace(answers, cache=answers.cache.longer(columns))


def _put(ways: int, answers: Answers, new: Answers, rows: Array) -> Answers:
    """The answers with a group in these rows, int32[G]; what is given row B is dropped."""
    total = len(answers.live)
    local = _by_shard(rows, ways) - jnp.arange(ways)[:, None] * (total // ways)

    def into_shard(old: Array, fresh: Array, rows: Array) -> Array:
        return old.at[(rows, *map(slice, fresh.shape[1:]))].set(fresh, mode="drop")

    def put(old: Array, fresh: Array) -> Array:
        if old.ndim == 0:
            return old  # the next column of the cache
        shards = _by_shard(old, ways), _by_shard(fresh, ways)
        return jax.vmap(into_shard)(*shards, local).reshape(old.shape)

    # What an earlier answer left in columns that the group lacks is seen no more.
    columns = answers.cache.segments.shape[1] - new.cache.segments.shape[1]
    segments = jnp.pad(new.cache.segments, ((0, 0), (0, columns)))
    new = dataclasses.replace(new, cache=dataclasses.replace(new.cache, segments=segments))
    out: Answers = jax.tree.map(put, answers, new)
    return out.sharded()
