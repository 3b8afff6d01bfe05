"""Safetensors files, read and written a piece at a time.

The format (https://huggingface.co/docs/safetensors): 8 bytes of header length, a JSON header,
the tensors' bytes. Read with plain reads: a memory map's pages would count as this process's
memory, and writing needs no shard in memory.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import ml_dtypes
import numpy as np

from tga_jax.errors import UserError

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
        tensors.update(_read_header(path))
    return tensors


def _files(folder: Path) -> list[Path]:
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        raise UserError(_why_no_weights(folder))
    try:
        names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
        paths = [folder / Path(name).name for name in names]
    except (ValueError, KeyError, TypeError, AttributeError):
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


def _read_header(path: Path) -> dict[str, StoredTensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
            raise UserError(f"{path}: cut short or not a safetensors file; download it again")
        text = file.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        tensors = {name: _stored(path, 8 + length, entry) for name, entry in header.items()}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: its safetensors header is broken; download it again") from None
    if size != 8 + length + end:
        raise UserError(
            f"{path}: has {size} bytes where its header says {8 + length + end}"
            " (cut short?); download it again"
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
    for name, shard in zip(names, shards, strict=True):
        write_file(_partial(folder / name), shard, kind)
    for old in [*folder.glob("model*.safetensors"), folder / INDEX]:
        old.unlink(missing_ok=True)
    for name in names:
        os.replace(_partial(folder / name), folder / name)
    if len(shards) > 1:
        _write_index(folder / INDEX, dict(zip(names, shards, strict=True)), kind)


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
    """Write one safetensors file, a tensor at a time."""
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
            array.reshape(-1).view(np.uint8).tofile(file)
        file.flush()
        os.fsync(file.fileno())


def _write_index(path: Path, shards: dict[str, list[NewTensor]], kind: np.dtype) -> None:
    tensors = {t.name: (t, file) for file, shard in shards.items() for t in shard}
    total = sum(math.prod(t.shape) for t, _ in tensors.values()) * kind.itemsize
    weight_map = {name: file for name, (_, file) in tensors.items()}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _partial(path).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    os.replace(_partial(path), path)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def listed(names: Iterable[str], limit: int = 5) -> str:
    """A few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
