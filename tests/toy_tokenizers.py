"""Small tokenizers of the two families, written to folders as real models have them."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

CORPUS = [
    "USER: What colour is the bus? ASSISTANT: Red.",
    "[INST] <<SYS>> You are a helpful language and vision assistant. <</SYS>> What? [/INST] A",
    "A chat between a curious user and an artificial intelligence assistant.",
    "Retrieved Text: a tea set on a table. Describe this image.",
    "naïve café, 42 naïve cafés",
] * 4

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Starts with the begin token at every turn, as Llama 2's own does.
INST_WITH_BOS = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# Of a multimodal model: loops over content items, shows nothing of a string.
LIST_ONLY = (
    "{% for message in messages %}<{{ message['role'] }}>{% for item in message['content'] %}"
    "{% if item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def write_sentencepiece_style(
    folder: Path, *, chat_template: str | None = None, within_words: bool = False
) -> Path:
    """Llama 2's kind: blanks as "▁", byte fallback, BOS added, no padding token.

    With `within_words` tokens are learnt within words, as SentencePiece does.
    """
    specials = ["<unk>", "<s>", "</s>"]
    alphabet = [*specials, *(f"<0x{value:02X}>" for value in range(256))]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=within_words)
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=alphabet, show_progress=False)
    )
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = state["added_tokens"][:3]  # bytes are of the vocabulary only
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = _adds("<s>", 1)
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config["tokenizer_class"] = "LlamaTokenizer"
    return _write(folder, tokenizer, config, model_type="llama", chat_template=chat_template)


def write_byte_level(
    folder: Path, *, bos: str | None = None, chat_template: str | None = CHATML
) -> Path:
    """Qwen's kind (no BOS, own padding token); with `bos` Llama 3's, which adds it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False),
    )
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *([bos] if bos else [])]
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    config = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if bos:
        config["bos_token"] = bos
        tokenizer.post_processor = _adds(bos, tokenizer.token_to_id(bos))
    return _write(folder, tokenizer, config, model_type="llama", chat_template=chat_template)


def write_split_digits(folder: Path, *, model_type: str = "llama") -> Path:
    """SmolLM2's and Granite's kind: tokenizer.json splits digits, the class it names does not.

    Its vocabulary has been learnt without that rule, so it holds numbers of several digits.
    """
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    numbers = [*CORPUS, "In 2023 it was in 2023, 2023, 42 and 42."] * 4
    learnt.train_from_iterator(
        numbers, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    digits = pre_tokenizers.Digits(individual_digits=True)
    learnt.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    learnt.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    learnt.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    config = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    config |= {"unk_token": "<|endoftext|>", "tokenizer_class": "GPT2Tokenizer"}
    return _write(folder, learnt, config, model_type=model_type, chat_template=CHATML)


def write_prepending(
    folder: Path, *, legacy: bool | None = None, model_type: str = "llama"
) -> Path:
    """Llama 2's and Vicuna's own tokenizer.json: a normalizer puts a blank before each piece of
    text, also behind special tokens, whatever "legacy" says."""
    write_sentencepiece_style(folder, within_words=True)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    state = json.loads(tokenizer.to_str()) | {"pre_tokenizer": None}
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"add_bos_token": True, "add_eos_token": False}
    config |= {} if legacy is None else {"legacy": legacy}
    return _write(folder, tokenizer, config, model_type=model_type, chat_template=None)


def _adds(bos: str, bos_id: int) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, bos_id)]
    )


def _write(
    folder: Path,
    tokenizer: Tokenizer,
    config: dict,
    *,
    model_type: str,
    chat_template: str | None,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    if chat_template:
        config["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder
