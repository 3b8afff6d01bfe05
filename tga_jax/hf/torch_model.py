"""Replies from a model in a local folder, through transformers and torch where both are there.

Both are optional and imported only when such a judge is asked for.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.hf.tokenizer import load_fast

Chat = list[dict[str, Any]]  # messages with a role and parts, as chat templates take them


@dataclasses.dataclass(frozen=True)
class LocalModel:
    """A chat model in a Hugging Face folder.

    Attributes:
        folder: with weights as safetensors and a chat template.
        images: whether it takes images (an image-text-to-text model).
        batch_size: chats at a time.
        max_new_tokens: of a reply.
    """

    folder: str
    images: bool = False
    batch_size: int = 8
    max_new_tokens: int = 16

    def __call__(self, chats: Sequence[Chat]) -> list[str]:
        """The replies, in order, greedily decoded.

        Raises:
            UserError: torch or transformers is missing, or the folder can't be loaded.
        """
        replies: list[str] = []
        if chats:
            processor, model = self._loaded
            for start in range(0, len(chats), self.batch_size):
                batch = list(chats[start : start + self.batch_size])
                replies += self._replies(processor, model, batch)
        return replies

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any]:
        return _load(self.folder, self.images)

    def _replies(self, processor: Any, model: Any, chats: list[Chat]) -> list[str]:
        fed = processor.apply_chat_template(
            [self._messages(chat) for chat in chats],
            add_generation_prompt=True,
            tokenize=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        ).to(model.device)
        out = model.generate(**fed, max_new_tokens=self.max_new_tokens, do_sample=False)
        new = out[:, fed["input_ids"].shape[1] :]
        return [str(text) for text in processor.batch_decode(new, skip_special_tokens=True)]

    def _messages(self, chat: Chat) -> list[dict[str, Any]]:
        """Lists of parts for a processor, plain strings for a tokenizer."""
        if not self.images:
            texts = ["".join(p.get("text", "") for p in message["content"]) for message in chat]
            return [
                {"role": m["role"], "content": text} for m, text in zip(chat, texts, strict=True)
            ]
        return [
            {
                "role": message["role"],
                "content": [
                    part if part["type"] == "text" else {"type": "image", "path": part["path"]}
                    for part in message["content"]
                ],
            }
            for message in chat
        ]


def _load(folder: str, images: bool) -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UserError(
            "the judge local needs torch and transformers; install both with pip"
        ) from error
    names = ("AutoModelForCausalLM", "AutoModelForImageTextToText")
    model = getattr(transformers, names[images])
    try:
        if images:
            processor = transformers.AutoProcessor.from_pretrained(
                folder, trust_remote_code=False, padding_side="left"
            )
        else:  # AutoTokenizer does not always read tokenizer.json as it stands
            processor = load_fast(Path(folder), padding_side="left")
        weights = model.from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, dtype="auto"
        )
    except (OSError, ValueError, UserError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"config.evaluate.local.folder={folder!r}: {reason}") from error
    tokenizer = getattr(processor, "tokenizer", processor)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor, weights.eval().to("cuda" if torch.cuda.is_available() else "cpu")
