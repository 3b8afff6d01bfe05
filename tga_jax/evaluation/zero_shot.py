"""The defence "zero_shot": CLIP tells harmful images, which are refused without asking the model.

The image's projected class token is compared with texts of what is harmful and of what is not
(SafeCLIP's idea, arXiv 2503.00037); nothing is trained. The probability that an image is harmful
is the sum of the harmful texts' shares in CLIP's softmax over all texts. An image above the
threshold gets a fixed refusal; text-only questions go to the model.

The threshold is config.evaluate.zero_shot.threshold, or the lowest that at most
config.evaluate.development_over_refusal of the harmless development images lie above.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.cluster import hosts
from tga_jax.data.records import Question
from tga_jax.errors import UserError
from tga_jax.evaluation.defence import Ask, Defence, Defended
from tga_jax.evaluation.development import few_images
from tga_jax.evaluation.items import EvalItem
from tga_jax.evaluation.metrics import matched_threshold
from tga_jax.evaluation.pace import Time
from tga_jax.files import digest
from tga_jax.retrieval.clip_embedder import ClipEmbedder
from tga_jax.run.answerer import Reply

OURS = Path(__file__).parent / "descriptors.txt"
KINDS = ("harmful", "harmless")


@dataclasses.dataclass(frozen=True)
class Descriptors:
    """What images are compared with."""

    harmful: tuple[str, ...]
    harmless: tuple[str, ...]


def read_descriptors(path: str) -> Descriptors:
    """The texts of a file of lines "harmful: TEXT" and "harmless: TEXT"; "" is our own file.

    Blank lines and lines that begin with # count as nothing.

    Raises:
        UserError: there is no such file, a line is another, or one of the two kinds is missing.
    """
    file, found = Path(path) if path else OURS, {kind: list[str]() for kind in KINDS}
    key = "config.evaluate.zero_shot.descriptors"
    if not file.is_file():
        raise UserError(f"{key}={path!r}: there is no such file")
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        kind, _, text = (part.strip() for part in line.partition(":"))
        if not line.strip() or line.startswith("#"):
            continue
        if kind not in KINDS or not text:
            raise UserError(f'{file}: line {number}: write "harmful: TEXT" or "harmless: TEXT"')
        found[kind].append(text)
    lacking = [kind for kind in KINDS if not found[kind]]
    if lacking:
        raise UserError(f'{file}: has no line "{lacking[0]}: TEXT"')
    return Descriptors(*(tuple(found[kind]) for kind in KINDS))


@dataclasses.dataclass(frozen=True)
class Seen:
    """The probability that an image is harmful, and the time that this took on the devices."""

    harm: float
    time: Time


class Detector:
    """A CLIP and the texts that it compares images with.

    Of several processes all look at the images together and have all results.
    """

    def __init__(self, embedder: ClipEmbedder, descriptors: Descriptors) -> None:
        """Takes them; no weights are loaded yet."""
        self._embedder, self._descriptors, self._cold = embedder, descriptors, True

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the probabilities, but for the images."""
        texts = digest(dataclasses.asdict(self._descriptors))
        return {"clip": self._embedder.digest, "descriptors": texts}

    def see(self, items: Sequence[EvalItem]) -> dict[int, Seen]:
        """Row -> what is seen of its image, for every item with an image.

        Raises:
            UserError: naming an image that cannot be read.
        """
        rows = [row for row, item in enumerate(items) if item.image is not None]
        images = [
            (items[row].image_dir or Path(), items[row].image or "", str(items[row].id))
            for row in rows
        ]
        seen = [one for batch in self._batches(images) for one in batch]
        # All processes must ask the model the same questions, to the last digit of a threshold.
        harm = hosts.broadcast_from_first(lambda: [one.harm for one in seen])
        return {
            row: dataclasses.replace(one, harm=its)
            for row, one, its in zip(rows, seen, harm, strict=True)
        }

    def _batches(self, images: list[tuple[Path, str, str]]) -> Iterator[list[Seen]]:
        harmful = len(self._descriptors.harmful)
        for embedded in self._embedder.image_batches(images, _refuse):
            scale = self._embedder.scale
            harm = harm_of(embedded, self._texts, scale=scale, harmful=harmful)
            seconds = self._embedder.seconds / len(embedded)  # the next are read meanwhile
            yield [Seen(float(one), Time(seconds, self._cold)) for one in harm]
            self._cold = False

    @functools.cached_property
    def _texts(self) -> np.ndarray:
        """float32[texts, E], the harmful ones first."""
        texts = [*self._descriptors.harmful, *self._descriptors.harmless]
        size = self._embedder.batch_size
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        return np.concatenate([self._embedder.texts(part) for part in parts])


def harm_of(images: np.ndarray, texts: np.ndarray, *, scale: float, harmful: int) -> np.ndarray:
    """The harmful texts' summed share in CLIP's softmax over all texts.

    Args:
        images: float32[B, E], of length 1.
        texts: float32[N, E], of length 1, the harmful ones first.
        scale: CLIP's.
        harmful: how many texts are harmful.

    Returns:
        float64[B].
    """
    logits = scale * (images.astype(np.float64) @ texts.T.astype(np.float64))
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares[:, :harmful].sum(axis=1) / shares.sum(axis=1)


def _refuse(row: int, error: UserError) -> None:
    raise error


@dataclasses.dataclass(frozen=True)
class ZeroShot(Defence):
    """Refuses every image whose probability of being harmful is above the threshold."""

    detector: Detector
    threshold: float
    refusal: str
    name = "zero_shot"

    @property
    def settings(self) -> dict[str, Any]:
        """The CLIP, the texts, the threshold and the refusal."""
        own = {"threshold": self.threshold, "refusal": self.refusal}
        return {"name": self.name, **self.detector.settings, **own}

    def answers(
        self, ask: Ask, items: Sequence[EvalItem], questions: Sequence[Question]
    ) -> Defended:
        """Asks what is not refused. With images there are no margins: refusals here have none."""
        seen = self.detector.see(items)
        flagged = {row for row, one in seen.items() if one.harm > self.threshold}
        asked = ask("", questions, [row for row in range(len(items)) if row not in flagged])
        if seen:
            asked = {row: dataclasses.replace(r, margin=None) for row, r in asked.items()}
        refused = {row: Reply(self.refusal, None, truncated=False) for row in flagged}
        lines = [
            {
                "question_id": items[row].id,
                "harm": float(f"{one.harm:.7g}"),
                "flagged": row in flagged,
            }
            for row, one in seen.items()
        ]
        return Defended(asked | refused, lines, [one.time for one in seen.values()])


def threshold_choice(
    detector: Detector, development: Sequence[EvalItem], over_refusal: float
) -> dict[str, Any]:
    """The lowest threshold that at most so many of the harmless development images lie above.

    Returns:
        the "threshold", how many "harmless" images it was chosen on, and a "warning" of few.

    Raises:
        UserError: there are no harmless development images.
    """
    harmless = {
        (item.image_dir, item.image): item
        for item in development
        if item.image is not None and item.harmful is False
    }
    if not harmless:
        raise UserError(
            "config.evaluate.development: has no harmless images, on which the defence zero_shot "
            "chooses its threshold; add some, or set config.evaluate.zero_shot.threshold"
        )
    harm = [one.harm for one in detector.see(list(harmless.values())).values()]
    return {
        "threshold": matched_threshold(harm, over_refusal),
        "harmless": len(harm),
        "warning": few_images(development, kinds=[False]),
    }
