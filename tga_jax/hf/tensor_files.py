"""Safetensors files, read and written a piece at a time.

The format (https://huggingface.co/docs/safetensors): 8 bytes of header length, a JSON header,
the tensors' bytes. Read with plain reads: a memory map's pages would count as this process's
memory, and writing needs no shard in memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tga_jax.errors import UserError
from tga_jax.files import read_json, replacing, write_json

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_MAX_HEADER_BYTES = 100_000_000  # as the safetensors library has it
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file."""

    path: Path
    dtype: str  # safetensors' code
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file

    def part(self, start: int, stop: int) -> StoredTensor:
        """Some rows as a tensor of their own; its dtype must be one of weights to be read."""
        dtype = DTYPES.get(self.dtype, np.dtype(np.uint8))
        skipped = start * math.prod(self.shape[1:]) * dtype.itemsize
        shape = (stop - start, *self.shape[1:])
        return dataclasses.replace(self, shape=shape, offset=self.offset + skipped)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Some rows (the first axis) in the file's dtype; a scalar counts as one row.

        Raises:
            UserError: the dtype is not one of weights (quantised checkpoints).
        """
        if self.dtype not in DTYPES:
            raise UserError(
                f"{self.path}: tensors of dtype {self.dtype} are not supported;"
                f" save the model in one of {', '.join(DTYPES)}"
            )
        dtype = DTYPES[self.dtype]
        row_items = math.prod(self.shape[1:])
        flat = np.fromfile(
            self.path,
            dtype=dtype,
            count=(stop - start) * row_items,
            offset=self.offset + start * row_items * dtype.itemsize,
        )
        return flat.reshape((stop - start, *self.shape[1:]))


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a checkpoint folder by name.

    Raises:
        UserError: no safetensors, a shard that is missing, a file that is cut short.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in _files(folder):
        tensors.update(_tensors_of(path))
    return tensors


def _files(folder: Path) -> list[Path]:
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        raise UserError(_why_no_weights(folder))
    try:
        index = read_json(folder / INDEX, advice="download it again")
        names = sorted(set(index["weight_map"].values()))
        paths = [folder / Path(name).name for name in names]
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{folder / INDEX}: not a safetensors index; download it again") from None
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise UserError(
            f"{folder / INDEX}: names files that are not there: {listed(missing)};"
            " download them into the same folder"
        )
    return paths


def _why_no_weights(folder: Path) -> str:
    pickled = [p.name for s in ("*.bin", "*.pt", "*.pth") for p in sorted(folder.glob(s))]
    if pickled:
        return (
            f"{folder}: holds pickled weights only ({listed(pickled)}), which are never loaded;"
            " convert them to safetensors (transformers: from_pretrained, then save_pretrained)"
        )
    return f"{folder}: no {SINGLE} and no {INDEX}; give a folder with safetensors weights"


@dataclasses.dataclass(frozen=True)
class Header:
    """What a safetensors file begins with."""

    text: bytes  # the JSON
    tensors: dict[str, dict]  # name -> {"dtype", "shape", "data_offsets"}
    start: int  # where the tensors' bytes begin; data_offsets count from here

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Begin and end of every tensor, counted from `start`, in the file's order."""
        offsets = (entry["data_offsets"] for entry in self.tensors.values())
        return sorted((int(first), int(last)) for first, last in offsets)


def read_header(path: Path) -> Header:
    """Reads the header of a safetensors file, and no more than it.

    Raises:
        UserError: the file is cut short, or has no such header.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
            raise UserError(f"{path}: cut short or not a safetensors file; download it again")
        text = file.read(length)
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        header = Header(text, entries, 8 + length)
        _ = header.spans
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: its safetensors header is broken; download it again") from None
    return header


def _tensors_of(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file, after its size was compared with what the header says."""
    size, header = path.stat().st_size, read_header(path)
    try:
        tensors = {
            name: _stored(path, header.start, entry) for name, entry in header.tensors.items()
        }
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: its safetensors header is broken; download it again") from None
    end = header.start + max((last for _, last in header.spans), default=0)
    if size != end:
        raise UserError(
            f"{path}: has {size} bytes where its header says {end} (cut short?); download it again"
        )
    return tensors


def _stored(path: Path, start: int, entry: dict) -> StoredTensor:
    shape = tuple(int(n) for n in entry["shape"])
    first, last = entry["data_offsets"]
    dtype = DTYPES.get(entry["dtype"])
    if dtype is not None and last - first != math.prod(shape) * dtype.itemsize:
        raise ValueError("a tensor's size is not its shape's")
    return StoredTensor(path, entry["dtype"], shape, start + first)


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
    """Write one safetensors file, a tensor at a time, whole or not at all."""
    with replacing(path) as temporary:
        _write_to(temporary, tensors, kind)


def _write_to(path: Path, tensors: list[NewTensor], kind: np.dtype) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + math.prod(tensor.shape) * kind.itemsize
        header[tensor.name] = {
            "dtype": _CODES[kind],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts at a multiple of 8 bytes
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            array = np.asarray(tensor.read().astype(kind, copy=False), order="C")
            if array.shape != tensor.shape:
                raise ValueError(f"{tensor.name}: shape {array.shape}, not {tensor.shape}")
            file.write(array.reshape(-1).view(np.uint8).data)  # `tofile` loses an end unnoticed


def _index(shards: dict[str, list[NewTensor]], kind: np.dtype) -> dict[str, Any]:
    """Content of the index: which tensor is in which file."""
    tensors = {t.name: (t, file) for file, shard in shards.items() for t in shard}
    total = sum(math.prod(t.shape) for t, _ in tensors.values()) * kind.itemsize
    weight_map = {name: file for name, (_, file) in tensors.items()}
    return {"metadata": {"total_size": total}, "weight_map": weight_map}


def listed(names: Iterable[str], limit: int = 5) -> str:
    """A few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
