"""The template "tokenizer": the chat template that a tokenizer carries, with character spans.

A chat template is a program of unknown content, so nothing about its strings is assumed. Where
an answer starts is found by rendering the conversation up to it, and checked.
"""

import re
from collections.abc import Sequence
from typing import Any

from tga_jax.data.templates import Message, Rendered, Span, question_text
from tga_jax.errors import UserError


class ChatTemplate:
    """Renders messages with `tokenizer.apply_chat_template`; see `templates.Template`."""

    asks = True

    def __init__(self, tokenizer: Any, *, system: str | None = None):
        """Takes any transformers tokenizer; `system` text of None or "" adds no system message.

        Raises:
            UserError: when there is no chat template, or it doesn't show what users say.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                'prompt template "tokenizer": the tokenizer has no chat template; name another'
            )
        self._tokenizer = tokenizer
        self._special = _special_tokens(tokenizer)
        self._system = system or ""
        # Our own exports move pictures to the front of a turn, behind a text given this way.
        self._knows_retrieved = "retrieved_text" in str(tokenizer.chat_template)
        self._content_is_list = False
        if "probe" not in self._apply([("user", "probe")], prompt=False):
            self._content_is_list = True
            if "probe" not in self._apply([("user", "probe")], prompt=False):
                raise UserError('prompt template "tokenizer": it leaves out what the user says')

    @property
    def end_text(self) -> str:
        """What ends an answer, up to its first special token."""
        probe = self.render([Message(0, "question", "probe")])
        start, end = probe.answer_spans[0]
        return probe.text[start:end].strip(" ").removeprefix("probe").strip(" ")

    def arrange(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        return tuple(messages)

    def render(self, messages: Sequence[Message], *, retrieved: str | None = None) -> Rendered:
        """Renders the conversation; each answer's place is found from the prompt before it."""
        given = {"retrieved_text": retrieved} if retrieved and self._knows_retrieved else {}
        content, span = question_text(messages[0], retrieved=None if given else retrieved)
        said: list[tuple[str, str]] = []
        bounds: list[tuple[int, int, str]] = []  # of each answer: prompt's end, turn's end, text
        parts: list[str] = []
        for index, message in enumerate(messages):
            question = question_text(message, retrieved=None)[0] if index else content
            said.append(("user", question))
            parts.append(self._apply(said, prompt=True, **given))
            if message.answer is not None:
                said.append(("assistant", message.answer))
                parts.append(self._apply(said, prompt=False, **given))
                bounds.append((len(parts[-2]), len(parts[-1]), message.answer))
        text = parts[-1]
        if not all(text.startswith(part) for part in parts):
            raise UserError(
                'prompt template "tokenizer": it writes earlier turns differently once later '
                "ones follow, so answers can't be located; name another template"
            )
        if given:
            content, span = question_text(Message(0, "", None), retrieved=retrieved)
        spans = [self._answer_span(text, *bound) for bound in bounds if bound[2].strip()]
        return Rendered(text, tuple(spans), self._within(text, content, span))

    def _answer_span(self, text: str, start: int, end: int, answer: str) -> Span:
        """The answer through the first special token after it, inside text[start:end].

        Blanks between prompt and answer belong to it: the model has to write them.
        """
        shown = answer if answer in text[start:end] else answer.strip()
        first = text.find(shown, start, end)
        if first < 0:
            raise UserError(f'prompt template "tokenizer": it changes the answer {answer!r:.60}')
        end_token = self._special.search(text, first + len(shown), end)
        if end_token is None:
            raise UserError(
                'prompt template "tokenizer": it puts no special token after an answer, so a '
                "model would never learn to stop; name another template"
            )
        between = text[start:first]
        return start + len(between.rstrip(" ")), end_token.end()

    def _within(self, text: str, content: str, span: Span | None) -> Span | None:
        """Moves a span of the first question to where that question stands in the text."""
        if span is None:
            return None
        start = text.find(content.strip())
        if start < 0:
            raise UserError('prompt template "tokenizer": it changes the text of the question')
        return start + span[0], start + span[1]

    def _apply(self, said: Sequence[tuple[str, str]], *, prompt: bool, **given: str) -> str:
        system = [("system", self._system)] if self._system else []
        messages = [
            {"role": role, "content": self._content(text)} for role, text in [*system, *said]
        ]
        try:
            return self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=prompt, **given
            )
        except Exception as error:  # the template is a program of the checkpoint's author
            reason = " ".join(str(error).split())
            raise UserError(f'prompt template "tokenizer": it fails: {reason}') from error

    def _content(self, text: str) -> Any:
        return [{"type": "text", "text": text}] if self._content_is_list else text


def _special_tokens(tokenizer: Any) -> re.Pattern[str]:
    """Returns a pattern of all special tokens; end-of-turn marks are often only "added" ones."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    tokens = {*tokenizer.all_special_tokens, *added}
    return re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)))
