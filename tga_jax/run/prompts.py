"""Records and questions -> tokens, as the configuration says; the padded lengths of both passes."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tga_jax.config import STAGES
from tga_jax.data.batches import default_buckets
from tga_jax.data.prompts import Prompter
from tga_jax.data.templates import SYSTEM_TEXTS
from tga_jax.data.tiles import ImageLayouts
from tga_jax.errors import UserError
from tga_jax.hf.own_template import writes_date
from tga_jax.hf.source import Source
from tga_jax.hf.template_choice import AUTO, choose_template
from tga_jax.run.prompt_date import prompt_date

OWN = "tokenizer"  # the chat template that the checkpoint carries


@dataclasses.dataclass(frozen=True)
class PromptStyle:
    """How a run writes its prompts, once the checkpoint has been asked.

    Attributes:
        source: the checkpoint, whose tokenizer is used.
        template: config.prompt.template, with "auto" replaced by what it stands for.
        date: what a chat template that writes the day's date is given; None for all others.
    """

    source: Source
    template: str
    date: datetime.date | None

    @classmethod
    def of(
        cls, config: ConfigDict, workdir: Path, source: Source, *, say: Callable[[str], None]
    ) -> PromptStyle:
        """The style that config.prompt and the checkpoint give; `say` is told what was chosen.

        Raises:
            UserError: there is no such template, or config.prompt.date is no date.
        """
        choice, date = choose_template(config.prompt.template, source.template_facts), None
        if config.prompt.template == AUTO:
            say(f'prompt template "{choice.name}", {choice.reason}')
        if choice.warning:
            say(f"warning: {choice.warning}")
        names = {choice.name, *(config[s].template for s in STAGES), config.caption.template}
        if OWN in names and writes_date(source.tokenizer.tokenizer):
            date = prompt_date(workdir, config.prompt.date)
            say(f"the chat template may write the date: {date} (config.prompt.date)")
        return cls(source, choice.name, date)

    def named(self, template: str) -> str:
        """The template of that name, "auto" resolved; the run's own where it is ""."""
        if not template:
            return self.template
        return choose_template(template, self.source.template_facts).name

    @property
    def written_date(self) -> str:
        """The date that prompts may hold, like "2026-11-28"; "" for a template without one."""
        return "" if self.date is None else self.date.isoformat()

    def settings(self, prompt: ConfigDict) -> dict[str, Any]:
        """`config.prompt` as it counts: the template's name, and the date where one is written."""
        return prompt.to_dict() | {"template": self.template, "date": self.written_date}

    def base_system(self, prompt: ConfigDict) -> str:
        """The system text: that of `config.prompt`, or else the template's."""
        return SYSTEM_TEXTS.get(self.template, "") if prompt.system is None else prompt.system


def make_prompter(
    config: ConfigDict,
    style: PromptStyle,
    *,
    template: str = "",
    max_length: int = 0,
    system: str | None = None,
    training: bool = False,
    image_tokens: int = 0,
    answer_states: bool | None = None,
) -> Prompter:
    """What turns records and questions into tokens; config.prompt counts where no argument does.

    With `image_tokens` all images take so many tokens, also of a model that takes them in tiles.
    Nothing may be longer than the largest padded length, so what is longer is cut there.
    """
    longest = max_length or config.data.max_length
    prompt, source, layouts = config.prompt, style.source, None
    if source.config.tiling is not None and not image_tokens:
        layouts = ImageLayouts(source.config, newlines=config.guide.newlines)
    return Prompter(
        source.tokenizer.tokenizer,
        template=style.named(template),
        image_token=source.tokenizer.image_token,
        image_tokens=image_tokens or source.config.image_tokens,
        layouts=layouts,
        max_length=min(longest, max(prompt_buckets(config.data, longest))),
        max_caption_length=min(longest, max(caption_buckets(config.data, longest))),
        use_retrieved=prompt.retrieved,
        system=prompt.system if system is None else system,
        date=style.date,
        training=training,
        answer_states=config.guide.answer_weight > 0 if answer_states is None else answer_states,
    )


def prompt_buckets(data: ConfigDict, max_length: int = 0) -> tuple[int, ...]:
    """The padded lengths of prompts: `config.data.buckets`, or the usual ones up to max_length."""
    return _checked(data, "buckets") or default_buckets(max_length or data.max_length)


def answered_buckets(data: ConfigDict) -> tuple[int, ...]:
    """The padded lengths of questions: `config.data.buckets`, or those of `close_buckets`."""
    return _checked(data, "buckets") or close_buckets(prompt_buckets(data)[-1])


def close_buckets(last: int) -> tuple[int, ...]:
    """Lengths up to `last`, so close that less than an eighth, or 31 tokens, of them is padding."""
    lengths = range(32, last, 32)
    return (*(n for n in lengths if n % max(32, _power_of_two(n) // 16) == 0), last)


def _power_of_two(number: int) -> int:
    """The smallest that is not below it."""
    return 1 << (number - 1).bit_length()


def caption_buckets(data: ConfigDict, max_length: int = 0) -> tuple[int, ...]:
    """The padded lengths of the caption pass, likewise from `config.data.caption_buckets`."""
    return _checked(data, "caption_buckets") or default_buckets(max_length or data.max_length)


def _checked(data: ConfigDict, key: str) -> tuple[int, ...]:
    lengths = tuple(data[key])
    if any(not isinstance(length, int) or length < 1 for length in lengths):
        raise UserError(f"config.data.{key}={lengths}: lengths must be whole numbers of 1 or more")
    return lengths
