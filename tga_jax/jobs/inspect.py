"""Job `inspect`: exactly what the model is fed, a line a sample."""

from __future__ import annotations

import sys
from pathlib import Path

from tga_jax.data.loader import example_pixels
from tga_jax.data.show import inspect_line, render_colour
from tga_jax.files import write_jsonl
from tga_jax.run.context import Context


def run(context: Context) -> None:
    """Write inspect/samples.jsonl; show the first samples in colour on stderr."""
    records, prompter = context.records(), context.prompter()
    tokenizer, shown = context.source.tokenizer.tokenizer, context.config.inspect.show
    lines, cut = [], []
    for number, record in enumerate(records):
        example = prompter.encode(record)
        for place in range(len(example.images)):
            folder = Path() if example.contents else context.image_dir()
            example_pixels(example, place, image_dir=folder, transform=context.transform)
        lines.append(inspect_line(example))
        if example.truncated_tokens:
            cut.append(example.id)
        if number < shown:
            print(render_colour(example, tokenizer), file=sys.stderr)
    write_jsonl(context.workdir / "inspect" / "samples.jsonl", lines)
    context.say(f"{len(lines)} samples -> {context.workdir / 'inspect' / 'samples.jsonl'}")
    if cut:
        context.say(
            f"{len(cut)} samples are longer than config.data.max_length and lose turns or the "
            f"tail of an answer: {', '.join(cut[:5])}{' ...' if len(cut) > 5 else ''}"
        )
