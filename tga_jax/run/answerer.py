"""Greedy or sampled answers to questions about images, many at a time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from tga_jax.data.example import Example
from tga_jax.data.images import check_header
from tga_jax.data.prompts import Prompter
from tga_jax.data.records import Question
from tga_jax.errors import UserError
from tga_jax.files import digest
from tga_jax.hf.tokenizer import with_end_text
from tga_jax.inference.generate import Decoding
from tga_jax.inference.prompt_states import prompt_spans
from tga_jax.inference.refill import Answered, Group, Refill, Watch
from tga_jax.models.llava import Params
from tga_jax.models.tiling import images_of
from tga_jax.parallel.sharding import batch_shards, replicated
from tga_jax.run.inference_batches import Batcher, InferenceBatch
from tga_jax.run.model import OpenModel
from tga_jax.run.prompts import answered_buckets, prompt_buckets
from tga_jax.training.metrics import Progress

# A batch is refilled when a quarter of it is free: a row waits little, and a prefill is not tiny.
GROUPS = 4
DECODING = ("max_new_tokens", "temperature", "top_p")  # keys of config.generate, of every answer


@dataclasses.dataclass(frozen=True)
class Reply:
    """A model's answer to a question.

    Attributes:
        text: what the model said.
        margin: its refusal margin, where apology tokens were given.
        truncated: whether the answer ended at config.generate.max_new_tokens and not by itself;
            None where that was not recorded.
        seconds: this answer's share of the time on the devices; None: not recorded.
        cold: whether some of that time went into compiling a program.
    """

    text: str
    margin: float | None
    truncated: bool | None = None
    seconds: float | None = dataclasses.field(default=None, compare=False)
    cold: bool = dataclasses.field(default=False, compare=False)


class Answerer:
    """Answers questions, with the same compiled programs for all calls."""

    def __init__(
        self,
        config: ConfigDict,
        model: OpenModel,
        prompter: Prompter,
        *,
        title: str = "generate",
        apologies: tuple[int, ...] = (),
    ) -> None:
        """Takes the decoding of config.generate.

        Args:
            config: the whole configuration.
            model: answers.
            prompter: turns questions into tokens.
            title: names the lines of progress.
            apologies: token ids whose margin is wanted.
        """
        self._prompter, self._title = prompter, title
        self._key = jax.random.key(config.seed)
        self._batcher = dataclasses.replace(
            Batcher.of(config.data, model), buckets=answered_buckets(config.data)
        )
        self._tokenizer = model.source.tokenizer.tokenizer
        cfg = config.generate
        check_decoding(cfg)
        self._group = self._batcher.rounded(max(1, cfg.batch_size // GROUPS))
        tokenizer = with_end_text(model.source.tokenizer, prompter.end_text)
        self.decoding = Decoding(
            max_new_tokens=cfg.max_new_tokens,
            eos_ids=tokenizer.eos_ids,
            pad_id=tokenizer.pad_id,
            temperature=cfg.temperature,
            top_p=cfg.top_p,
        )
        self._has_margin, self._spans = bool(apologies), jax.jit(prompt_spans)
        self._refill = Refill(
            model.llava,
            self.decoding,
            rows=self._batcher.rounded(cfg.batch_size),
            group=self._group,
            lengths=prompt_buckets(config.data),
            ways=batch_shards(model.mesh),
            apologies=apologies,
            out_sharding=replicated(model.mesh),
        )

    def check(
        self,
        questions: Sequence[Question],
        rows: Sequence[int],
        *,
        image_dir: Callable[[int], Path],
    ) -> None:
        """Refuse questions of these rows that are too long, and images that are none, at once.

        The longest ones are asked last, which may be hours later.
        """
        known: set[tuple[Path, str]] = set()
        for row in rows:
            example, folder = self._encode(questions[row], row, image_dir), image_dir(row)
            for name in example.images:
                if (folder, name) not in known:
                    known.add((folder, name))
                    check_header(
                        folder,
                        name,
                        check_size=self._batcher.transform.check_size,
                        record_id=example.id,
                    )

    def replies(
        self,
        questions: Sequence[Question],
        rows: Sequence[int],
        params: Params,
        *,
        image_dir: Callable[[int], Path],
        shift: np.ndarray | None = None,
        watch: Watch | None = None,
    ) -> Iterator[dict[int, Reply]]:
        """Yields {row: reply}, as answers end.

        Args:
            questions: all of them.
            rows: the numbers of those to answer, best sorted by length.
            params: nested parameters.
            image_dir: row -> its image folder; asked only where it has an image.
            shift: float32[L, D], added to the layers' outputs; None: nothing is.
            watch: is given the states of the prompts, with the numbers of their questions.
        """
        progress, done = Progress(self._title, len(rows)), 0

        def encode(row: int) -> Example:
            return self._encode(questions[row], row, image_dir)

        batches = self._batcher.alike(rows, encode, batch_size=self._group, image_dir=image_dir)
        groups = (self._prompts(batch, states=watch is not None) for batch in batches)
        for new in self._refill.answers(params, groups, shift, watch):
            done += len(new)
            progress.show(done)
            yield {answered.name: self._reply(answered) for answered in new}

    def _encode(self, question: Question, row: int, image_dir: Callable[[int], Path]) -> Example:
        folder = image_dir(row) if question.image else Path()
        return self._prompter.encode_question(question, folder)

    def _prompts(self, batch: InferenceBatch, *, states: bool) -> Group:
        """A batch with a key for each row by its number, whatever is asked with it."""
        tokens, segments = batch.arrays["tokens"], batch.arrays["segments"]
        numbers = np.array(batch.rows + [0] * (len(tokens) - len(batch.rows)))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(self._key, numbers)
        pool = self._spans(batch.arrays) if states else None
        return Group(batch.rows, tokens, segments, images_of(batch.arrays), keys, pool)

    def _reply(self, answered: Answered) -> Reply:
        tokens, end = answered.tokens, self._prompter.end_text.strip()
        ended = bool(np.isin(tokens, self.decoding.eos_ids).any())
        ended |= bool(end) and end in self._decoded(tokens)
        margin = answered.margin if self._has_margin else None
        seconds = round(answered.seconds, 6)
        return Reply(self.text(tokens), margin, not ended, seconds, answered.cold)

    def text(self, tokens: np.ndarray) -> str:
        """New tokens int32[N] -> the answer, up to its end."""
        ends = np.flatnonzero(np.isin(tokens, self.decoding.eos_ids))
        tokens = tokens[: ends[0]] if len(ends) else tokens
        text, end = self._decoded(tokens), self._prompter.end_text.strip()
        return (text.split(end)[0] if end else text).strip()

    def _decoded(self, tokens: np.ndarray) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))


def greedy(cfg: ConfigDict) -> dict[str, Any]:
    """Values of config.generate for greedy answers of another model, by that model's own keys."""
    return {
        "max_new_tokens": cfg.max_new_tokens,
        "batch_size": cfg.batch_size,
        "temperature": 0.0,
        "top_p": 1.0,
    }


def check_decoding(cfg: ConfigDict) -> None:
    """Refuse values of config.generate that decoding has no meaning for."""
    limits = {
        "max_new_tokens": (1, math.inf),
        "batch_size": (1, math.inf),
        "temperature": (0, math.inf),
        "top_p": (0, 1),
    }
    for key, (low, high) in limits.items():
        if not low <= cfg[key] <= high:
            raise UserError(f"config.generate.{key}={cfg[key]} must lie in {low}..{high}")


def answer_line(
    question: Question, text: str, model_id: str, *, retrieved: bool, repeat: int = 0
) -> dict[str, Any]:
    """A line of LLaVA's answer files.

    Args:
        question: what was asked.
        text: the answer.
        model_id: who answered.
        retrieved: whether prompts hold retrieved texts; the question's own is then told, too.
        repeat: how many questions before it have its id, so that no two answers share theirs.
    """
    told = {"retrieved": question.retrieved} if retrieved and question.retrieved else {}
    return {
        "question_id": question.id,
        "prompt": question.text,
        "text": text,
        "answer_id": digest([model_id, question.id, *[repeat] * bool(repeat)]),
        "model_id": model_id,
        "metadata": told,
    }
