"""How the tokens of a batch's samples become arrays of a few fixed shapes.

Letters: A micro-batches a step (accumulation), b rows a micro-batch, n samples a micro-batch (as
many as rows, without packing), T tokens, C caption tokens.
"""

from collections.abc import Sequence

import numpy as np

from tga_jax.data.example import Example
from tga_jax.data.tiles import tile_arrays
from tga_jax.errors import UserError
from tga_jax.labels import IGNORE_INDEX


def default_buckets(max_length: int) -> tuple[int, ...]:
    """Returns 64, 96, 128, 192, 256, 384, ...: at most half a bucket is padding.

    The last is the smallest multiple of 32 that holds `max_length`.
    """
    last = -(-max_length // 32) * 32
    powers = [64 * 2**i for i in range(max(last, 64).bit_length() - 6)]
    steps = sorted(length for power in powers for length in (power, power * 3 // 2))
    return (*(length for length in steps if length < last), last)


def pick_bucket(
    length: int, buckets: Sequence[int], *, name: str = "a sample", key: str = "buckets"
) -> int:
    """Returns the smallest bucket that holds `length`.

    Raises:
        UserError: when none does; `name` says what is too long for config.data.`key`.
    """
    fitting = [bucket for bucket in buckets if bucket >= length]
    if not fitting:
        raise UserError(
            f"{name} has {length} tokens, more than the largest length {max(buckets)} of "
            f"config.data.{key}: add a larger one, or set it to () for the usual lengths up to "
            "config.data.max_length"
        )
    return min(fitting)


def collate(
    examples: Sequence[Example],
    *,
    pad_id: int,
    buckets: Sequence[int],
    caption_buckets: Sequence[int],
    accumulate: int,
    packing: int = 1,
) -> dict[str, np.ndarray]:
    """Puts the examples of one step into arrays, padded on the right to a bucket's length.

    Args:
        examples: in the order of `balanced_rows`: those of a row are next to each other.
        pad_id: token for the padding.
        buckets: allowed lengths of rows.
        caption_buckets: allowed lengths of the caption pass.
        accumulate: A.
        packing: examples a row, so n = b * packing.

    Returns int32 arrays; a sample lacking something has the span (0, 0):
        tokens, labels, positions [A, b, T]; segments [A, b, T], 0 for padding and 1, 2, ... for
        the samples of a row; positions and labels are those of the sample alone.
        image_span [A, n, 2], of the first image; retrieved_span [A, n, 2]; both within the row.
        caption_tokens, caption_segments [A, n, C]; caption_span [A, n, 2]: always a row each.
        answer_span [A, n, 2], caption_answer_span [A, n, 2], of one token each.
        Of images in tiles also those of `tile_arrays`.

    Raises:
        UserError: naming the examples of a row that is longer than the largest bucket.
    """
    rows = [examples[i : i + packing] for i in range(0, len(examples), packing)]
    names = [f"record{'s' * (packing > 1)} {', '.join(e.id for e in row)}" for row in rows]
    length = _bucket([sum(len(e.tokens) for e in row) for row in rows], names, buckets, "buckets")
    captions = [e.caption_tokens for e in examples]
    names = [f"the caption pass of record {e.id}" for e in examples]
    sizes = [len(tokens) for tokens in captions]
    caption_length = _bucket(sizes, names, caption_buckets, "caption_buckets")
    # Where in its row an example begins.
    starts = [sum(len(e.tokens) for e in row[:i]) for row in rows for i in range(len(row))]
    nowhere = [0] * len(examples)  # the caption pass has a row for each example
    images = [e.image_spans[0] if e.image_spans else None for e in examples]
    arrays = {
        "tokens": _joined([[e.tokens for e in row] for row in rows], length, pad_id),
        "labels": _joined([_labels(row) for row in rows], length, IGNORE_INDEX),
        "segments": _joined([_numbers(row) for row in rows], length, 0),
        "positions": _joined([[np.arange(len(e.tokens)) for e in r] for r in rows], length, 0),
        "image_span": _spans(images, starts),
        "retrieved_span": _spans([e.retrieved_span for e in examples], starts),
        "answer_span": _spans([e.answer_span for e in examples], starts),
        "caption_tokens": _joined([[tokens] for tokens in captions], caption_length, pad_id),
        "caption_segments": _joined([[np.ones_like(t)] for t in captions], caption_length, 0),
        "caption_span": _spans([e.caption_span for e in examples], nowhere),
        "caption_answer_span": _spans([e.caption_answer_span for e in examples], nowhere),
        **tile_arrays(rows, length),
    }
    return {name: array.reshape(accumulate, -1, *array.shape[1:]) for name, array in arrays.items()}


def balanced_rows(lengths: Sequence[int], packing: int) -> list[int]:
    """Returns an order of samples in which every `packing` of them make a row of like length.

    The longest sample not yet placed goes to the shortest row that has room. Without packing the
    order stays as it is.
    """
    rows: list[list[int]] = [[] for _ in range(len(lengths) // packing)]
    for sample in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        open_rows = (row for row in rows if len(row) < packing)
        min(open_rows, key=lambda row: sum(lengths[i] for i in row)).append(sample)
    return [sample for row in sorted(sorted(row) for row in rows) for sample in row]


def _bucket(lengths: Sequence[int], names: Sequence[str], buckets: Sequence[int], key: str) -> int:
    longest = int(np.argmax(lengths))
    return pick_bucket(lengths[longest], buckets, name=names[longest], key=key)


def _joined(rows: Sequence[Sequence[np.ndarray]], length: int, fill: int) -> np.ndarray:
    """Returns int32[rows, length], the parts of a row one after the other."""
    out = np.full((len(rows), length), fill, np.int32)
    for target, parts in zip(out, rows, strict=True):
        row = np.concatenate(parts)
        target[: len(row)] = row
    return out


def _labels(row: Sequence[Example]) -> list[np.ndarray]:
    """A sample's first token is predicted by nothing, so not by the sample before it either."""
    labels = [np.array(example.labels) for example in row]
    for later in labels[1:]:
        later[:1] = IGNORE_INDEX
    return labels


def _numbers(row: Sequence[Example]) -> list[np.ndarray]:
    return [np.full(len(e.tokens), number) for number, e in enumerate(row, start=1)]


def _spans(spans: Sequence[tuple[int, int] | None], starts: Sequence[int]) -> np.ndarray:
    pairs = zip(spans, starts, strict=True)
    return np.array([(s[0] + at, s[1] + at) if s else (0, 0) for s, at in pairs], np.int32)
