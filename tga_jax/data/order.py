"""Which samples form the batch of each step of a run."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from tga_jax.data.lazy_records import Known
from tga_jax.data.mixture import Part

# Samples are sorted by length among this many batches: enough that a batch holds like lengths,
# few enough that the order stays random.
BATCHES_SORTED_TOGETHER = 50


def plan_order(
    known: Known,
    *,
    batch_size: int,
    steps: int,
    seed: int,
    parts: Sequence[Part] = (),
) -> np.ndarray:
    """Returns int64[steps, batch_size], the samples of each step: a pure function of its arguments.

    Batches are grouped by modality and length, as LLaVA's group_by_modality_length does; samples
    without an answer, which are shorter, are spread evenly over those batches. In each
    epoch every sample is used exactly once: what doesn't fill a batch at an epoch's end is filled
    up with the first samples of the next epoch, which then are not used a second time in it (that
    one batch of an epoch may hold a sample twice, as its last and as its first use). So
    the uses of any two samples differ by at most one after any number of steps, and not at all
    after whole epochs. More steps only add rows at the end.

    Args:
        known: of the samples; only steers the grouping.
        batch_size: samples a step, which may be more than there are.
        steps: how many batches.
        seed: a number >= 0.
        parts: of a mixture, in the samples' order: then a set's samples are drawn in epochs of
            their own, as often as its weight says, and grouped with those of the other sets.
    """
    chunks = _mixed_chunks(parts, batch_size, seed) if parts else _epochs(len(known.lengths), seed)
    batches = _endless_batches(chunks, known, batch_size)
    order = np.empty((steps, batch_size), np.int64)
    for step in range(steps):
        order[step] = next(batches)
    return order


def _endless_batches(
    chunks: Iterator[tuple[np.random.Generator, np.ndarray]],
    known: Known,
    batch_size: int,
) -> Iterator[np.ndarray]:
    carried = np.empty(0, np.int64)
    for rng, fresh in chunks:
        if len(carried):
            missing = batch_size - len(carried)
            carried, fresh = np.concatenate([carried, fresh[:missing]]), fresh[missing:]
            if len(carried) == batch_size:
                yield carried
                carried = np.empty(0, np.int64)
        batches, rest = _grouped(fresh, known, batch_size)
        yield from (batches[i] for i in rng.permutation(len(batches)))
        # Only one of the two can hold samples: nothing is fresh until the carried batch is full.
        carried = np.concatenate([carried, rest])
        if len(carried) >= batch_size:
            yield carried[:batch_size]
            carried = carried[batch_size:]


def _epochs(count: int, seed: int) -> Iterator[tuple[np.random.Generator, np.ndarray]]:
    """All samples in a new order, again and again, with the generator that made the order."""
    for epoch in itertools.count():
        rng = np.random.default_rng([seed, epoch])
        yield rng, rng.permutation(count)


def _mixed_chunks(
    parts: Sequence[Part], batch_size: int, seed: int
) -> Iterator[tuple[np.random.Generator, np.ndarray]]:
    """Samples of several sets by weight, each set in epochs of its own.

    After every chunk the samples drawn from a set differ from its share by less than the number of
    sets.
    """
    size = batch_size * BATCHES_SORTED_TOGETHER
    starts = np.cumsum([0, *(part.size for part in parts)])
    shares = np.array([part.weight for part in parts]) / sum(part.weight for part in parts)
    streams = [_endless_samples(part.size, [seed, 1 + i]) for i, part in enumerate(parts)]
    drawn = np.zeros(len(parts), np.int64)
    for chunk in itertools.count(1):
        wanted = _next_draws(drawn, shares, size)
        drawn += wanted
        taken = [
            start + np.fromiter(itertools.islice(stream, int(n)), np.int64, int(n))
            for start, stream, n in zip(starts, streams, wanted, strict=False)
        ]
        rng = np.random.default_rng([seed, 0, chunk])
        yield rng, rng.permutation(np.concatenate(taken))


def _next_draws(drawn: np.ndarray, shares: np.ndarray, count: int) -> np.ndarray:
    """How many of the next `count` draws each set gets: int64[sets].

    Draw j of a set is due at (j + 1/2) / share, and the draws that are due first are made first.
    """
    most = np.ceil(shares * (count + len(shares))).astype(np.int64) + 2
    sets = np.repeat(np.arange(len(shares)), most)
    due = np.concatenate([(d + np.arange(m) + 0.5) for d, m in zip(drawn, most, strict=True)])
    first = np.argsort(due / shares[sets], kind="stable")[:count]
    return np.bincount(sets[first], minlength=len(shares))


def _endless_samples(count: int, seed: list[int]) -> Iterator[int]:
    for epoch in itertools.count():
        yield from np.random.default_rng([*seed, epoch]).permutation(count).tolist()


def _grouped(
    fresh: np.ndarray, known: Known, batch_size: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns full batches of one modality and like lengths, and the samples left over."""
    batches: list[np.ndarray] = []
    rest: list[np.ndarray] = []
    group_size = batch_size * BATCHES_SORTED_TOGETHER
    for wanted in (True, False):
        samples = fresh[(known.images[fresh] > 0) == wanted]
        full = len(samples) - len(samples) % batch_size
        rest.append(samples[full:])
        for start in range(0, full, group_size):
            group = samples[start : min(start + group_size, full)]
            batches.extend(_longest_first(group, known).reshape(-1, batch_size))
    return batches, np.concatenate(rest)


def _longest_first(group: np.ndarray, known: Known) -> np.ndarray:
    """The group by length; samples without an answer among the others by their share.

    Those are shorter, so by length alone they would fill batches of their own, in which nothing
    is learnt from answers. Where they are of one kind, as harmful images, centring would
    also subtract from their states what they have in common.
    """
    places = np.empty(len(group))
    for wanted in (True, False):
        same = np.flatnonzero(known.answered[group] == wanted)
        same = same[np.argsort(-known.lengths[group][same], kind="stable")]
        places[same] = (np.arange(len(same)) + 0.5) / max(1, len(same))
    return group[np.argsort(places, kind="stable")]
