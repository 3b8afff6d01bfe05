"""The method's step in torch and transformers, in three ways, to be timed beside ours.

    sdpa      as a careful user writes it: fused attention, and of the hidden states only the means
              over spans are kept (forward hooks on the decoder's layers)
    selected  the same, and logits only where a label is
    release   as the published code does: eager attention, all hidden states and all attention
              maps of both passes kept until the backward pass

All compute the same loss (`tga_jax.alignment.guide`, form "paper", all layers) with the caption
pass without gradient; the vision tower is frozen, the rest is trained.

Letters: B rows, T tokens, N spans, L layers, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tga_jax.hf.processor import CLIP_MEAN, CLIP_STD

WAYS = ("sdpa", "selected", "release")


def read_model(folder: Path, way: str) -> Any:
    """transformers' model from a folder, float32, in training mode, vision tower frozen."""
    import transformers

    attention = "eager" if way == "release" else "sdpa"
    model = transformers.LlavaForConditionalGeneration.from_pretrained(
        folder, attn_implementation=attention, dtype=torch.float32
    )
    model.train()
    model.model.vision_tower.requires_grad_(False)
    return model


class TorchStep:
    """Forward, guide, caption pass, backward, clipping and AdamW on one batch.

    Args:
        model: LlavaForConditionalGeneration.
        batch: as `tga_jax.planning.synthetic.made_up_batch` makes it, without the leading axis.
        way: one of `WAYS`.
        learning_rate: constant.
    """

    def __init__(
        self,
        model: Any,
        batch: Mapping[str, np.ndarray],
        way: str,
        *,
        learning_rate: float,
    ) -> None:
        self._model, self._way = model, way
        self._batch = to_torch(batch, model.device, model.dtype)
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._trained, lr=learning_rate, weight_decay=0.0, fused=True
        )
        self._pooled: list[torch.Tensor] = []
        self._mask = torch.zeros(0)
        layers = model.model.language_model.layers
        # transformers' last hidden state is behind the final norm; the method's is before it.
        for layer in layers[-1:] if way == "release" else layers:
            layer.register_forward_hook(self._pool)

    def step(self) -> float:
        """One optimizer step; returns the loss."""
        loss = self.backward()
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimizer.step()
        return float(loss.detach())

    def backward(self) -> torch.Tensor:
        """The loss; gradients lie in the parameters' `.grad`."""
        self._optimizer.zero_grad(set_to_none=True)
        nll, states = self._main_pass()
        with torch.no_grad():
            caption = self._caption_pass()[:, :, 0]
        loss = nll + guide_loss(states[:, :, 0], states[:, :, 1], caption)
        loss.backward()
        return loss

    def first_moments(self) -> dict[str, np.ndarray]:
        """Adam's, by parameter name: 0.1 of the clipped gradient after one step."""
        state = self._optimizer.state
        return {
            name: state[p]["exp_avg"].float().cpu().numpy().copy()
            for name, p in self._model.named_parameters()
            if p in state
        }

    def _main_pass(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean negative log-likelihood, and span means float32[L, B, 2, D]."""
        batch, model = self._batch, self._model
        inputs = {"input_ids": batch["tokens"], "pixel_values": batch["pixels"]}
        targets = batch["labels"][:, 1:]
        self._pooled, self._mask = [], batch["spans"]
        if self._way == "release":
            out = model(**inputs, output_hidden_states=True, output_attentions=True)
            nll = F.cross_entropy(out.logits[:, :-1].flatten(0, 1).float(), targets.flatten())
            return nll, self._all_means(out.hidden_states, batch["spans"])
        hidden = model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
        if self._way == "selected":
            hidden, targets = hidden[batch["labelled"]], targets[batch["labelled"]]
        else:
            hidden, targets = hidden.flatten(0, 1), targets.flatten()
        return F.cross_entropy(model.lm_head(hidden).float(), targets), torch.stack(self._pooled)

    def _caption_pass(self) -> torch.Tensor:
        """Span means of the text-only pass: float32[L, B, 1, D]."""
        batch, text = self._batch, self._model.model.language_model
        self._pooled, self._mask = [], batch["caption_spans"]
        if self._way == "release":
            out = text(
                input_ids=batch["caption_tokens"], output_hidden_states=True, output_attentions=True
            )
            return self._all_means(out.hidden_states, batch["caption_spans"])
        text(input_ids=batch["caption_tokens"], use_cache=False)
        return torch.stack(self._pooled)

    def _all_means(self, states: Sequence[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
        inner = span_means(torch.stack(list(states[1:-1])), weights)
        return torch.cat([inner, torch.stack(self._pooled)])

    def _pool(self, module: Any, inputs: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        self._pooled.append(span_means(hidden, self._mask))


def to_torch(batch: Mapping[str, np.ndarray], device: Any, dtype: Any) -> dict[str, torch.Tensor]:
    """What the step reads: ids int64[B, T], pixels [B, 3, side, side], span weights [B, N, T]."""
    pixels = (batch["images"][:, 0] / 255 - np.array(CLIP_MEAN)) / np.array(CLIP_STD)
    arrays = {name: batch[name].astype(np.int64) for name in ("tokens", "labels", "caption_tokens")}
    arrays["labelled"] = batch["labels"][:, 1:] != -100
    spans = np.stack([batch["image_span"], batch["retrieved_span"]], axis=1)
    floats = {
        "pixels": pixels.transpose(0, 3, 1, 2),
        "spans": span_weights(spans, batch["tokens"].shape[1]),
        "caption_spans": span_weights(
            batch["caption_span"][:, None], batch["caption_tokens"].shape[1]
        ),
    }
    out = {name: torch.tensor(array, device=device) for name, array in arrays.items()}
    return out | {name: torch.tensor(a, dtype=dtype, device=device) for name, a in floats.items()}


def span_weights(spans: np.ndarray, length: int) -> np.ndarray:
    """int[B, N, 2] -> float[B, N, T], rows that sum to one."""
    place = np.arange(length)
    inside = (place >= spans[..., :1]) & (place < spans[..., 1:])
    return inside / inside.sum(axis=-1, keepdims=True)


def span_means(hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """[..., B, T, D], [B, N, T] -> float32[..., B, N, D]."""
    return (weights @ hidden).float()


def guide_loss(image: torch.Tensor, retrieved: torch.Tensor, caption: torch.Tensor) -> torch.Tensor:
    """float32[L, B, D] each -> the paper's terms, summed over layers, their mean over rows."""
    pair = F.cosine_similarity(image, caption, dim=-1)
    hinge = F.softplus(F.cosine_similarity(retrieved, caption, dim=-1) - pair)
    return (hinge - pair).sum(dim=0).mean()
