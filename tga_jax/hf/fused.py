"""Projections that a model's files hold as one tensor and that ours are apart.

Their rows lie one behind the other, so that a part is a range of the file's rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tga_jax.errors import UserError
from tga_jax.hf.names import Slot
from tga_jax.hf.tensor_files import StoredTensor
from tga_jax.hf.tensor_writing import NewTensor

# model type -> {module in the files: the modules that it holds, in order}
FUSED: dict[str, dict[str, tuple[str, ...]]] = {
    "phi3": {
        "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    },
}
_LAYER = re.compile(r"^(language_model\.)?model\.layers\.\d+\.")


def split(
    folder: Path, tensors: Mapping[str, StoredTensor], wanted: Mapping[str, Slot], decoder: str
) -> dict[str, StoredTensor]:
    """The file's tensors, fused ones replaced by their parts.

    Args:
        folder: is named in errors.
        tensors: by name.
        wanted: by name, with the shapes that the parts must have.
        decoder: the language model's type.

    Raises:
        UserError: a fused tensor has not the rows of its parts.
    """
    out = dict(tensors)
    for name in tensors:
        parts = _parts(name, decoder)
        if not parts or any(part not in wanted for part in parts):
            continue
        whole, start = out.pop(name), 0
        rows = [wanted[part].shape[0] for part in parts]
        if whole.shape[:1] != (sum(rows),):
            raise UserError(
                f"{folder}: tensor {name} has shape {list(whole.shape)} where the config asks for"
                f" {sum(rows)} rows; config.json and weights are not of the same model"
            )
        for part, count in zip(parts, rows, strict=True):
            out[part] = whole.part(start, start + count)
            start += count
    return out


def fuse(tensors: list[NewTensor], decoder: str) -> list[NewTensor]:
    """The inverse, of tensors to be written."""
    by_name = {tensor.name: tensor for tensor in tensors}
    for name in list(by_name):
        whole = _whole(name, decoder)
        if whole and name in by_name:
            parts = [by_name.pop(part) for part in _parts(whole, decoder)]
            rows = sum(part.shape[0] for part in parts)
            by_name[whole] = NewTensor(whole, (rows, *parts[0].shape[1:]), _Joined(parts))
    return list(by_name.values())


class _Joined:
    """Reads the parts of a fused tensor."""

    def __init__(self, parts: list[NewTensor]):
        self._parts = parts

    def __call__(self) -> np.ndarray:
        parts = [part.read().T for part in self._parts]  # kernels are read as views of ours
        return np.concatenate(parts, axis=-1).T


def _parts(name: str, decoder: str) -> list[str]:
    """The names of a fused tensor's parts; none of another tensor."""
    layer = _LAYER.match(name)
    module = name[layer.end() :].removesuffix(".weight") if layer else ""
    parts = FUSED.get(decoder, {}).get(module, ())
    return [name.replace(module, part) for part in parts]


def _whole(name: str, decoder: str) -> str:
    """The fused tensor that holds this one; "" if it stands alone."""
    layer = _LAYER.match(name)
    module = name[layer.end() :].removesuffix(".weight") if layer else ""
    found = (whole for whole, parts in FUSED.get(decoder, {}).items() if module in parts)
    return name.replace(module, whole) if (whole := next(found, "")) else ""
