"""What the model is fed, for people: one JSON line a sample, and a view with its parts marked."""

from itertools import groupby
from typing import Any

import numpy as np

from tga_jax.data.example import Example
from tga_jax.data.templates import Span
from tga_jax.labels import IGNORE_INDEX

COLOURS = {"image": "\033[35m", "retrieved": "\033[33m", "caption": "\033[36m", "label": "\033[32m"}
RESET = "\033[0m"


def inspect_line(example: Example) -> dict[str, Any]:
    """Returns a line of inspect/samples.jsonl. Spans are [start, end) in tokens, None if absent."""
    return {
        "id": example.id,
        "input_ids": example.tokens.tolist(),
        "labels": example.labels.tolist(),
        "image_span": _list(example.image_spans[0] if example.image_spans else None),
        "retrieved_span": _list(example.retrieved_span),
        "caption_input_ids": example.caption_tokens.tolist(),
        "caption_span": _list(example.caption_span),
    }


def render(example: Example, tokenizer: Any, *, colours: bool) -> str:
    """Returns a view in which images, retrieved text, caption and labels are marked.

    Args:
        colours: mark them by a terminal's colours, and otherwise as "[label: a cup]".
    """
    marks = [(span, f"image {number}") for number, span in enumerate(example.image_spans)]
    if example.retrieved_span is not None:
        marks.append((example.retrieved_span, "retrieved"))
    (labels,) = np.nonzero(example.labels != IGNORE_INDEX)
    marks += [((at, at + 1), "label") for at in labels.tolist()]
    legend = f"   [{' '.join(_marked(name, name, colours) for name in COLOURS)}]" if colours else ""
    lost = f", {example.truncated_tokens} truncated" if example.truncated_tokens else ""
    lines = [
        f"--- {_printable(example.id)}: {len(example.tokens)} tokens{lost}{legend}",
        _painted(example.tokens, marks, tokenizer, colours),
    ]
    if example.caption_span is not None:
        marks = [(example.caption_span, "caption")]
        caption = _painted(example.caption_tokens, marks, tokenizer, colours)
        cut = example.truncated_caption_tokens
        lines += [f"caption pass{f', {cut} tokens truncated' if cut else ''}:", caption]
    return "\n".join(lines)


def _painted(
    tokens: np.ndarray, marks: list[tuple[Span, str]], tokenizer: Any, colours: bool
) -> str:
    """Decodes tokens run by run, each run of a mark in its colour or in brackets."""
    kinds = ["plain"] * len(tokens)
    for (start, end), kind in marks:
        kinds[start:end] = [kind] * (end - start)
    painted, done, end = "", "", 0
    for kind, run in groupby(kinds):
        length = len(list(run))
        end += length
        # Decoding from the start each time keeps the blanks that a run's first word begins with.
        text = tokenizer.decode(tokens[:end].tolist(), clean_up_tokenization_spaces=False)
        shown = f"<image x{length}>" if kind.startswith("image") else _printable(text[len(done) :])
        painted += _marked(shown, kind.split()[0], colours)
        done = text
    return painted


def _marked(text: str, kind: str, colours: bool) -> str:
    if kind not in COLOURS:
        return text
    if colours:
        return f"{COLOURS[kind]}{text}{RESET}"
    return text if kind == "image" else f"[{kind}: {text}]"  # an image is a mark already


def _printable(text: str) -> str:
    """Shows control characters instead of sending them to the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _list(span: Span | None) -> list[int] | None:
    return None if span is None else list(span)
