"""The template "tokenizer": the chat template that a tokenizer carries, with character spans.

A chat template is a program of unknown content, so nothing about its strings is assumed. Where
an answer starts is found by rendering the conversation up to it, and checked.
"""

import datetime
from collections.abc import Sequence
from typing import Any

from tga_jax.data.templates import Message, Rendered, Span, question_text
from tga_jax.errors import UserError
from tga_jax.hf.own_template import LABEL, OwnTemplate, Said


class ChatTemplate:
    """Renders messages with a tokenizer's own chat template; see `templates.Template`.

    Attributes:
        closing: the tokenizer's end token where the template itself puts no special token after an
            answer, "" where it does. It is written only for training.
        end_text: what ends an answer; generation may stop there.
    """

    asks = True

    def __init__(
        self,
        tokenizer: Any,
        *,
        system: str | None = None,
        date: datetime.date | None = None,
        training: bool = False,
    ):
        """Probes the template.

        Args:
            tokenizer: any transformers tokenizer.
            system: the text of a system message; None or "" adds none.
            date: what a template that writes today's date writes.
            training: answers must end in a token that tells the model to stop, so `closing` is
                put behind each.

        Raises:
            UserError: when there is no chat template, or it can't be used.
        """
        self._own = OwnTemplate(tokenizer, date=date)
        self.end_text = self._own.end_text
        self.closing = "" if self._own.closes else tokenizer.eos_token
        self._training, self._written = training, self.closing if training else ""
        self._system = [Said("system", system)] if system else []
        # Our own exports move images to the front of a turn, behind a text given this way.
        self._knows_retrieved = "retrieved_text" in str(tokenizer.chat_template)

    def arrange(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages as they are: the checkpoint's template decides where images stand."""
        return tuple(messages)

    def render(self, messages: Sequence[Message], *, retrieved: str | None = None) -> Rendered:
        """Renders the conversation; each answer's place is found from the prompt before it."""
        given = {"retrieved_text": retrieved} if retrieved and self._knows_retrieved else {}
        first, content, span = _first_question(messages[0], None if given else retrieved)
        said = list(self._system)
        bounds: list[tuple[int, int, str]] = []  # of each answer: prompt's end, turn's end, text
        parts: list[str] = []
        for index, message in enumerate(messages):
            said.append(Said("user", message.question, message.images) if index else first)
            parts.append(self._own.render(said, prompt=True, **given))
            if message.answer is not None:
                said.append(Said("assistant", message.answer + self._written))
                parts.append(self._own.render(said, prompt=False, **given))
                bounds.append((len(parts[-2]), len(parts[-1]), message.answer))
        text = parts[-1]
        if not all(text.startswith(part) for part in parts):
            raise UserError(
                f"{LABEL}: it writes earlier turns differently once later ones follow, so answers "
                "can't be located; name another template"
            )
        if given:
            content, span = question_text(Message(0, "", None), retrieved=retrieved)
        spans = [self._answer_span(text, *bound) for bound in bounds if bound[2].strip()]
        return Rendered(text, tuple(spans), _within(text, content, span))

    def _answer_span(self, text: str, start: int, end: int, answer: str) -> Span:
        """The answer through the first special token after it, inside text[start:end].

        Blanks between prompt and answer belong to it: the model has to write them.
        """
        shown = answer if answer in text[start:end] else answer.strip()
        first = text.find(shown, start, end)
        if first < 0:
            raise UserError(f"{LABEL}: it changes the answer {answer!r:.60}")
        start += len(text[start:first].rstrip(" "))
        token = self._own.special.search(text, first + len(shown), end)
        if token is not None:
            return start, token.end()
        if self._training:
            raise UserError(f"{LABEL}: it puts no special token after the answer {answer!r:.60}")
        return start, first + len(shown)


def _first_question(message: Message, retrieved: str | None) -> tuple[Said, str, Span | None]:
    """The first turn, what of it holds the retrieved text, and where in that it is."""
    content, span = question_text(message, retrieved=retrieved)
    if span is None:
        return Said("user", message.question, message.images), content, None
    return Said("user", content), content, span  # the retrieved text stands before the images


def _within(text: str, content: str, span: Span | None) -> Span | None:
    """Moves a span of the first question to where that question stands in the text."""
    if span is None:
        return None
    start = text.find(content.strip())
    if start < 0:
        raise UserError(f"{LABEL}: it changes the text of the question")
    return start + span[0], start + span[1]
