"""Records -> token arrays: ids, labels, and the token spans that the objective pools over.

A template renders a record to text (`templates.py`), `tokenise.py` makes tokens of it; here is
decided what goes into the prompt, what is learnt, and what is left out when it is too long.
"""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.data.chat_template import ChatTemplate
from tga_jax.data.example import Example
from tga_jax.data.records import Question, Record, Turn
from tga_jax.data.templates import (
    IMAGE_MARK,
    Message,
    Rendered,
    Span,
    Template,
    caption_prompt,
    count_marks,
    first_answer_images,
    make_template,
    retrieved_text,
    without_marks,
)
from tga_jax.data.tiles import ImageLayouts
from tga_jax.data.tokenise import Tokenise, TokenPrompt, image_problem, most_tokens
from tga_jax.errors import UserError
from tga_jax.labels import IGNORE_INDEX
from tga_jax.models.tiling import Layout

NOWHERE = Path()  # the image folder where none is read


class TooLong(UserError):
    """A sample whose first answer begins beyond `max_length`: it could give no loss."""


class Prompter:
    """Turns records and questions into `Example`s with one tokenizer and one template."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: str,
        image_token: str,
        image_tokens: int,
        layouts: ImageLayouts | None = None,
        max_length: int,
        max_caption_length: int = 0,
        use_retrieved: bool,
        system: str | None = None,
        date: datetime.date | None = None,
        training: bool = False,
        answer_states: bool = False,
    ):
        """Prepares the template.

        Args:
            tokenizer: any fast transformers tokenizer that knows `image_token`.
            template: one of `templates.TEMPLATE_NAMES`.
            image_token: the token that stands for an image.
            image_tokens: tokens per image.
            layouts: of images in tiles, which take as many tokens as their sizes say instead.
            max_length: the longest prompt in tokens; samples are truncated as `encode` says.
            max_caption_length: at which a caption pass is cut; 0: as `max_length`.
            use_retrieved: whether a record's retrieved text goes into the prompt.
            system: replaces the template's system text; "" leaves it out.
            date: what a chat template that writes today's date writes.
            training: whether what is encoded is to be learnt; see `closing`.
            answer_states: whether examples tell where the first answer begins, in both passes.

        Raises:
            UserError: when tokenizer and template don't go together.
        """
        self._tokenise = Tokenise(tokenizer, image_token=image_token, image_tokens=image_tokens)
        self._template = (
            ChatTemplate(tokenizer, system=system, date=date, training=training)
            if template == "tokenizer"
            else _named(tokenizer, template, system=system)
        )
        self._layouts = layouts
        self._use_retrieved = use_retrieved and self._template.asks
        self._answer_states = answer_states and self._template.asks
        self.max_length = max_length
        self.max_caption_length = max_caption_length or max_length

    @property
    def end_text(self) -> str:
        """What ends an answer, as text; generation may stop there."""
        return self._template.end_text

    @property
    def closing(self) -> str:
        """The end token that is put behind answers for training, where the tokenizer's chat
        template puts none there; "" where the template needs no help."""
        return self._template.closing

    def encode(self, record: Record, image_dir: Path = NOWHERE) -> Example:
        """Encodes a sample with its answers, for training, scoring and inspection.

        Of a model that takes images in tiles, the images' sizes are read from `image_dir`, where
        the record does not bring them along.

        A sample over `max_length` loses whole turns from its end. If that is not enough, the
        first answer loses its tail; questions and images are never truncated. Of a captioned
        image without an answer (`Record.guide_only`) nothing is labelled.

        Raises:
            TooLong: when no token of an answer fits.
            UserError: when there is nothing to learn, naming the record.
        """
        messages = self._template.arrange(count_marks(record))
        whole = self._prompt(record, messages, self._layouts_of(record, image_dir))
        if record.guide_only:
            return self._unanswered(record, messages, whole)
        if not whole.has_labels:
            raise UserError(f"record {record.id}: it has no answer, so there is nothing to learn")
        kept, prompt = self._fit(record, messages, whole)
        lost = len(whole.tokens) - len(prompt.tokens)
        return self._example(
            record,
            messages[:kept],
            prompt=prompt,
            truncated_tokens=lost,
            decides=_before_labels(prompt.labels),
        )

    def _unanswered(
        self, record: Record, messages: Sequence[Message], prompt: TokenPrompt
    ) -> Example:
        length = len(prompt.tokens)
        if length > self.max_length:
            raise self._too_long(record, length)
        return self._example(
            record, messages, prompt=prompt, truncated_tokens=0, decides=(length - 1, length)
        )

    def check(self, record: Record, image_dir: Path = NOWHERE) -> tuple[int, int]:
        """Returns how many tokens of a sample and of its caption pass do not fit `max_length`.

        A sample is tokenised only where its text alone leaves a doubt, so that this is quick.

        Raises:
            TooLong, UserError: as `encode` does.
        """
        messages = self._template.arrange(count_marks(record))
        rendered = self._render(record, messages)
        if not self._layouts and self._surely_fits(rendered, messages, record.caption or ""):
            return 0, 0
        example = self.encode(record, image_dir)
        return example.truncated_tokens, example.truncated_caption_tokens

    def _surely_fits(self, rendered: Rendered, messages: Sequence[Message], caption: str) -> bool:
        """Whether the texts show that encoding raises nothing and truncates nothing."""
        text, images = rendered.text, sum(message.images for message in messages)
        answers = (text[slice(*span)] for span in rendered.answer_spans)
        token = self._tokenise.image_token
        return (
            any(char.isalnum() for answer in answers for char in answer)
            and text.count(IMAGE_MARK) == images
            and (token == IMAGE_MARK or token not in text)
            and (not images or self._tokenise.always_reads_image_token)
            and most_tokens(text) + images * self._tokenise.image_tokens <= self.max_length
            and most_tokens(text) + most_tokens(caption) <= self.max_caption_length
        )

    def encode_question(self, question: Question, image_dir: Path = NOWHERE) -> Example:
        """Encodes a prompt that ends where the answer begins; no labels. See `encode`.

        Raises:
            UserError: when it is longer than `max_length`: a question is never truncated.
        """
        record = Record(
            id=str(question.id),
            images=() if question.image is None else (question.image,),
            turns=(Turn(question.text, None),),
            caption=question.caption,
            retrieved=question.retrieved,
            tox=False,
        )
        messages = self._template.arrange(count_marks(record))
        prompt = self._prompt(record, messages, self._layouts_of(record, image_dir))
        if len(prompt.tokens) > self.max_length:
            raise self._too_long(record, len(prompt.tokens))
        if not len(prompt.tokens):
            raise UserError(f"question {record.id}: its prompt is empty with this template")
        return self._example(record, messages, prompt=prompt, truncated_tokens=0)

    def _render(self, record: Record, messages: Sequence[Message]) -> Rendered:
        retrieved = retrieved_text(record) if self._use_retrieved else None
        return self._template.render(messages, retrieved=retrieved)

    def _layouts_of(self, record: Record, image_dir: Path) -> tuple[Layout, ...]:
        return self._layouts.of(record, image_dir) if self._layouts else ()

    def _prompt(
        self, record: Record, messages: Sequence[Message], layouts: tuple[Layout, ...]
    ) -> TokenPrompt:
        rendered = self._render(record, messages)
        prompt = self._tokenise(rendered, layouts)
        images, written = sum(m.images for m in messages), rendered.text.count(IMAGE_MARK)
        if len(prompt.image_spans) != images:
            problem = image_problem(images, written, found=len(prompt.image_spans))
            raise UserError(f"record {record.id}: {problem}")
        return prompt

    def _fit(
        self, record: Record, messages: Sequence[Message], whole: TokenPrompt
    ) -> tuple[int, TokenPrompt]:
        """Returns how many turns fit, and their prompt."""
        kept, prompt = len(messages), whole
        while len(prompt.tokens) > self.max_length and kept > 1:
            kept -= 1
            prompt = self._prompt(record, messages[:kept], whole.layouts)
        if len(prompt.tokens) <= self.max_length and prompt.has_labels:
            return kept, prompt
        # Not even the first turn with an answer fits: that answer loses its end.
        kept = 1 + next(i for i, message in enumerate(messages) if (message.answer or "").strip())
        prompt = self._prompt(record, messages[:kept], whole.layouts).truncate(self.max_length)
        if not prompt.has_labels:
            raise self._too_long(record, len(whole.tokens))
        return kept, prompt

    def _too_long(self, record: Record, length: int) -> UserError:
        return TooLong(
            f"record {record.id}: its {length} tokens leave no room for an answer within "
            f"{self.max_length} (max_length, and the largest of config.data.buckets); raise these "
            "or shorten the record"
        )

    def _example(
        self,
        record: Record,
        messages: Sequence[Message],
        *,
        prompt: TokenPrompt,
        truncated_tokens: int,
        decides: Span | None = None,
    ) -> Example:
        """`decides` is the token before the first answer, None in a question's prompt."""
        images = record.images[: len(prompt.image_spans)]
        caption_tokens, caption_span, caption_lost = np.zeros(0, np.int32), None, 0
        answer_span = caption_answer_span = None
        if record.caption is not None and images and not record.tox:
            if self._answer_states and first_answer_images(record) == 1:
                answer_span = decides
            caption_tokens, caption_span, caption_lost = self._caption_pass(
                messages, caption=record.caption, question=answer_span is not None
            )
            if caption_span and answer_span and not caption_lost:
                caption_answer_span = len(caption_tokens) - 1, len(caption_tokens)
        return Example(
            id=record.id,
            tokens=prompt.tokens,
            labels=prompt.labels,
            image_spans=prompt.image_spans,
            retrieved_span=prompt.retrieved_span,
            caption_tokens=caption_tokens,
            caption_span=caption_span,
            images=images,
            tox=record.tox,
            truncated_tokens=truncated_tokens,
            truncated_caption_tokens=caption_lost,
            contents=record.contents[: len(images)],
            answer_span=answer_span,
            caption_answer_span=caption_answer_span,
            layouts=prompt.layouts,
        )

    def _caption_pass(
        self, messages: Sequence[Message], *, caption: str, question: bool
    ) -> tuple[np.ndarray, Span | None, int]:
        """Returns int32[Tc] without the tail that is too long, the caption's span, and how many
        tokens that tail has."""
        text = without_marks(caption)
        if not text.strip():
            return np.zeros(0, np.int32), None, 0
        rendered = caption_prompt(self._template, messages, caption=text, question=question)
        whole_prompt = self._tokenise(rendered)
        prompt = whole_prompt.truncate(self.max_caption_length)
        lost = len(whole_prompt.tokens) - len(prompt.tokens)
        (places,) = np.nonzero(prompt.labels != IGNORE_INDEX)
        if not len(places):
            return np.zeros(0, np.int32), None, lost
        return prompt.tokens, (int(places[0]), int(places[-1]) + 1), lost


def _before_labels(labels: np.ndarray) -> Span | None:
    """The place of the last token before the first that is learnt."""
    places = np.flatnonzero(labels != IGNORE_INDEX)
    return (int(places[0]) - 1, int(places[0])) if len(places) and places[0] else None


def _named(tokenizer: Any, name: str, *, system: str | None) -> Template:
    eos = tokenizer.eos_token
    if not eos and name not in ("plain", "chatml", "chatml_qwen"):
        raise UserError(f"prompt template {name!r} needs an end token, but the tokenizer has none")
    return make_template(name, bos=tokenizer.bos_token or "", eos=eos or "", system=system)
