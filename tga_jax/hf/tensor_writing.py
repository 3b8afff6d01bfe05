"""Safetensors files, written a few rows at a time by several threads: no shard is in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.files import replacing, write_json
from tga_jax.hf.shards import row_major
from tga_jax.hf.tensor_files import DTYPES, INDEX, SINGLE
from tga_jax.hf.threads import pool

CHUNK_BYTES = 2 << 20  # what a thread writes at once; small for the caches' sake
_CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class NewTensor:
    """A tensor to be written; `read` gives its values when their turn comes."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def write_tensors(
    folder: Path, tensors: Iterable[NewTensor], *, dtype: str, max_bytes: int
) -> None:
    """Write tensors of one dtype as model.safetensors, or as shards with an index.

    Files get their names when all are complete; weight files of an earlier export go. The same
    tensors give the same bytes.
    """
    ordered = _in_order(tensors)
    kind = np.dtype(dtype)
    shards = _shards(ordered, kind, max_bytes)
    names = [SINGLE]
    if len(shards) > 1:
        count = len(shards)
        names = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as all_complete:
        for name, shard in zip(names, shards, strict=True):
            _write_to(all_complete.enter_context(replacing(folder / name)), shard, kind)
        for old in [*folder.glob("model*.safetensors"), folder / INDEX]:
            old.unlink(missing_ok=True)
    if len(shards) > 1:
        index = _index(dict(zip(names, shards, strict=True)), kind)
        write_json(folder / INDEX, index, sort_keys=True)


def read_tensors(tensors: Iterable[NewTensor]) -> None:
    """Read the tensors as `write_tensors` does, and write nothing."""
    for tensor in _in_order(tensors):
        tensor.read()


def _in_order(tensors: Iterable[NewTensor]) -> list[NewTensor]:
    return sorted(tensors, key=lambda t: t.name)


def _shards(tensors: list[NewTensor], kind: np.dtype, max_bytes: int) -> list[list[NewTensor]]:
    shards: list[list[NewTensor]] = [[]]
    used = 0
    for tensor in tensors:
        size = math.prod(tensor.shape) * kind.itemsize
        if shards[-1] and used + size > max_bytes:
            shards.append([])
            used = 0
        shards[-1].append(tensor)
        used += size
    return shards


def write_file(path: Path, tensors: list[NewTensor], kind: np.dtype) -> None:
    """Write one safetensors file, whole or not at all; two tensors at most are in memory."""
    with replacing(path) as temporary:
        _write_to(temporary, tensors, kind)


def _write_to(path: Path, tensors: list[NewTensor], kind: np.dtype) -> None:
    """The file's content; while a tensor is read, threads write the one before it."""
    header, places = _header(tensors, kind)
    with path.open("wb") as file, pool() as workers:
        _write_all(file.fileno(), np.frombuffer(header, np.uint8), 0)
        waiting: list[Future[None]] = []
        for tensor, place in zip(tensors, places, strict=True):
            pieces = _pieces(tensor, kind, place)
            _finish(waiting)
            waiting = [workers.submit(_write, file.fileno(), *piece) for piece in pieces]
        _finish(waiting)


def _finish(waiting: list[Future[None]]) -> None:
    for one in waiting:
        one.result()


def _pieces(
    tensor: NewTensor, kind: np.dtype, place: int
) -> list[tuple[np.ndarray, np.dtype, int]]:
    """Some rows each, their dtype in the file and their place there."""
    array = tensor.read()
    if array.shape != tensor.shape:
        raise ValueError(f"{tensor.name}: shape {array.shape}, not {tensor.shape}")
    array = np.atleast_1d(array)
    row_bytes = math.prod(array.shape[1:]) * kind.itemsize
    rows = max(1, CHUNK_BYTES // max(1, row_bytes))
    starts = range(0, len(array), rows)
    return [(array[i : i + rows], kind, place + i * row_bytes) for i in starts]


def _header(tensors: list[NewTensor], kind: np.dtype) -> tuple[bytes, list[int]]:
    """What the file begins with, and where each tensor's bytes do."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    ends = [0]
    for tensor in tensors:
        ends.append(ends[-1] + math.prod(tensor.shape) * kind.itemsize)
        header[tensor.name] = {
            "dtype": _CODES[kind],
            "shape": list(tensor.shape),
            "data_offsets": ends[-2:],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text, [8 + len(text) + end for end in ends[:-1]]


def _write(file: int, rows: np.ndarray, kind: np.dtype, place: int) -> None:
    rows = row_major(rows.astype(kind, copy=False))
    _write_all(file, rows.reshape(-1).view(np.uint8), place)


def _write_all(file: int, content: np.ndarray, place: int) -> None:
    """All bytes: the system may take a part of them only."""
    done = 0
    while done < len(content):
        done += os.pwrite(file, content[done:].data, place + done)


def _index(shards: dict[str, list[NewTensor]], kind: np.dtype) -> dict[str, Any]:
    """Content of the index: which tensor is in which file."""
    tensors = {t.name: (t, file) for file, shard in shards.items() for t in shard}
    total = sum(math.prod(t.shape) for t, _ in tensors.values()) * kind.itemsize
    weight_map = {name: file for name, (_, file) in tensors.items()}
    return {"metadata": {"total_size": total}, "weight_map": weight_map}
