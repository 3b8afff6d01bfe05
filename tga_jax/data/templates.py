"""Prompt templates: turns -> one string, with the *character* spans that matter in it.

Pure text: no tokens here. `prompts.py` tokenises the string once and turns character spans into
token spans. The strings are LLaVA's, to the character; "tokenizer" is in `chat_template.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tga_jax.data.records import Record
from tga_jax.errors import UserError
from tga_jax.hf.chat_template import NAMED_TEMPLATES, SYSTEM_TEXTS
from tga_jax.hf.own_template import IMAGE_MARK, with_images

Span = tuple[int, int]


@dataclass(frozen=True)
class Message:
    """A turn ready for a template: its image marks are counted and taken out of the text."""

    images: int
    question: str
    answer: str | None


@dataclass(frozen=True)
class Rendered:
    """A prompt as text. Spans are [start, end) in characters.

    Attributes:
        text: the prompt; every `IMAGE_MARK` in it stands for one image.
        answer_spans: for each answer that isn't blank, what the model is to write: the answer, the
            blank that some templates put before it, and its end token.
        retrieved_span: the retrieved text, without the "Retrieved Text: " words.
    """

    text: str
    answer_spans: tuple[Span, ...]
    retrieved_span: Span | None


class Template(Protocol):
    """What `prompts.py` needs of a template."""

    @property
    def end_text(self) -> str:
        """What ends an answer; generation may stop there."""
        ...

    @property
    def closing(self) -> str:
        """The end token that is put behind answers in training only, for want of the template's
        own; "" where the template has one."""
        ...

    @property
    def asks(self) -> bool:
        """Whether there is a user's turn: a question, and room for a retrieved text."""
        ...

    def arrange(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Returns the messages that the template uses."""
        ...

    def render(self, messages: Sequence[Message], *, retrieved: str | None = None) -> Rendered:
        """Renders the messages; with a last answer of None the text ends where it would begin."""
        ...


# --- what goes into a template ---


def count_marks(record: Record) -> tuple[Message, ...]:
    """Takes the `<image>` marks out of a record's turns and counts them.

    A record with images and no mark at all has them all in front of its first question. In
    answers a mark is no image and is only removed.

    Raises:
        UserError: when the number of marks is neither zero nor the number of images.
    """
    counts = _mark_counts(record)
    if sum(counts) != len(record.images):
        raise UserError(
            f"record {record.id}: {sum(counts)} {IMAGE_MARK} marks for {len(record.images)} "
            "images; give each image one mark, or leave out all marks"
        )
    return tuple(
        Message(
            images=count,
            question=without_marks(turn.question).strip() if count else turn.question,
            answer=None if turn.answer is None else without_marks(turn.answer),
        )
        for count, turn in zip(counts, record.turns, strict=True)
    )


def first_answer_images(record: Record) -> int:
    """Returns how many images stand in a record's first question, as `count_marks` counts them.

    0 where that question has a blank answer and a later one has another: then the first answer
    comes later.
    """
    blank = not (record.turns[0].answer or "").strip()
    return 0 if blank and not record.guide_only else _mark_counts(record)[0]


def _mark_counts(record: Record) -> list[int]:
    """The marks in each question; without any, all images are in the first."""
    counts = [turn.question.count(IMAGE_MARK) for turn in record.turns]
    return counts if any(counts) else [len(record.images), *counts[1:]]


def has_idle_marks(record: Record) -> bool:
    """Returns whether `<image>` stands where it is no image, and so is removed.

    That is in an answer, the caption or the retrieved text.
    """
    texts = [record.caption, record.retrieved, *(turn.answer for turn in record.turns)]
    return any(IMAGE_MARK in text for text in texts if text)


def without_marks(text: str) -> str:
    """Removes `<image>` from a text in which it can't be an image."""
    while IMAGE_MARK in text:  # removing one may join the halves of another
        text = text.replace(IMAGE_MARK, "")
    return text


def retrieved_text(record: Record) -> str | None:
    """Returns the retrieved text as the prompt has it.

    Where it equals the caption it would say what the image shows: then the first half of its
    characters is used, as in the released code.
    """
    if record.retrieved is None or not record.images:
        return None
    text = without_marks(record.retrieved)
    if record.caption is not None and record.retrieved == record.caption:
        text = text[: len(text) // 2]
    return text if text.strip() else None


def question_text(message: Message, *, retrieved: str | None) -> tuple[str, Span | None]:
    """Returns the user's text of a turn, and where in it the retrieved text is."""
    text = with_images(message.question, message.images)
    if retrieved is None:
        return text, None
    lead = "Retrieved Text: "
    return f"{lead}{retrieved}. {text}", (len(lead), len(lead) + len(retrieved))


# --- the templates ---


@dataclass(frozen=True)
class TurnTemplate:
    """A template that writes each turn between fixed strings.

    The text is: `first` or `following`, question, `after_question`, `before_answer`, answer,
    `after_answer`; and again. The model is asked with all up to `after_question`. The rest is its
    own to write and so to learn: the blank in `before_answer`, which is a token of its own
    where no token joins it to the answer's start, and `after_answer`, without which it would never
    stop.
    """

    first: str
    following: str
    after_question: str
    before_answer: str
    after_answer: str
    closing = ""
    asks = True

    @property
    def end_text(self) -> str:
        """The text that ends an answer, without blanks at its ends."""
        return self.after_answer.strip(" ")

    def arrange(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages as they are written: this template leaves their order alone."""
        return tuple(messages)

    def render(self, messages: Sequence[Message], *, retrieved: str | None = None) -> Rendered:
        """Writes the conversation and notes where answers and the retrieved text stand."""
        text = ""
        answer_spans: list[Span] = []
        retrieved_span: Span | None = None
        for index, message in enumerate(messages):
            text += self.following if index else self.first
            question, span = question_text(message, retrieved=None if index else retrieved)
            if span is not None:
                retrieved_span = (len(text) + span[0], len(text) + span[1])
            text += question + self.after_question
            if message.answer is None:
                continue
            start = len(text)
            text += self.before_answer + message.answer + self.after_answer
            if message.answer.strip():
                answer_spans.append((start, len(text)))
        return Rendered(text, tuple(answer_spans), retrieved_span)


@dataclass(frozen=True)
class PlainTemplate:
    """Images, then the first answer and a newline: LLaVA's first stage. No question, no system.

    All images stand in front; the retrieved text isn't used (METHOD: stage 1 has none).
    """

    end_text = "\n"
    closing = ""
    asks = False

    def arrange(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """One message: all images first, then the first answer."""
        images = sum(message.images for message in messages)
        return (Message(images=images, question="", answer=messages[0].answer),)

    def render(self, messages: Sequence[Message], *, retrieved: str | None = None) -> Rendered:
        """Writes the marks of the images and the answer."""
        (message,) = messages
        text = IMAGE_MARK * message.images
        if message.answer is None:
            return Rendered(text, (), None)
        start = len(text)
        text += message.answer + self.end_text
        return Rendered(text, ((start, len(text)),) if message.answer.strip() else (), None)


TEMPLATE_NAMES = (*NAMED_TEMPLATES, "tokenizer")


def make_template(name: str, *, bos: str, eos: str, system: str | None = None) -> Template:
    """Returns one of the named templates.

    Args:
        name: one of `TEMPLATE_NAMES` other than "tokenizer".
        bos: the tokenizer's own first token, "" if it has none.
        eos: the tokenizer's own end token.
        system: replaces the template's system text; "" leaves its block out.

    Raises:
        UserError: for an unknown name, or a system text that the template has no place for.
    """
    if system and name in ("plain", "mistral_instruct"):
        raise UserError(f"prompt template {name!r} has no place for a system text; leave it out")
    system = SYSTEM_TEXTS.get(name, "") if system is None else system
    match name:
        case "plain":
            return PlainTemplate()
        case "llama_2":
            block = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
            return _inst_template(first=f"[INST] {block}", following=f"{bos}[INST] ", eos=eos)
        case "mistral_instruct":
            return _inst_template(first="[INST] ", following="[INST] ", eos=eos)
        case "vicuna_v1":
            first = f"{system} USER: " if system else "USER: "
            return TurnTemplate(first, "USER: ", " ASSISTANT:", " ", eos)
        case "chatml":
            user = "<|im_start|>user\n"
            first = f"<|im_start|>system\n{system}<|im_end|>{user}" if system else user
            to_assistant = "<|im_end|><|im_start|>assistant\n"
            return TurnTemplate(first, user, to_assistant, "", "<|im_end|>")
        case "chatml_qwen":
            user = "<|im_start|>user\n"
            first = f"<|im_start|>system\n{system}<|im_end|>\n{user}" if system else user
            to_assistant = "<|im_end|>\n<|im_start|>assistant\n"
            return TurnTemplate(first, f"\n{user}", to_assistant, "", "<|im_end|>")
    raise UserError(
        f"config.prompt.template (or a stage's template): there is no {name!r}; name one of auto, "
        f"{', '.join(TEMPLATE_NAMES)}"
    )


def _inst_template(*, first: str, following: str, eos: str) -> TurnTemplate:
    return TurnTemplate(first, following, " [/INST]", " ", f" {eos}")


def caption_prompt(
    template: Template, messages: Sequence[Message], *, caption: str, question: bool = False
) -> Rendered:
    """The caption pass: the prompt up to its first image, and there the caption.

    Nothing follows, as later tokens are not seen by the caption's; with `question` the rest of the
    first turn follows, up to where its answer begins. The returned `retrieved_span` is None; the
    caption is given as answer span.
    """
    if question:
        messages = [replace(messages[0], answer=None)]
    head, tail = template.render(messages).text.split(IMAGE_MARK, 1)
    text = head + caption + (tail if question else "")
    return Rendered(text, ((len(head), len(head) + len(caption)),), None)
