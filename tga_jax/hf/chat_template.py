"""Jinja chat templates that render the training prompts, for tokenizer and processor alike.

A template takes string content and list content ({"type": "image"}, {"type": "text", ...}); the
images of a turn go to its front, each as "<image>" and a newline. A message with role "system"
replaces the built-in system text. `apply_chat_template(..., retrieved_text="...")` puts
"Retrieved Text: ... . " in front of the first turn, as in training.

The begin token: LlavaProcessor tokenises the rendered text with a tokenizer that adds it, both in
`processor(text=...)` and in `processor.apply_chat_template(..., tokenize=True)`. So it isn't
rendered, as in the published LLaVA checkpoints. `tokenizer.apply_chat_template(...,
tokenize=True)` never adds special tokens; there it is missing. A tokenizer's own template may
write it: then it is taken off, unless the ids would change (SentencePiece's kind puts a blank
before the first word only when nothing stands there); then `save_tokenizer` has it added no more.
"""

from __future__ import annotations

from typing import Any

from tga_jax.errors import UserError
from tga_jax.hf.own_template import ANY_DATE, OwnTemplate, Said
from tga_jax.hf.tokenizer import IMAGE_TOKEN, TokenizerInfo, adds_bos

# Turns the messages into ns.turns (role, images, text) and ns.system.
_READ_MESSAGES = """\
{%- set ns = namespace(turns=[], system=SYSTEM, asked=false) -%}
{%- for message in messages -%}
{%- if message.content is string -%}
{%- set images, text = 0, message.content -%}
{%- else -%}
{%- set parts = message.content or [] -%}
{%- set images = parts | selectattr('type', 'in', ['image', 'image_url']) | list | length -%}
{%- set texts = parts | selectattr('type', 'equalto', 'text') | map(attribute='text') -%}
{%- set text = texts | join('\\n') -%}
{%- endif -%}
{%- set images = images + text.count('<image>') if message.role == 'user' else 0 -%}
{%- set text = text.replace('<image>', '') -%}
{%- if images -%}
{%- set text = text.strip() -%}
{%- endif -%}
{%- if message.role == 'system' -%}
{%- set ns.system = text -%}
{%- elif message.role in ['user', 'assistant'] -%}
{%- set lead = '' -%}
{%- if message.role == 'user' and not ns.asked -%}
{%- set ns.asked = true -%}
{%- if retrieved_text -%}
{%- set lead = 'Retrieved Text: ' + retrieved_text + '. ' -%}
{%- endif -%}
{%- endif -%}
{%- set shown = '<image>\\n' * images -%}
{%- set content = lead + (shown + text if text else shown.removesuffix('\\n')) -%}
{%- set turn = dict(role=message.role, images=images, text=text, content=content, lead=lead) -%}
{%- set ns.turns = ns.turns + [turn] -%}
{%- else -%}
{{- raise_exception('only the roles system, user and assistant are known') -}}
{%- endif -%}
{%- endfor -%}
"""

_NO_SYSTEM = """\
{%- if ns.system -%}
{{- raise_exception('this prompt template has no place for a system text') -}}
{%- endif -%}
"""

_PLAIN = """\
{{- '<image>' * (ns.turns | sum(attribute='images')) -}}
{%- for turn in ns.turns | selectattr('role', 'equalto', 'assistant') -%}
{%- if loop.first -%}
{{- turn.text + '\\n' -}}
{%- endif -%}
{%- endfor -%}
"""

_INST = """\
{%- for turn in ns.turns -%}
{%- if turn.role == 'assistant' -%}
{{- ' ' + turn.content + ' ' + eos_token -}}
{%- else -%}
{{- START + turn.content + ' [/INST]' -}}
{%- endif -%}
{%- endfor -%}
"""
_MISTRAL_START = "'[INST] '"
_LLAMA_2_START = """\
('' if loop.first else (bos_token or '')) + '[INST] ' + \
('<<SYS>>\\n' + ns.system + '\\n<</SYS>>\\n\\n' if loop.first and ns.system else '')"""

_VICUNA = """\
{{- ns.system + ' ' if ns.system else '' -}}
{%- for turn in ns.turns -%}
{%- if turn.role == 'assistant' -%}
{{- ' ASSISTANT: ' + turn.content + eos_token -}}
{%- else -%}
{{- 'USER: ' + turn.content -}}
{%- endif -%}
{%- endfor -%}
{{- ' ASSISTANT:' if add_generation_prompt else '' -}}
"""

_CHATML = """\
{{- '<|im_start|>system\\n' + ns.system + '<|im_end|>' if ns.system else '' -}}
{%- for turn in ns.turns -%}
{{- '<|im_start|>' + turn.role + '\\n' + turn.content + '<|im_end|>' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\\n' if add_generation_prompt else '' -}}
"""

_CHATML_QWEN = """\
{{- '<|im_start|>system\\n' + ns.system + '<|im_end|>\\n' if ns.system else '' -}}
{%- for turn in ns.turns -%}
{{- '' if loop.first else '\\n' -}}
{{- '<|im_start|>' + turn.role + '\\n' + turn.content + '<|im_end|>' -}}
{%- endfor -%}
{{- '\\n<|im_start|>assistant\\n' if add_generation_prompt else '' -}}
"""

# Around a tokenizer's own template. A set block catches what it renders.
_BEFORE_OWN = """\
{%- set own = namespace(messages=[]) -%}
{%- if ns.system -%}
{%- set own.messages = [dict(role='system', content=SYSTEM_CONTENT)] -%}
{%- endif -%}
{%- for turn in ns.turns -%}
{%- set end = CLOSING if turn.role == 'assistant' else '' -%}
{%- set own.messages = own.messages + [dict(role=turn.role, content=TURN_CONTENT)] -%}
{%- endfor -%}
{%- set messages = own.messages -%}
{%- set rendered +%}"""
# What a message is made of, by `OwnTemplate.content`. A retrieved text stands before the images,
# so there they are written by the text.
_CONTENTS = {
    "text": ("ns.system", "turn.content + end"),
    "text items": (
        "[dict(type='text', text=ns.system)]",
        "[dict(type='text', text=turn.content + end)]",
    ),
    "image items": (
        "[dict(type='text', text=ns.system)]",
        "[dict(type='text', text=turn.content + end)] if turn.lead else "
        "[dict(type='image')] * turn.images + [dict(type='text', text=turn.text + end)]",
    ),
}
_AFTER_OWN = "{%+ endset -%}\n{{- rendered -}}\n"
_AFTER_OWN_WITHOUT_BOS = """{%+ endset -%}
{{- rendered[bos_token | length:] if rendered.startswith(bos_token) else rendered -}}
"""

SYSTEM_TEXTS = {
    "llama_2": (
        "You are a helpful language and vision assistant. You are able to understand the visual "
        "content that the user provides, and assist the user with a variety of tasks using "
        "natural language."
    ),
    "vicuna_v1": (
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions."
    ),
    "chatml": "Answer the questions.",
    "chatml_qwen": "You are a helpful assistant.",
}

_BODIES = {
    "plain": _NO_SYSTEM + _PLAIN,
    "llama_2": _INST.replace("START", _LLAMA_2_START),
    "mistral_instruct": _NO_SYSTEM + _INST.replace("START", _MISTRAL_START),
    "vicuna_v1": _VICUNA,
    "chatml": _CHATML,
    "chatml_qwen": _CHATML_QWEN,
}
NAMED_TEMPLATES = tuple(_BODIES)


def chat_template(
    name: str, *, info: TokenizerInfo, system: str | None = None, trained: bool = False
) -> str:
    """Returns the Jinja source that renders the training prompts of template `name`.

    Args:
        name: one of `NAMED_TEMPLATES`, or "tokenizer" for the chat template that the tokenizer
            brings.
        info: the tokenizer; its image token is the one rendered.
        system: replaces the built-in system text; "" leaves it out; None keeps it.
        trained: whether the model was trained with it: then the tokenizer's end token closes each
            answer also where the tokenizer's own template writes none.

    Raises:
        UserError: for an unknown name, or when the tokenizer has no chat template of its own.
    """
    if name == "tokenizer":
        body = _around_own(info.tokenizer, trained=trained)
    elif name in _BODIES:
        body = _BODIES[name]
    else:
        raise UserError(f"config.prompt.template {name!r}: choose one of {[*_BODIES, 'tokenizer']}")
    text = SYSTEM_TEXTS.get(name, "") if system is None else system
    head = _READ_MESSAGES.replace("SYSTEM", _jinja_string(text))
    return (head + body).replace(IMAGE_TOKEN, info.image_token)


def _around_own(tokenizer: Any, *, trained: bool) -> str:
    """The tokenizer's own template between lines that make its messages and take off the BOS."""
    own = OwnTemplate(tokenizer, date=ANY_DATE)
    system, turn = _CONTENTS[own.content]
    before = _BEFORE_OWN.replace("SYSTEM_CONTENT", system).replace("TURN_CONTENT", turn)
    before = before.replace("CLOSING", "''" if own.closes or not trained else "eos_token")
    text = own.render([Said("user", "probe")], prompt=False)
    strip = adds_bos(tokenizer) and _same_without_bos(tokenizer, text)
    # With its calls for today's date as they are; and Jinja drops a last newline.
    source = tokenizer.chat_template
    source = (source["default"] if isinstance(source, dict) else source).removesuffix("\n")
    return before + source + (_AFTER_OWN_WITHOUT_BOS if strip else _AFTER_OWN)


def _same_without_bos(tokenizer: Any, text: str) -> bool:
    """Whether a text that starts with BOS has the ids that it has when the tokenizer adds it."""
    as_written = tokenizer(text, add_special_tokens=False).input_ids
    return as_written == tokenizer(text.removeprefix(tokenizer.bos_token)).input_ids


def _jinja_string(text: str) -> str:
    """A Jinja string literal; Jinja reads escapes as Python's unicode_escape."""
    return "'" + text.encode("unicode_escape").decode("ascii").replace("'", "\\'") + "'"
