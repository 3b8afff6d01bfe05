"""Low-rank adapters in torch, for the contender that trains no more than ours does."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.adapters import start

PLACES = {
    "self_attn": {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"},
    "mlp": {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"},
}


class LoraLinear(torch.nn.Module):
    """A frozen linear map and its adapter.

    Args:
        base: the frozen map.
        a: float32[in, rank].
        b: float32[rank, out].
        scale: of the product.
    """

    def __init__(self, base: torch.nn.Linear, a: torch.Tensor, b: torch.Tensor, scale: float):
        super().__init__()
        self.base, self.scale = base, scale
        device = base.weight.device
        self.lora_a = torch.nn.Parameter(a.T.contiguous().to(device))
        self.lora_b = torch.nn.Parameter(b.T.contiguous().to(device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + F.linear(F.linear(x, self.lora_a), self.lora_b) * self.scale


def add_adapters(model: Any, *, rank: int, scale: float) -> None:
    """Adapters on all projections of the language model's blocks."""
    layers = model.model.language_model.layers
    for part, names in PLACES.items():
        for ours, theirs in names.items():
            base = getattr(getattr(layers[0], part), theirs)
            shape_a = (len(layers), base.in_features, rank)
            shape_b = (len(layers), rank, base.out_features)
            a = torch.from_numpy(start(f"decoder/blocks/{ours}/lora_a", shape_a))
            b = torch.from_numpy(start(f"decoder/blocks/{ours}/lora_b", shape_b))
            for number, layer in enumerate(layers):
                module = getattr(layer, part)
                wrapped = LoraLinear(getattr(module, theirs), a[number], b[number], scale)
                setattr(module, theirs, wrapped)
