"""What produced a figure: a hash of a checkpoint's files that doesn't need to read all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from tga_jax.errors import UserError
from tga_jax.hf.tensor_files import read_header

PIECES, PIECE_BYTES = 64, 65536
TENSOR_BYTES = 4096


def checkpoint_digest(folders: Iterable[Path]) -> str:
    """A short hash of the folders' weights and configs.

    Of a large file, 64 pieces spread over it are read, its begin and its end among them. Of a
    safetensors file that is too few, for a training that changed one small tensor falls between
    them: there the begin, the middle and the end of every tensor are read too, which is some
    megabytes of the 15 GB of a 7B model.
    """
    total = hashlib.sha256()
    for folder in folders:
        for pattern in ("*.safetensors", "config.json", "tokenizer.json"):
            for path in sorted(folder.glob(pattern)):
                total.update(f"{path.name} {path.stat().st_size}\n".encode())
                total.update(_sampled(path))
    return total.hexdigest()[:16]


def _sampled(path: Path) -> bytes:
    size = path.stat().st_size
    found = hashlib.sha256()
    with path.open("rb") as file:
        if size <= PIECES * PIECE_BYTES:
            return hashlib.file_digest(file, "sha256").digest()
        for piece in range(PIECES):
            file.seek((size - PIECE_BYTES) * piece // (PIECES - 1))
            found.update(file.read(PIECE_BYTES))
    if path.suffix == ".safetensors":
        for content in _tensor_pieces(path):
            found.update(content)
    return found.digest()


def _tensor_pieces(path: Path) -> Iterator[bytes]:
    """The header of a safetensors file and pieces of every tensor; nothing if it has no header."""
    try:
        header = read_header(path)
    except UserError:  # damaged: for the reader of weights to refuse, not for a hash
        return
    if not header.tensors:
        return
    yield header.text
    # Unbuffered: a buffer would read far more than the small pieces asked for.
    with path.open("rb", buffering=0) as file:
        for begin, end in header.spans:
            last = max(begin, end - TENSOR_BYTES)
            for place in sorted({begin, (begin + last) // 2, last}):
                file.seek(header.start + place)
                yield file.read(min(TENSOR_BYTES, end - place))
