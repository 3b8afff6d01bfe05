"""Which prompt template a checkpoint calls for: its chat template, its name or its parts tell."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tga_jax.errors import UserError
from tga_jax.hf.chat_template import NAMED_TEMPLATES, chat_template
from tga_jax.hf.own_template import ANY_DATE, OwnTemplate, Said
from tga_jax.hf.tokenizer import TokenizerInfo

AUTO = "auto"
DEFAULT = "vicuna_v1"  # LLaVA-1.5's

# In names of checkpoints and of their parts, lower case; the first rule that fits any name counts.
_NAMES = (
    (r"bakllava|llava.*mistral|(mistral|mixtral).*instruct", "mistral_instruct"),
    (r"llama-?2.*chat", "llama_2"),
    (r"v1\.6-34b|hermes-2-yi", "chatml"),
    (r"qwen|smollm.*instruct", "chatml_qwen"),
    (r"llama-?3|phi-?3|gemma", ""),  # their prompts are none of the named ones
    (r"vicuna|llava", "vicuna_v1"),
)
# Where no name tells: the model type of the language model -> its template, and its family. Those
# of Phi-3 and Gemma are none of the named ones. Llama's and Mistral's types tell nothing.
_DECODERS = {
    "qwen2": ("chatml_qwen", "Qwen2"),
    "qwen3": ("chatml_qwen", "Qwen3"),
    "phi3": ("", "Phi-3"),
    "gemma2": ("", "Gemma 2"),
    "gemma3_text": ("", "Gemma 3"),
}
# How prompts of a family are told from others: marks that a chat template writes.
_MARKS = (
    ("chatml", ("<|im_start|>",)),
    ("inst", ("[INST]", "[/INST]")),
    ("llama_3", ("<|start_header_id|>",)),
    ("gemma", ("<start_of_turn>",)),
    ("phi_3", ("<|user|>", "<|assistant|>")),
    ("vicuna", ("USER:", "ASSISTANT:")),
)
_FAMILIES = {
    "vicuna_v1": "vicuna",
    "llama_2": "inst",
    "mistral_instruct": "inst",
    "chatml": "chatml",
    "chatml_qwen": "chatml",
}


@dataclass(frozen=True)
class TemplateFacts:
    """What a checkpoint's files say about its prompts.

    Attributes:
        file: where its chat template stands, "" without one.
        sample: what that writes of a question and an answer.
        named: the named template that it is word for word, as this program exports it; or "".
        names: what the checkpoint and its parts are called, in lower case.
        decoder: the model type of its language model, such as "qwen2".
    """

    file: str = ""
    sample: str = ""
    named: str = ""
    names: tuple[str, ...] = ()
    decoder: str = ""


@dataclass(frozen=True)
class TemplateChoice:
    """A template's name, a sentence that says why, and a warning ("" without cause for one)."""

    name: str
    reason: str
    warning: str = ""


def choose_template(value: str, facts: TemplateFacts) -> TemplateChoice:
    """Decides which template config.prompt.template stands for with a checkpoint.

    Args:
        value: "auto", or the name of a template, which is taken as it is.
        facts: of the checkpoint.
    """
    by_name, named_by = _by_name(facts)
    if value != AUTO:
        return TemplateChoice(value, "as configured", _warning(value, facts, by_name, named_by))
    if facts.named:
        reason = f"which the checkpoint's {facts.file} writes word for word"
        return TemplateChoice(facts.named, reason)
    if facts.file:
        return TemplateChoice("tokenizer", f"the checkpoint's own chat template, in {facts.file}")
    if by_name:
        reason = f"which {named_by} calls for; the checkpoint has no chat template"
        return TemplateChoice(by_name, reason)
    reason = "LLaVA-1.5's, as the checkpoint has neither a chat template nor a telling name"
    if named_by:
        warning = (
            f"{named_by} was not trained with {DEFAULT!r} prompts, and no named template is its "
            "own: put its chat_template.jinja into the checkpoint's folder"
        )
        return TemplateChoice(DEFAULT, reason, warning)
    return TemplateChoice(DEFAULT, reason)


def template_facts(
    info: TokenizerInfo, *, names: tuple[str, ...], decoder: str = ""
) -> TemplateFacts:
    """Gathers the facts of a checkpoint.

    Args:
        info: its tokenizer.
        names: folders, hub ids or paths of the checkpoint and of its parts; "" are left out.
        decoder: the model type of its language model.
    """
    own = info.tokenizer.chat_template
    asking = (name for name in NAMED_TEMPLATES if name != "plain")  # which has no questions
    ours = (name for name in asking if own == chat_template(name, info=info))
    lasts = (name.rstrip("/").rpartition("/")[2].lower() for name in names)
    return TemplateFacts(
        file=info.template_file,
        sample=_sample(info.tokenizer) if info.template_file else "",
        named=next(ours, ""),
        names=tuple(name for name in lasts if name),
        decoder=decoder,
    )


def _by_name(facts: TemplateFacts) -> tuple[str, str]:
    """The template that a name calls for, and that name; "" for what there is not."""
    for pattern, template in _NAMES:
        for name in facts.names:
            if re.search(pattern, name):
                return template, f"the name {name!r}"
    template, family = _DECODERS.get(facts.decoder, ("", ""))
    return template, f"the language model, a {family}," if family else ""


def _warning(value: str, facts: TemplateFacts, by_name: str, named_by: str) -> str:
    """Says so when a named template's kind is evidently another than the checkpoint's."""
    wanted = _FAMILIES.get(value)
    if wanted is None:  # "plain" has no turns, "tokenizer" is the checkpoint's own
        return ""
    found, evidence = _family(facts.sample), f"its {facts.file} writes"
    if not found:
        found, evidence = _FAMILIES.get(by_name, ""), f"{named_by} calls for"
    if found in ("", wanted):
        return ""
    return (
        f"config.prompt.template={value!r}: the checkpoint was hardly trained with such prompts; "
        f'{evidence} {found} ones. "auto" finds its own'
    )


def _family(sample: str) -> str:
    """The kind of prompts that a text is of, "" if it is none of those known."""
    fits = (family for family, marks in _MARKS if all(mark in sample for mark in marks))
    return next(fits, "")


def _sample(tokenizer: Any) -> str:
    said = [Said("user", "question"), Said("assistant", "answer")]
    try:
        return OwnTemplate(tokenizer, date=ANY_DATE).render(said, prompt=False)
    except UserError:  # told where the template is used
        return ""
