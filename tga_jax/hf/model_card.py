"""The README.md of an exported model: what it is, how to use it, what is not known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tga_jax.hf.llavas import LLAVAS


@dataclass(frozen=True)
class StageFacts:
    """One training stage that the exported parameters went through."""

    name: str  # "pretrain" or "finetune"
    steps: int
    batch_size: int  # global, in samples
    learning_rate: float
    trained: str  # which parts, e.g. "projector (21,000,000 parameters)"
    terms: Mapping[str, int] = field(default_factory=dict)  # of the guide -> samples that had it


@dataclass(frozen=True)
class CardFacts:
    """What a model card states. Nothing in it is measured by the export itself.

    Attributes:
        name: of the model; the card's title.
        bases: where the parts came from, hub ids or folders; of a folder its name is shown.
        template: name of the prompt template.
        retrieved_in_prompt: whether a retrieved text stood in the training prompts.
        guide_form: "paper", "released" or "none".
        guide_layers: decoder layers of the guide loss, counted from 1.
        guide_center: what is subtracted from the pooled states: "none", "batch" or "running".
        pad_to_square: whether images were padded to a square.
        model_type: which class of LLaVA it is, a key of `llavas.LLAVAS`.
        stages: in the order in which they ran; empty for a model that was only converted.
    """

    name: str
    bases: tuple[str, ...]
    template: str
    retrieved_in_prompt: bool
    guide_form: str
    guide_layers: tuple[int, ...]
    guide_center: str
    pad_to_square: bool
    stages: tuple[StageFacts, ...] = ()
    model_type: str = "llava"


_HEADER = """\
---
library_name: transformers
pipeline_tag: image-text-to-text
tags:
- llava
- vision-language-alignment
---
"""

_USE = """\
## Use
```python
import torch
from PIL import Image
from transformers import AutoProcessor, {architecture}

folder = "path/to/this/folder"
processor = AutoProcessor.from_pretrained(folder)
model = {architecture}.from_pretrained(folder, dtype="auto")

messages = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}
]
prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
inputs = processor(text=prompt, images=Image.open("image.jpg"), return_tensors="pt")
inputs = inputs.to(model.device, model.dtype)
with torch.no_grad():
    output = model.generate(**inputs, max_new_tokens=128)
print(processor.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
```
"""

_BEGIN_TOKEN = """\
Where the tokenizer adds a begin token, the chat template leaves it out, and the processor adds it.
Software that tokenises the rendered prompt itself must do so with `add_special_tokens=True`.
"""

_LIMITS = """\
## Limits
- No safety is guaranteed. A model that refuses some harmful images answers others, and it may
  refuse harmless ones.
- This card holds no safety figures. A figure means something only together with the judge (name
  and version of its phrase list or model), the prompt and the decoding that it was taken with, and
  beside it the rate of refusals on harmless inputs.
- Other prompts, another padding of images or other text in the prompt than in training change
  the answers.
- Licences and terms of use of the base models and of the training data apply.
"""


def model_card(facts: CardFacts) -> str:
    """Returns the README.md of an exported folder; the same facts give the same text."""
    sections = [
        f"# {facts.name}\n",
        _what_it_is(facts),
        _training(facts),
        _prompt(facts),
        _USE.replace("{architecture}", LLAVAS[facts.model_type].architecture),
        _BEGIN_TOKEN,
        _LIMITS,
    ]
    return _HEADER + "\n" + "\n".join(sections)


def _what_it_is(facts: CardFacts) -> str:
    bases = " + ".join(_public_name(base) for base in facts.bases)
    return (
        "A LLaVA vision-language model (vision encoder, projector, language model), written "
        f"by tga_jax.\n\n- Base: {bases}\n- Alignment: {_method(facts)}\n"
    )


def _method(facts: CardFacts) -> str:
    if not facts.stages:
        return "none; the parameters are those of the base, not trained further"
    terms: dict[str, int] = {}
    for stage in facts.stages:
        terms |= {name: max(count, terms.get(name, 0)) for name, count in stage.terms.items()}
    known = any(stage.terms for stage in facts.stages)
    if facts.guide_form == "none" or (known and not any(terms.values())):
        return "language-model loss only, without the guide loss of TGA"
    if known and not (terms["pair"] or terms["hinge"]):
        return _answer_term_alone(facts, terms)
    layers = ", ".join(map(str, facts.guide_layers))
    return (
        "TGA, text-guided vision-language alignment "
        "([arXiv 2410.12662](https://arxiv.org/abs/2410.12662)), "
        f'form "{facts.guide_form}", decoder layers {layers} (counted from 1), '
        f'centring of the states "{facts.guide_center}"{_on_samples(terms)}'
    )


def _answer_term_alone(facts: CardFacts, terms: Mapping[str, int]) -> str:
    return (
        "the answer term of tga_jax alone, without the paper's terms: where the answer begins, an "
        "image's prompt is given the state of the same prompt with the caption in the image's "
        f"place{_on_samples(terms)}"
    )


def _on_samples(terms: Mapping[str, int]) -> str:
    """On how many samples each term was active, for the end of a sentence."""
    active = [f"{name} term on {count:,}" for name, count in terms.items() if count]
    return f"; samples of a stage: {', '.join(active)}" if active else ""


def _training(facts: CardFacts) -> str:
    if not facts.stages:
        return "## Training\nNone by tga_jax.\n"
    rows = [
        f"| {s.name} | {s.steps} | {s.batch_size} | {s.learning_rate:g} | {s.trained} |"
        for s in facts.stages
    ]
    head = "| stage | steps | global batch | learning rate | trained |\n|---|---|---|---|---|\n"
    return "## Training\n" + head + "\n".join(rows) + "\n"


def _prompt(facts: CardFacts) -> str:
    retrieved = (
        'In training a retrieved text stood in front of the first turn ("Retrieved Text: ... . "); '
        '`apply_chat_template(messages, retrieved_text="...")` puts one there.'
        if facts.retrieved_in_prompt
        else "No retrieved text was in the prompts of the training."
    )
    padding = "resized and cropped, not padded, as in training"
    if facts.pad_to_square:
        padding = "padded to a square of the mean colour, as in training"
    if facts.model_type != "llava":
        padding = "cut into tiles, after the whole image as the first one, as in training"
    return (
        "## Prompt and images\n"
        f'The chat template renders the training template "{facts.template}". {retrieved}\n'
        f"Images are {padding}; the processor does this.\n"
    )


def _public_name(base: str) -> str:
    """A hub id as it is; of a folder only the last part."""
    path = Path(base)
    return path.name if path.is_absolute() or path.exists() else base
