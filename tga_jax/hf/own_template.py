"""A tokenizer's own chat template: a Jinja program of unknown content, asked by probing.

The clock is never read here: a template that writes today's date (`strftime_now`, as in Llama 3.2
and Granite) writes the date that it is given.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tga_jax.errors import UserError

IMAGE_MARK = "<image>"
PROBE = "probe"
ANY_DATE = datetime.date(2000, 1, 1)  # where a text is only looked at for its kind
_NOW = re.compile(r"""strftime_now\(\s*('[^'\\]*'|"[^"\\]*")\s*\)""")
LABEL = 'prompt template "tokenizer"'


@dataclass(frozen=True)
class Said:
    """A message: who speaks, the text, and how many images stand before it."""

    role: str
    text: str
    images: int = 0


class OwnTemplate:
    """Renders messages with the chat template that a tokenizer carries.

    Attributes:
        content: how it wants a message: as "text", as "text items" (a list of them), or as "image
            items" and text items; then it writes images in its own way.
        closes: whether a special token follows each answer. A model that learns texts without one
            would never learn to stop.
        end_text: what follows an answer: up to the first special token, or where there is none to
            the end of the turn, without blanks; "" is nothing.
        special: a pattern of all special tokens.
        source: the template, with the date in place of the calls that ask for today's.
    """

    def __init__(self, tokenizer: Any, *, date: datetime.date | None = None):
        """Takes any transformers tokenizer, and the date for a template that writes one.

        Raises:
            UserError: when there is no chat template, it doesn't show what users say, or it
                writes a date and there is none.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(f"{LABEL}: the tokenizer has no chat template; name another template")
        own = tokenizer.chat_template
        own = own.get("default") if isinstance(own, dict) else own
        if own is None:
            raise UserError(
                f'{LABEL}: the tokenizer has several chat templates, and none is called "default"; '
                "name another template"
            )
        self._tokenizer, self.source = tokenizer, with_date(own, date)
        self.special = _special_tokens(tokenizer)
        self.content = self._find_content()
        self.closes, self.end_text = self._find_end()

    def render(self, said: Sequence[Said], *, prompt: bool, **given: Any) -> str:
        """The messages as text; with `prompt` up to where the model's answer begins.

        Raises:
            UserError: when the template raises an error.
        """
        messages = [{"role": one.role, "content": self._content(one)} for one in said]
        given |= {"chat_template": self.source, "add_generation_prompt": prompt}
        try:
            return self._tokenizer.apply_chat_template(messages, tokenize=False, **given)
        except Exception as error:  # the template is a program of the checkpoint's author
            reason = " ".join(str(error).split())
            raise UserError(f"{LABEL}: it fails: {reason}") from error

    def _content(self, one: Said) -> Any:
        text = with_images(one.text, one.images)
        if self.content == "text":
            return text
        if self.content == "text items":
            return [{"type": "text", "text": text}]
        return [{"type": "image"}] * one.images + [{"type": "text", "text": one.text}]

    def _find_content(self) -> str:
        problems = []
        for self.content, images in (("text", 0), ("image items", 1), ("text items", 0)):
            try:
                text = self.render([Said("user", PROBE, images)], prompt=False)
            except UserError as error:
                problems.append(error)
                continue
            if PROBE in text and text.count(IMAGE_MARK) == images:
                return self.content
        raise problems[0] if problems else UserError(f"{LABEL}: it leaves out what the user says")

    def _find_end(self) -> tuple[bool, str]:
        said = [Said("user", "question"), Said("assistant", PROBE)]
        after = self.render(said, prompt=False).rpartition(PROBE)[2]
        token = self.special.search(after)
        return (False, after.strip()) if token is None else (True, after[: token.end()].strip(" "))


def with_images(question: str, images: int) -> str:
    """The user's text of a turn: a mark and a newline for each image, then the question.

    As LLaVA writes it, a turn of images alone ends with the last one's mark.
    """
    text = f"{IMAGE_MARK}\n" * images + question
    return text if question else text.removesuffix("\n")


def writes_date(tokenizer: Any) -> bool:
    """Whether the tokenizer's chat template may write today's date."""
    return "strftime_now(" in str(getattr(tokenizer, "chat_template", None))


def with_date(template: str, date: datetime.date | None) -> str:
    """A chat template's source with a date in place of its calls of `strftime_now`.

    transformers hands no function of ours to a template, so its source is changed.

    Raises:
        UserError: there is such a call and no date, or its format is not written out in it.
    """
    if "strftime_now(" not in template:
        return template
    if date is None:
        raise UserError(f"{LABEL}: it writes today's date; set config.prompt.date")
    moment = datetime.datetime.combine(date, datetime.time())
    dated = _NOW.sub(lambda call: repr(moment.strftime(call[1][1:-1])), template)
    if "strftime_now(" in dated:
        raise UserError(f"{LABEL}: it calls strftime_now in a way that is not understood")
    return dated


def _special_tokens(tokenizer: Any) -> re.Pattern[str]:
    """Returns a pattern of all special tokens; end-of-turn marks are often only "added" ones."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    tokens = {*tokenizer.all_special_tokens, *added}
    return re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)))
