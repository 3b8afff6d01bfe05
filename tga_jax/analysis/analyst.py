"""The model under analysis: two passes over its prompts, compiled once for each kind of set."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from tga_jax.analysis import states as analyze_states
from tga_jax.analysis.kept_states import KeptStates
from tga_jax.analysis.logit_lens import refusal_direction
from tga_jax.analysis.prompts import (
    Prompt,
    analysed_system,
    analysis_apologies,
    images_of,
)
from tga_jax.analysis.states import Reference
from tga_jax.analysis.tables import Sums, direction_kind, sample_line, state_mean
from tga_jax.data.example import Example
from tga_jax.evaluation.examinee import question
from tga_jax.inference.prompt_states import PromptStates
from tga_jax.models.llava import Params
from tga_jax.parallel.sharding import replicated
from tga_jax.run.inference_batches import Batcher, InferenceBatch
from tga_jax.run.model import OpenModel
from tga_jax.run.prompts import make_prompter
from tga_jax.training.metrics import Progress


class Analyst:
    """A model, its prompts, and the compiled functions over batches of them."""

    def __init__(
        self,
        config: ConfigDict,
        model: OpenModel,
        prompts: Sequence[Prompt],
        kept: KeptStates | None = None,
    ) -> None:
        """Takes config.analyze; the states that were `kept` need no run of the model."""
        self._prompts, self._decoder = prompts, model.llava.config.decoder
        self._kept, self._dtype = kept, config.dtype
        self._kept_rows = kept.rows([prompt.item for prompt in prompts]) if kept else set()
        self.apologies = analysis_apologies(config, model.source.tokenizer.tokenizer)
        system = analysed_system(config, model.prompts)
        self._prompter = make_prompter(config, model.prompts, system=system)
        self._batcher, self._batch_size = Batcher.of(config.data, model), config.analyze.batch_size
        whole, llava = replicated(model.mesh), model.llava
        static = {"apologies": self.apologies}
        self._states = jax.jit(lambda *inputs: analyze_states.last_states(llava, *inputs))
        self._texts = analyze_states.jitted(analyze_states.text_sums, llava, whole, **static)
        self._captions = analyze_states.jitted(analyze_states.caption_sums, llava, whole)
        self._samples = {
            captions: analyze_states.jitted(
                analyze_states.sample_figures, llava, whole, captions=captions, **static
            )
            for captions in (False, True)
        }

    def first_pass(self, params: Params) -> Sums:
        """The sums of every set of texts or scenes, and the captions' ("captions")."""
        sums: Sums = {}
        wanted = [row for row, p in enumerate(self._prompts) if _has_sums(p)]
        for prompt, batch in self._batches("means", wanted, with_images=False):
            valid = jnp.array(np.arange(batch.arrays["tokens"].shape[0]) < len(batch.rows), "f4")
            if prompt.kind == "images":
                name, new = "captions", self._captions(params, batch.arrays, valid)
            else:
                name, new = prompt.set, self._texts(params, self._of(params, batch), valid)
            old = sums.setdefault(name, {})
            for key, value in jax.device_get(new).items():
                old[key] = old.get(key, 0.0) + value.astype(np.float64)
        return sums

    def second_pass(
        self, params: Params, sums: Sums, *, start: int
    ) -> Iterator[list[dict[str, Any]]]:
        """Yields the lines of samples.jsonl from number `start` on, a batch at a time."""
        reference = reference_of(sums, self._decoder.layers, self._decoder.width)
        for prompt, batch in self._batches("samples", range(start, len(self._prompts))):
            figures = self._samples[prompt.kind == "images"]
            out = figures(params, batch.arrays, self._of(params, batch), reference)
            out = jax.device_get(out)
            yield [
                sample_line(self._prompts[row], {k: v[..., i] for k, v in out.items()})
                for i, row in enumerate(batch.rows)
            ]

    def _batches(
        self, name: str, rows: Sequence[int], *, with_images: bool = True
    ) -> Iterator[tuple[Prompt, InferenceBatch]]:
        """Batches of one set each, in the order of the prompts, with a prompt of theirs."""
        progress, done = Progress(f"analyze {name}", len(rows)), 0
        folder = images_of(self._prompts)

        def encode(row: int) -> Example:
            example = self._prompter.encode_question(question(self._prompts[row].item), folder(row))
            need_images = with_images and not self._is_kept(row)
            return example if need_images else example.without_images()

        for _, chosen in itertools.groupby(
            rows, lambda row: (self._prompts[row].set, self._is_kept(row))
        ):
            for batch in self._batcher.batches(
                list(chosen),
                encode,
                batch_size=self._batch_size,
                image_dir=folder,
            ):
                yield self._prompts[batch.rows[0]], batch
                done += len(batch.rows)
                progress.show(done)

    def _is_kept(self, row: int) -> bool:
        return row in self._kept_rows

    def _of(self, params: Params, batch: InferenceBatch) -> PromptStates:
        """The states of a batch: those that were kept, of all its prompts, or the model's."""
        if self._kept is None or not self._is_kept(batch.rows[0]):
            states: PromptStates = self._states(params, batch.arrays)
            return states
        items = [self._prompts[row].item for row in batch.rows]
        size = len(batch.arrays["tokens"])
        return self._kept.read(items, layers=self._decoder.layers, size=size, dtype=self._dtype)


def _has_sums(prompt: Prompt) -> bool:
    """Whether the first pass reads it: all but images without a caption."""
    return prompt.kind != "images" or "caption" in prompt.item.extra


def reference_of(sums: Sums, layers: int, width: int) -> Reference:
    """The refusal direction and the mean caption state; zeros where there is none."""
    captions = sums.get("captions", {})
    mean = captions.get("states", np.zeros((layers, width))) / max(captions.get("count", 0), 1)
    refused, answered = np.zeros((2, layers, width))
    kind = direction_kind(sums)
    if kind is not None:
        refused, answered = (state_mean(sums, kind, which) for which in ("refused", "answered"))
    states = [jnp.array(value, jnp.float32) for value in (refused, answered)]
    return Reference(*refusal_direction(*states), jnp.array(mean, jnp.float32))
