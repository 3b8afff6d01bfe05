"""Replies of the judge "llava": another LLaVA than the run's, in this project's own inference."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from tga_jax.data.prompts import TooLong
from tga_jax.data.records import Question
from tga_jax.data.templates import without_marks
from tga_jax.errors import UserError
from tga_jax.evaluation.model_judges import Chat
from tga_jax.files import digest
from tga_jax.hf.checkpoint_digest import checkpoint_digest
from tga_jax.models.llava import Params
from tga_jax.parallel.mesh import host_mesh
from tga_jax.run.answerer import Answerer, greedy
from tga_jax.run.checks import check_model
from tga_jax.run.job import Job
from tga_jax.run.model import OpenModel, open_model, open_source
from tga_jax.run.prompts import make_prompter
from tga_jax.run.weights import Weights, load_params
from tga_jax.training.step import nested

KEY = "config.evaluate.llava_judge"


class LlavaReply:
    """Replies to chats of one message, with at most one image, by config.evaluate.llava_judge.

    Of several processes one alone may call it: it then runs on that process's devices.
    """

    def __init__(self, job: Job) -> None:
        """Opens no weights; they are loaded for the first reply.

        Raises:
            UserError: there is no such checkpoint, or a value has no meaning.
        """
        cfg = job.config.evaluate.llava_judge
        if not cfg.checkpoint:
            raise UserError(f"judge llava: set {KEY}.checkpoint to a LLaVA folder or hub id")
        for key in ("batch_size", "max_new_tokens", "max_length"):
            if cfg[key] < 1:
                raise UserError(f"{KEY}.{key}={cfg[key]} must be at least 1")
        self._job = dataclasses.replace(job, config=judge_config(job.config))
        try:
            check_model(self._job.config)
        except UserError as error:
            raise UserError(f"judge llava: {own_keys(str(error))}") from error

    @functools.cached_property
    def identity(self) -> str:
        """A hash of all that decides the replies but the prompts."""
        config = self._job.config
        folders = open_source(config.model).folders.values()
        cfg = config.evaluate.llava_judge
        decides = [cfg.template, cfg.max_new_tokens, cfg.max_length, config.dtype]
        return digest([checkpoint_digest(folders), *decides])

    def __call__(self, chats: Sequence[Chat]) -> list[str]:
        """The replies, in order, greedily decoded; "" to a chat that is too long for the model."""
        if not chats:
            return []
        model, params, answerer = self._loaded
        token = model.source.tokenizer.image_token
        questions = [question(chat, token, row) for row, chat in enumerate(chats)]
        fits = [row for row, asked in enumerate(questions) if self._fits(asked, chats[row])]
        if len(fits) < len(chats):
            self._job.say(
                f"judge llava: {len(chats) - len(fits)} of {len(chats)} answers are too long for "
                f"{KEY}.max_length and get no verdict"
            )
        rows = sorted(fits, key=lambda row: (bool(questions[row].image), len(questions[row].text)))
        texts = [""] * len(chats)
        with jax.set_mesh(model.mesh):
            for new in answerer.replies(
                questions, rows, params, image_dir=lambda row: image_path(chats[row]).parent
            ):
                for row, reply in new.items():
                    texts[row] = reply.text
        return texts

    @functools.cached_property
    def _model(self) -> OpenModel:
        return open_model(self._job, host_mesh(self._job.config.mesh))

    @functools.cached_property
    def _prompter(self) -> Any:
        return make_prompter(self._job.config, self._model.prompts)

    @functools.cached_property
    def _loaded(self) -> tuple[OpenModel, Params, Answerer]:
        model = self._model
        with jax.set_mesh(model.mesh):
            params = nested(load_params(self._job, model, Weights(None, 0, "")))
            answerer = Answerer(self._job.config, model, self._prompter, title="judge llava")
        return model, params, answerer

    def _fits(self, asked: Question, chat: Chat) -> bool:
        try:
            self._prompter.encode_question(asked, image_path(chat).parent)
        except TooLong:
            return False
        return True


def judge_config(config: ConfigDict) -> ConfigDict:
    """The configuration with config.evaluate.llava_judge's model, prompt and greedy decoding."""
    config = config.copy_and_resolve_references()
    cfg = config.evaluate.llava_judge
    with config.unlocked():
        config.generate.update(greedy(cfg))
        config.prompt.update(retrieved=False, template=cfg.template, system=None)
        config.model.update(checkpoint=cfg.checkpoint, quantize="")
        config.lora.rank = 0
        config.data.update(pad_to_square="auto", max_length=cfg.max_length, buckets=())
    return config.lock()


def own_keys(message: str) -> str:
    """An error of `judge_config`'s model with the keys that the user has set it by."""
    for name in ("model.checkpoint", "data.max_length", "prompt.template"):
        message = message.replace(f"config.{name}", f"{KEY}.{name.partition('.')[2]}")
    return message


def question(chat: Chat, image_token: str, row: int) -> Question:
    """A chat's one message as the prompter takes it, without marks that stand for an image."""
    text = "".join(part.get("text", "") for part in chat[0]["content"])
    text = without_marks(text).replace(image_token, "")
    path = image_path(chat)
    return Question(row, path.name or None, text)


def image_path(chat: Chat) -> Path:
    """Where a chat's image is; the empty path where it has none."""
    paths = [part["path"] for part in chat[0]["content"] if part["type"] == "image_path"]
    return Path(paths[0]).resolve() if paths else Path()


def read_policy(path: str) -> str:
    """The policy in a text file.

    Raises:
        UserError: it can't be read, or is empty.
    """
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise UserError(f"{KEY}.policy={path!r}: {reason}") from error
    if not text:
        raise UserError(f"{KEY}.policy={path!r}: the file is empty")
    return text
