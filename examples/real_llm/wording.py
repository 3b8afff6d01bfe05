"""How much of what the language model makes of a caption is the thing, and how much the wording.

    python -m examples.real_llm.wording --workdir=runs/real

The pair term compares the mean state of an image with that of its caption, centred. Of captions of
stage 1, in the image's place of SmolLM2's prompt, this prints for some layers the share of the
variance among their mean states that the thing they name accounts for, and the share that their
opening words do ("a photo of", "there is"), which no image can tell. Needs torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from examples.real_llm.data import named_only, opening_of
from tga_jax.files import read_json

LAYERS = (5, 10, 15, 20, 25, 30)
PER_THING = 10
BEFORE = "<|im_start|>user\n"


def variance_share(states: np.ndarray, groups: Sequence[Hashable]) -> float:
    """Between groups over total sum of squares of states [samples, width]; one group a sample."""
    centred = states - states.mean(axis=0)
    names, places = np.unique(np.array(groups), return_inverse=True)
    means = [centred[places == number].mean(axis=0) for number in range(len(names))]
    between = sum((mean**2).sum() * (places == number).sum() for number, mean in enumerate(means))
    return float(between / (centred**2).sum())


def some_captions(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The first captions of every thing, as many of each."""
    counts: dict[str, int] = {}
    for row in rows:
        thing = named_only(row["image_caption"])
        counts[thing] = counts.get(thing, 0) + 1
        if counts[thing] <= PER_THING:
            yield row["image_caption"]


def mean_states(folder: Path, captions: Sequence[str]) -> np.ndarray:
    """float[layers, captions, width]: the mean over a caption's tokens behind `BEFORE`."""
    import torch
    import transformers

    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    before = tokenizer(BEFORE).input_ids
    means = []
    for caption in captions:
        tokens = torch.tensor([before + tokenizer(caption).input_ids])
        with torch.no_grad():
            states = model.model.language_model(tokens, output_hidden_states=True).hidden_states
        means.append([states[n][0, len(before) :].mean(dim=0).numpy() for n in LAYERS])
    return np.swapaxes(np.array(means), 0, 1)


def main() -> None:
    """Print a table of the shares."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True)
    workdir = parser.parse_args().workdir
    captions = [*some_captions(read_json(workdir / "world/pretrain.json"))]
    states = mean_states(workdir / "safety/export", captions)
    groups = {
        "the thing": [named_only(caption) for caption in captions],
        "the opening words": [opening_of(caption) for caption in captions],
    }
    print(f"{len(captions)} captions; share of the variance of their mean states by layer")
    print("layer", *(f"{layer:6}" for layer in LAYERS))
    for name, of_caption in groups.items():
        print(name, *(f"{variance_share(layer, of_caption):6.2f}" for layer in states))


if __name__ == "__main__":
    main()
