"""A single mutation of what `inputs.make_inputs` writes, and what mutations are made of."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STRICT, TOLERANT = "--config.data.max_bad_fraction=0", "--config.data.max_bad_fraction=0.5"


@dataclass(frozen=True)
class Mutation:
    """What is changed, and what must come of it.

    Attributes:
        name: what was done, for the one who reads that it failed.
        job: that is run on the inputs.
        culprits: an error's line holds one of these.
        spoil: changes the inputs, whose folder it is given; may return what it did, in words.
        flags: for the job.
        expect: 0 or 2, where only this exit code is right; None where both may be.
        rows: how many rows the samples' file then has; None where that can't be said.
        touched: ids of the rows that may be read otherwise than before; None: all of them.
    """

    name: str
    job: str
    culprits: tuple[str, ...]
    spoil: Callable[[Path], str | None] = lambda inputs: None
    flags: tuple[str, ...] = ()
    expect: int | None = None
    rows: int | None = 6
    touched: frozenset[str] | None = None


def odd_value(rng: random.Random) -> Any:
    """A JSON value that is hardly ever right."""
    return rng.choice(
        [
            None, True, False, 0, -1, 3, 10**30, 1.5, float("nan"), float("inf"), "", " ", "odd",
            "\ud800", "a\u2028b", "a\0b", "7", [], {}, [[]], [None], ["a", 1], {"a": {"b": []}},
        ]
    )  # fmt: skip


def places(value: Any, depth: int) -> list[tuple[str, ...]]:
    """The paths of the keys of nested objects, down to some depth."""
    if not isinstance(value, dict) or not depth:
        return []
    return [
        path
        for key in value
        for path in [(key,), *((key, *p) for p in places(value[key], depth - 1))]
    ]


def mutate_key(rng: random.Random, value: Any, depth: int) -> str:
    """Deletes or changes one key of nested objects in place, and says which."""
    *outer, key = rng.choice(places(value, depth))
    for name in outer:
        value = value[name]
    where = ".".join([*outer, key])
    if rng.random() < 0.3:
        del value[key]
        return f"without {where}"
    value[key] = odd_value(rng)
    return f"{where}={value[key]!r}"


def mutate_bytes(rng: random.Random, content: bytes) -> tuple[str, bytes]:
    """A file's bytes with a part cut off, changed or put in."""
    at = rng.randrange(len(content))
    odd = bytes([rng.choice([0, 0x22, 0x2C, 0x7B, 0x80, 0xFF, 0x5D])])
    return rng.choice(
        [
            (f"cut at byte {at}", content[:at]),
            ("empty", b""),
            (f"byte {at} is {odd!r}", content[:at] + odd + content[at + 1 :]),
            (f"{odd!r} put in at {at}", content[:at] + odd + content[at:]),
            ("UTF-16", content.decode("utf-8", "replace").encode("utf-16")),
            ("another JSON value", b'["a"]'),
            ("a number", b"7"),
            ("nested too deeply", b"[" * 100_000),
        ]
    )
