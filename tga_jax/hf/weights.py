"""Weights from Hugging Face folders, a few rows at a time in each of several threads."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np

from tga_jax.errors import UserError
from tga_jax.files import read_json
from tga_jax.hf import names
from tga_jax.hf.fused import split
from tga_jax.hf.quantised import QuantisedFiller, slots_of
from tga_jax.hf.shards import ShardFiller
from tga_jax.hf.tensor_files import StoredTensor, listed, stored_tensors
from tga_jax.hf.threads import in_threads, pool

CHUNK_BYTES = 4 << 20  # what a thread reads at once, counted in float32; small for the caches' sake
MEAN_BYTES = 16 << 20  # what is summed at once, likewise; another size may change a last digit
Leaf = jax.ShapeDtypeStruct
Tensors = dict[str, StoredTensor]


def load_weights(
    folder: Path, leaves: Mapping[str, Leaf], *, family: str, grow_vocab: bool = False
) -> dict[str, jax.Array]:
    """Read parameters from a folder of safetensors, straight into their shards and dtype.

    Besides the parameters themselves, a few blocks of `CHUNK_BYTES` a thread are in memory.

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
    return _read(leaves, slots, tensors)


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


@dataclasses.dataclass(frozen=True)
class _Reading:
    """Rows of a tensor that are to be read, and what is done with them."""

    tensor: StoredTensor
    start: int
    stop: int
    use: Callable[[np.ndarray], None]

    def __call__(self) -> None:
        self.use(self.tensor.rows(self.start, self.stop))

    @property
    def place(self) -> tuple[Path, int, int]:
        """Sorts readings in the order of the files."""
        return self.tensor.path, self.tensor.offset, self.start


def _read(
    leaves: Mapping[str, Leaf], slots: Mapping[str, list[names.Slot]], tensors: Tensors
) -> dict[str, jax.Array]:
    params = {  # CLIP's temperature is the only one
        path: _scalar(leaf, tensors[slots[path][0].name])
        for path, leaf in leaves.items()
        if not leaf.shape
    }
    paths = [path for path in slots if path not in params]
    with pool() as workers:
        fillers = list(workers.map(functools.partial(_filler, leaves), paths))
    means: list[Callable[[], None]] = []
    readings: list[_Reading] = []
    for path, filler in zip(paths, fillers, strict=True):
        for slot in slots[path]:
            tensor = tensors[slot.name]
            if slot.shape[0] > tensor.shape[0]:
                means.append(functools.partial(_put_mean, filler, slot, tensor))
            readings += _readings(filler, slot, tensor)
    in_threads([*means, *sorted(readings, key=lambda reading: reading.place)])
    for filler in fillers:
        params |= filler.arrays()
    return params


def _filler(leaves: Mapping[str, Leaf], path: str) -> _Filler | QuantisedFiller:
    return _Filler(path, leaves[path]) if path in leaves else QuantisedFiller(path, leaves)


def _scalar(leaf: Leaf, tensor: StoredTensor) -> jax.Array:
    value = tensor.rows(0, 1).reshape(()).astype(leaf.dtype)
    return jax.make_array_from_callback((), leaf.sharding, lambda _: value)


def _readings(
    filler: _Filler | QuantisedFiller, slot: names.Slot, tensor: StoredTensor
) -> Iterator[_Reading]:
    for start, stop in _chunks(tensor, CHUNK_BYTES):
        if filler.wants(slot, start, stop):
            yield _Reading(tensor, start, stop, functools.partial(filler.put, slot, start))


def _put_mean(filler: _Filler | QuantisedFiller, slot: names.Slot, tensor: StoredTensor) -> None:
    """The rows that the file has not: the mean of those that it has."""
    total = np.zeros(tensor.shape[1:], np.float64)
    for bounds in _chunks(tensor, MEAN_BYTES):
        total += tensor.rows(*bounds).sum(axis=0, dtype=np.float64)
    mean = (total / tensor.shape[0]).astype(np.float32)
    extra = (slot.shape[0] - tensor.shape[0], *mean.shape)
    filler.put(slot, tensor.shape[0], np.broadcast_to(mean, extra))


class _Filler:
    """A parameter under construction from the rows of its tensors."""

    def __init__(self, path: str, leaf: Leaf) -> None:
        self._path, self._leaf, self._filler = path, leaf, ShardFiller(leaf)

    def wants(self, slot: names.Slot, start: int, stop: int) -> bool:
        """Whether any local device holds some of these rows."""
        return self._filler.wants(*self._box(slot, start, stop))

    def put(self, slot: names.Slot, start: int, rows: np.ndarray) -> None:
        """Rows of a tensor, of which the first is `start`."""
        index, _ = self._box(slot, start, start + len(rows))
        transposed = slot.transform == "transpose"
        rows = rows if transposed else names.to_ours(slot.transform, rows)
        self._filler.put(index, rows, transposed=transposed)

    def arrays(self) -> dict[str, jax.Array]:
        """The parameter as filled, by its path."""
        return {self._path: self._filler.array()}

    def _box(
        self, slot: names.Slot, start: int, stop: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Where rows of a tensor are in our array: the first index, and the shape."""
        index, shape = [0] * len(self._leaf.shape), list(self._leaf.shape)
        if slot.layer is not None:
            index[0], shape[0] = slot.layer, 1
        rows = len(shape) - (len(slot.shape) if slot.transform == "none" else 1)
        index[rows], shape[rows] = start, stop - start
        return tuple(index), tuple(shape)


def _chunks(tensor: StoredTensor, most: int) -> Iterator[tuple[int, int]]:
    """Bounds of row ranges of at most so many bytes, counted in float32."""
    row_bytes = 4 * int(np.prod(tensor.shape[1:], dtype=np.int64))
    step = max(1, most // max(1, row_bytes))
    for start in range(0, tensor.shape[0], step):
        yield start, min(start + step, tensor.shape[0])


def _equal(a: StoredTensor, b: StoredTensor) -> bool:
    if a.shape != b.shape or not a.shape:
        return False
    return all(
        np.array_equal(a.rows(*bounds), b.rows(*bounds)) for bounds in _chunks(a, CHUNK_BYTES)
    )


def _is_identity(tensor: StoredTensor) -> bool:
    if not tensor.shape:
        return False
    value = tensor.rows(0, tensor.shape[0]).astype(np.float32)
    return np.array_equal(value, np.eye(len(value)) if value.ndim == 2 else np.zeros_like(value))
