"""Weights from and to Hugging Face folders, a tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np

from tga_jax.errors import UserError
from tga_jax.files import read_json
from tga_jax.hf import names
from tga_jax.hf.fused import fuse, split
from tga_jax.hf.quantised import fill_quantised, slots_of
from tga_jax.hf.shards import ShardFiller, gather
from tga_jax.hf.tensor_files import (
    NewTensor,
    StoredTensor,
    listed,
    read_tensors,
    stored_tensors,
    write_tensors,
)
from tga_jax.models.config import LlavaConfig, LoraConfig

CHUNK_BYTES = 16 << 20  # what is read at once, counted in float32; small for the caches' sake
Leaf = jax.ShapeDtypeStruct
Tensors = dict[str, StoredTensor]


def load_weights(
    folder: Path, leaves: Mapping[str, Leaf], *, family: str, grow_vocab: bool = False
) -> dict[str, jax.Array]:
    """Read parameters from a folder of safetensors, straight into their shards and dtype.

    Besides the parameters themselves, a few blocks of `CHUNK_BYTES` are in memory at a time.

    Args:
        folder: the checkpoint.
        leaves: shape, dtype and sharding of the wanted parameters by flat path; adapters
            ("…/lora_a") are not among them. Kernels may be in few bits (`models.quantised`).
        family: "llava" (LlavaForConditionalGeneration), "original" (the same in the LLaVA
            repository's layout; "vision/" leaves only if it has the tower inside), "vision" (a
            CLIP or SigLIP, or the vision half alone; only "vision/" leaves), "decoder" (a causal
            language model; only "decoder/" leaves) or "clip" (both halves of a CLIPModel).
        grow_vocab: where more rows of token embeddings are wanted than the file has, the new
            ones are the mean of the file's; otherwise that is an error.

    Returns:
        the parameters by flat path.

    Raises:
        UserError: missing, unexpected or wrongly shaped tensors, broken or pickled files.
    """
    folder = Path(folder)
    decoder = _decoder_type(folder, family)
    slots = slots_of(leaves, decoder)
    wanted = {slot.name: slot for group in slots.values() for slot in group}
    tensors = split(folder, _canonical_tensors(folder, family), wanted, decoder)
    spare = {name: tensors[name] for name in tensors.keys() - wanted.keys()}
    _check_names(folder, wanted, tensors, _accounted_for(folder, spare, wanted, tensors))
    for slot in wanted.values():
        _check_shape(folder, slot, tensors[slot.name], grow_vocab)
    params = {path: _fill(leaves[path], slots[path], tensors) for path in slots if path in leaves}
    for path in slots.keys() - leaves.keys():
        params |= fill_quantised(leaves, path, slots[path], tensors, _chunks)
    return params


def _decoder_type(folder: Path, family: str) -> str:
    """The language model's type, which decides how some of its tensors are named."""
    file = folder / "config.json"
    content = read_json(file, advice="repair it") if file.is_file() else {}
    if family == "llava":
        content = content.get("text_config") or {}
    return content.get("model_type", "llama")


def _canonical_tensors(folder: Path, family: str) -> Tensors:
    tensors: Tensors = {}
    for name, tensor in stored_tensors(folder).items():
        known = names.canonical(name, family=family)
        if known in tensors:
            raise UserError(f"{folder}: holds {known} twice, under two spellings; remove one")
        if known is not None:
            tensors[known] = tensor
    return tensors


def _accounted_for(
    folder: Path, spare: Tensors, wanted: Mapping[str, names.Slot], tensors: Tensors
) -> set[str]:
    """Tensors without a parameter that say nothing new: a tied head, a linear projector's eye."""
    known: set[str] = set()
    if names.HEAD in spare and names.EMBEDDING in wanted and names.EMBEDDING in tensors:
        if not _equal(spare[names.HEAD], tensors[names.EMBEDDING]):
            raise UserError(
                f"{folder}: the config ties the head to the embeddings but the file's differ;"
                " set tie_word_embeddings to false in config.json"
            )
        known.add(names.HEAD)
    for name in spare:
        if name.startswith(names.PROJECTOR_2):
            if not _is_identity(spare[name]):
                raise UserError(
                    f"{folder}: {name} is not the identity, which a linear projector"
                    " (projector_hidden_act linear) needs; use a gelu projector"
                )
            known.add(name)
    return known


def _check_names(
    folder: Path, wanted: Mapping[str, names.Slot], tensors: Tensors, known: set[str]
) -> None:
    missing = sorted(wanted.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - wanted.keys() - known)
    problems = []
    if missing:
        problems.append(f"missing tensors: {listed(missing)}")
    if unexpected:
        problems.append(f"unexpected tensors: {listed(unexpected)}")
    if problems:
        raise UserError(
            f"{folder}: {'; '.join(problems)}; the weights are not of the model in config.json"
        )


def _check_shape(folder: Path, slot: names.Slot, tensor: StoredTensor, grow_vocab: bool) -> None:
    got, want = tensor.shape, slot.shape
    if grow_vocab and slot.name in names.VOCAB_TENSORS and len(got) == 2 and got[0] > 0:
        want = (min(got[0], want[0]), want[1])
    if got != want:
        raise UserError(
            f"{folder}: tensor {slot.name} has shape {list(tensor.shape)} where the config asks"
            f" for {list(slot.shape)}; config.json and weights are not of the same model"
        )


def _fill(leaf: Leaf, slots: list[names.Slot], tensors: Tensors) -> jax.Array:
    filler = ShardFiller(leaf)
    if not leaf.shape:  # CLIP's temperature
        filler.put((), tensors[slots[0].name].rows(0, 1).reshape(()))
        return filler.array()
    for slot in slots:
        tensor = tensors[slot.name]
        grown = slot.shape[0] > tensor.shape[0]
        total = np.zeros(tensor.shape[1:], np.float64)
        for start, stop in _chunks(tensor):
            if not grown and not filler.wants(*_box(leaf, slot, start, stop)):
                continue
            rows = tensor.rows(start, stop)
            _put(filler, leaf, slot, start, rows)
            if grown:
                total += rows.sum(axis=0, dtype=np.float64)
        if grown:
            mean = (total / tensor.shape[0]).astype(np.float32)
            extra = (slot.shape[0] - tensor.shape[0], *mean.shape)
            _put(filler, leaf, slot, tensor.shape[0], np.broadcast_to(mean, extra))
    return filler.array()


def _box(
    leaf: Leaf, slot: names.Slot, start: int, stop: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where rows of a Hugging Face tensor are in our array: the first index, and the shape."""
    index = [0] * len(leaf.shape)
    shape = list(leaf.shape)
    if slot.layer is not None:
        index[0], shape[0] = slot.layer, 1
    rows = len(leaf.shape) - (len(slot.shape) if slot.transform == "none" else 1)
    index[rows], shape[rows] = start, stop - start
    return tuple(index), tuple(shape)


def _put(filler: ShardFiller, leaf: Leaf, slot: names.Slot, start: int, rows: np.ndarray) -> None:
    index, _ = _box(leaf, slot, start, start + len(rows))
    transposed = slot.transform == "transpose"  # is done on the device, where it is fast
    filler.put(
        index, rows if transposed else names.to_ours(slot.transform, rows), transposed=transposed
    )


def _chunks(tensor: StoredTensor) -> Iterator[tuple[int, int]]:
    """Bounds of row ranges of at most `CHUNK_BYTES`."""
    row_bytes = 4 * int(np.prod(tensor.shape[1:], dtype=np.int64))
    step = max(1, CHUNK_BYTES // max(1, row_bytes))
    for start in range(0, tensor.shape[0], step):
        yield start, min(start + step, tensor.shape[0])


def _equal(a: StoredTensor, b: StoredTensor) -> bool:
    if a.shape != b.shape or not a.shape:
        return False
    return all(np.array_equal(a.rows(*bounds), b.rows(*bounds)) for bounds in _chunks(a))


def _is_identity(tensor: StoredTensor) -> bool:
    if not tensor.shape:
        return False
    value = tensor.rows(0, tensor.shape[0]).astype(np.float32)
    return np.array_equal(value, np.eye(len(value)) if value.ndim == 2 else np.zeros_like(value))


def save_weights(
    params: Mapping[str, jax.Array],
    folder: Path,
    *,
    config: LlavaConfig,
    dtype: str,
    decoder: str = "llama",
    max_shard_bytes: int = 5_000_000_000,
    write: bool = True,
) -> None:
    """Write parameters as `LlavaForConditionalGeneration.save_pretrained` names them.

    The inverse of `load_weights`. Adapters are merged into their kernels in float32. One tensor
    is on the host at a time; the same parameters give the same bytes. Of several processes all
    call this, and one writes.

    Args:
        params: by flat path, adapters ("…/lora_a", "…/lora_b") included.
        folder: made if need be; earlier weight files in it are replaced.
        config: of the model.
        dtype: "float32", "bfloat16" or "float16".
        decoder: the language model's type, which decides how some of its tensors are named.
        max_shard_bytes: above it, several files with an index are written.
        write: False: only take part in gathering the parameters.
    """
    tensors = _new_tensors(params, family="llava", decoder=decoder, lora=config.decoder.lora)
    if config.projector == "linear":
        tensors += _identity(config.decoder.width, bias=config.projector_bias)
    if write:
        write_tensors(Path(folder), tensors, dtype=dtype, max_bytes=int(max_shard_bytes))
    else:
        read_tensors(tensors)


def save_part(
    params: Mapping[str, jax.Array],
    folder: Path,
    *,
    family: str,
    dtype: str,
    decoder: str = "llama",
    lora: LoraConfig | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """`save_weights` of a model that is no LLaVA.

    Args:
        params: by flat path: "decoder/" ones, or those of a `tga_jax.models.clip.Clip`.
        folder: made if need be; earlier weight files in it are replaced.
        family: "decoder" (named as a ...ForCausalLM) or "clip" (as a CLIPModel).
        dtype: "float32", "bfloat16" or "float16".
        decoder: the language model's type, which decides how some of its tensors are named.
        lora: of the decoder's adapters, which are merged.
        max_shard_bytes: above it, several files with an index are written.
    """
    tensors = _new_tensors(params, family=family, decoder=decoder, lora=lora)
    write_tensors(Path(folder), tensors, dtype=dtype, max_bytes=int(max_shard_bytes))


def _new_tensors(
    params: Mapping[str, jax.Array], *, family: str, decoder: str, lora: LoraConfig | None
) -> list[NewTensor]:
    tensors = [
        NewTensor(names.written(slot.name, family=family), slot.shape, _reader(params, slot, lora))
        for path, array in params.items()
        if not path.endswith(("/lora_a", "/lora_b"))
        for slot in names.slots(path, array.shape, decoder=decoder)
    ]
    return fuse(tensors, decoder)


def _reader(
    params: Mapping[str, jax.Array], slot: names.Slot, lora: LoraConfig | None
) -> Callable[[], np.ndarray]:
    def take(path: str) -> np.ndarray:
        return gather(params[path], slot.layer)

    def read() -> np.ndarray:
        value = take(slot.path)
        stem = slot.path.removesuffix("kernel")
        if f"{stem}lora_a" in params:
            if lora is None:
                raise ValueError(f"{stem}lora_a without its LoraConfig")
            a, b = (take(stem + name).astype(np.float32) for name in ("lora_a", "lora_b"))
            value = value.astype(np.float32) + np.float32(lora.scale) * (a @ b)
        return names.to_theirs(slot.transform, value)

    return read


def _identity(width: int, *, bias: bool) -> list[NewTensor]:
    """A linear projector's second layer, for a format that always has two."""
    eye = NewTensor(names.PROJECTOR_2 + "weight", (width, width), lambda: np.eye(width))
    zero = NewTensor(names.PROJECTOR_2 + "bias", (width,), lambda: np.zeros(width))
    return [eye, zero] if bias else [eye]
