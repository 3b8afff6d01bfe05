"""Safetensors files, read a piece at a time.

The format (https://huggingface.co/docs/safetensors): 8 bytes of header length, a JSON header,
the tensors' bytes. Read with plain reads: a memory map's pages would count as this process's
memory.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from pathlib import Path

import ml_dtypes
import numpy as np

from tga_jax.errors import UserError
from tga_jax.files import read_json

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
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


def listed(names: Iterable[str], limit: int = 5) -> str:
    """A few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
