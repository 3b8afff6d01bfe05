"""A model for a notebook: what the jobs ask of a checkpoint, on lists of (image, text).

`tga_jax.load` makes it. Nothing is written, and the code is that of the jobs: `generate` of job
`generate`, `refusal_margin` of `evaluate`, `hidden_states` of `analyze`, `score` of `score`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import difflib
import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from tga_jax.analysis.scores import Scorer
from tga_jax.analysis.states import jitted, last_states
from tga_jax.config import base_config
from tga_jax.data.records import Question, Record, Turn
from tga_jax.errors import UserError
from tga_jax.evaluation.profiles import apology_tokens
from tga_jax.files import flat
from tga_jax.parallel.mesh import mesh_of
from tga_jax.parallel.sharding import RULES, replicated
from tga_jax.run.answerer import Answerer, Reply
from tga_jax.run.guide import guide_config
from tga_jax.run.inference_batches import Batcher
from tga_jax.run.job import Job
from tga_jax.run.model import open_model
from tga_jax.run.prompts import make_prompter
from tga_jax.run.weights import Weights, load_params
from tga_jax.training.step import nested

Prompt = tuple[str | Path | Image.Image | None, str]
Folder = Callable[[int], Path]


@dataclasses.dataclass(frozen=True)
class Score:
    """How well a text fits an image, as a line of score/scores.jsonl says it.

    Attributes:
        nll: the negative log-likelihood of the text as an answer, summed over its tokens.
        tokens: how many these are.
        image_caption_cos: float32[layers], the cosine of the mean states of image and text; None
            where there is no image.
    """

    nll: float
    tokens: int
    image_caption_cos: np.ndarray | None


class LoadedModel:
    """A checkpoint with its parameters.

    A prompt is an (image, text): the image is the path of a file, an image of PIL, or None for a
    question without one.
    """

    def __init__(self, config: ConfigDict) -> None:
        """Opens config.model and loads its parameters.

        Raises:
            UserError: there is no such checkpoint, or a key has no such value.
        """
        job = Job(config, Path())
        self._config, self._mesh = config, mesh_of(config.mesh)
        with self._on_mesh():
            self._model = open_model(job, self._mesh)
            self._params = nested(load_params(job, self._model, Weights(None, 0, "")))
        self._prompter = make_prompter(config, self._model.prompts)
        self._batcher = Batcher.of(config.data, self._model)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers that the checkpoint carries."""
        return self._model.source.tokenizer.tokenizer

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
    ) -> list[str]:
        """Answers, in the order of the prompts.

        Args:
            prompts: what is asked.
            max_new_tokens: the longest answer.
            temperature: 0 for the likeliest token each time; else tokens are drawn.
            top_p: share of the probability that tokens are drawn from.

        Raises:
            UserError: an image cannot be read, a prompt is too long, or a number makes no sense.
        """
        replies = self._replies(prompts, (max_new_tokens, temperature, top_p))
        return [reply.text for reply in replies]

    def refusal_margin(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """How near the model is to an apology where its answer begins.

        The log-probability of the likeliest token that begins an apology, by
        config.evaluate.apologies, minus that of the likeliest other token: above 0 the greedy
        answer begins with an apology.

        Returns:
            float32[prompts].

        Raises:
            UserError: an image cannot be read, or a prompt is too long.
        """
        margins = [reply.margin for reply in self._replies(prompts, (1, 0.0, 1.0))]
        return np.array(margins, np.float32)

    def hidden_states(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """The states at the last position of each prompt, where the answer begins.

        Returns:
            float32[prompts, 1 + layers, width]: of the embeddings, then behind each layer, before
            the final norm.

        Raises:
            UserError: an image cannot be read, or a prompt is too long.
        """
        decoder = self._model.llava.config.decoder
        out = np.zeros((len(prompts), 1 + decoder.layers, decoder.width), np.float32)
        with self._on_mesh(), _asked(prompts) as (questions, folder):
            for batch in self._batcher.batches(
                _sorted(questions),
                lambda row: self._prompter.encode_question(questions[row], folder(row)),
                batch_size=self._config.generate.batch_size,
                image_dir=folder,
            ):
                states = self._last_states(self._params, batch.arrays).last
                new = np.asarray(states.swapaxes(0, 1).astype("float32"))
                out[batch.rows] = new[: len(batch.rows)]
        return out

    def score(
        self, pairs: Sequence[Prompt], *, question: str = "Describe this image."
    ) -> list[Score]:
        """How well each text fits its image, as its caption and as the answer to a question.

        Args:
            pairs: images and texts.
            question: what the texts are answers to.

        Raises:
            UserError: an image cannot be read, or a text is too long.
        """
        found: dict[int, Score] = {}
        with self._on_mesh(), _asked(pairs) as (texts, folder):
            records = [_record(text, question) for text in texts]
            scorer = Scorer(
                self._model.llava,
                guide_config(self._config, Path(), self._model.llava.config.decoder.layers),
                self._batcher,
                lambda row: self._prompter.encode(records[row], folder(row)),
                batch_size=self._config.score.batch_size,
                image_dir=folder,
            )
            for lines in scorer.score(_sorted(texts), len(texts), self._params):
                found |= {line["row"]: _score(line) for line in lines}
        return [found[row] for row in range(len(pairs))]

    def _replies(
        self, prompts: Sequence[Prompt], decoding: tuple[int, float, float]
    ) -> list[Reply]:
        found: dict[int, Reply] = {}
        with self._on_mesh(), _asked(prompts) as (questions, folder):
            answerer, rows = self._answerer(decoding), _sorted(questions)
            for new in answerer.replies(questions, rows, self._params, image_dir=folder):
                found |= new
        return [found[row] for row in range(len(prompts))]

    @functools.cache  # noqa: B019 - a notebook keeps its model anyway
    def _answerer(self, decoding: tuple[int, float, float]) -> Answerer:
        """The compiled program for (max_new_tokens, temperature, top_p)."""
        config = ConfigDict(self._config.to_dict())
        names = ("max_new_tokens", "temperature", "top_p")
        config.generate.update(dict(zip(names, decoding, strict=True)))
        apologies = apology_tokens(self.tokenizer, tuple(config.evaluate.apologies))
        return Answerer(config, self._model, self._prompter, apologies=apologies)

    @functools.cached_property
    def _last_states(self) -> Any:
        return jitted(last_states, self._model.llava, replicated(self._mesh))

    @contextlib.contextmanager
    def _on_mesh(self) -> Iterator[None]:
        with jax.set_mesh(self._mesh), nn.logical_axis_rules(RULES):
            yield


def load_model(checkpoint: str | Path, *, dtype: str, settings: Mapping[str, Any]) -> LoadedModel:
    """Open a checkpoint for `tga_jax.load`, whose arguments these are."""
    config = base_config()
    config.model.checkpoint, config.dtype, config.guide.form = str(checkpoint), dtype, "none"
    config.prompt.date = datetime.date.today().isoformat()
    config.lock()
    for key, value in settings.items():
        try:
            config.update_from_flattened_dict({key: value})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"tga_jax.load, settings[{key!r}]: {_wrong(key, error)}") from error
    return LoadedModel(config)


def _wrong(key: str, error: Exception) -> str:
    """What is wrong with a setting: its key, with the one that may be meant, or its value."""
    known = [*flat(base_config().to_dict())]
    if key in known:
        return str(error)
    meant = difflib.get_close_matches(key.removeprefix("config."), known, 1)
    hint = f"; did you mean {meant[0]!r}?" if meant else ""
    return f"there is no such configuration key{hint} (docs/config.md has all keys)"


@contextlib.contextmanager
def _asked(prompts: Sequence[Prompt]) -> Iterator[tuple[list[Question], Folder]]:
    """The prompts as questions with their image folders; images of PIL are files meanwhile."""
    with tempfile.TemporaryDirectory() as kept:
        _check_prompts(prompts)
        files: list[Path | None] = []
        for number, (image, _) in enumerate(prompts):
            if isinstance(image, Image.Image):
                path = Path(kept) / f"{number}.png"
                image.save(path)
                files.append(path)
            else:
                files.append(None if image is None else Path(image).expanduser().resolve())
        questions = [
            Question(number, None if file is None else file.name, text)
            for number, (file, (_, text)) in enumerate(zip(files, prompts, strict=True))
        ]
        yield questions, lambda row: (files[row] or Path()).parent


def _check_prompts(prompts: Sequence[Any]) -> None:
    """Refuse a prompt that is no (image, text), with the form that it should have."""
    for number, prompt in enumerate([prompts] if isinstance(prompts, str) else prompts):
        pair = prompt if isinstance(prompt, tuple | list) and len(prompt) == 2 else (0, None)
        image, text = pair
        if not isinstance(text, str) or not isinstance(image, str | Path | Image.Image | None):
            raise UserError(
                f"prompt number {number}, {prompt!r:.60}, is no (image, text): write a list like "
                '[("photo.jpg", "What is this?"), (None, "a question without an image")]'
            )


def _sorted(questions: Sequence[Question]) -> list[int]:
    """Their numbers, those of like length and without an image next to each other."""
    return sorted(
        range(len(questions)),
        key=lambda i: (questions[i].image is not None, len(questions[i].text)),
    )


def _record(text: Question, question: str) -> Record:
    """A text as the answer to a question, and as the caption of its image."""
    images = () if text.image is None else (text.image,)
    return Record(
        id=str(text.id),
        images=images,
        turns=(Turn(question, text.text),),
        caption=text.text if images else None,
        retrieved=None,
        tox=False,
    )


def _score(line: Mapping[str, Any]) -> Score:
    cosines = line["image_caption_cos"]
    return Score(
        line["nll"], line["tokens"], None if cosines is None else np.array(cosines, np.float32)
    )
