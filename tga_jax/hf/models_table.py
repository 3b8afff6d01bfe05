"""docs/models.md: which models load, train and export, made from the tables that do it.

python -m tga_jax.hf.models_table > docs/models.md
"""

from __future__ import annotations

from collections.abc import Iterable

from tga_jax.hf import original
from tga_jax.hf.decoders import DECODERS
from tga_jax.hf.llava_layout import FAMILIES
from tga_jax.hf.peft_export import why_not
from tga_jax.hf.processor import DEFAULTS
from tga_jax.hf.rope_config import KINDS
from tga_jax.hf.towers import ACTIVATIONS, TOWERS

_HEAD = """# Models

Made by `python -m tga_jax.hf.models_table > docs/models.md`; a test fails where it is out of date.

A model is a vision tower, a projector and a language model. `config.model.checkpoint` is a folder
or hub id of a whole one; `config.model.vision` and `config.model.llm` are those of the parts, and
the projector is new. All of the models below train, whole or with LoRA, generate, are planned for,
and leave as a `LlavaForConditionalGeneration` that transformers loads. What a config.json asks for
beyond this is refused in one line that names the key.
"""

_TESTED = """
## What is tested

Against transformers, with the same random weights in float32, for each kind of language model and
each tower: every layer's states, logits, decoding with a cache; for the newer kinds also greedy
answers, the gradient of a guide, and that the export loads without missing or unexpected tensors.
Import and export give the same bits. See `tests/models/test_parity.py` and `test_families.py`, and
`tests/hf/test_weights.py` and `test_original.py`. The weights of published checkpoints were not at
hand: the tests build tiny models of each class.

## Where we decide

* The logits of a LLaVA over Gemma 2 are not capped, as `LlavaForConditionalGeneration` does not cap
  them; the attention's scores are. Greedy answers are the same with and without a cap.
* Dynamic rotary scaling goes by each text's own length; transformers goes by the longest of the
  batch. So an answer does not depend on its neighbours.
* Embeddings of Gemma's tokens are scaled, an image's features are not, as in transformers.
* A SigLIP's pooling head is left out, also of the export (`vision_use_head` false).
"""


def models_table() -> str:
    """The text of docs/models.md, made from the registries of this package."""
    projectors = " and ".join(f"`{name}`" for name in original.PROJECTORS)
    own = ", ".join(f"`{name}`" for name in original.CLASSES)
    return "\n".join(
        [
            _HEAD,
            "## Language models\n",
            *_decoders(),
            f"\nRotary scaling: {', '.join(KINDS)}. Windows may be those of some layers only.",
            "\n## Vision towers\n",
            *_towers(),
            "\nSquare images of any size and patch. Features of one layer, or of several side by"
            " side\n(`vision_feature_layer` a list)."
            f" Activations: {', '.join(ACTIVATIONS)}.\nImage processors: {', '.join(DEFAULTS)}.",
            "\n## Layouts\n",
            "* Hugging Face: `LlavaForConditionalGeneration`, as transformers 4 and 5 write it.",
            f"* LLaVA's own repositories: {own}\n  (safetensors, projectors {projectors},"
            " `image_aspect_ratio` pad or square; the tower's weights\n  inside or apart)."
            " Written too, where `config.export.llava_tower` names the tower.",
            _TESTED,
        ]
    )


def _decoders() -> Iterable[str]:
    yield "| model type | published models | adapters alone (PEFT) | LLaVA's own layout out |"
    yield "|---|---|---|---|"
    for model_type, kind in DECODERS.items():
        peft = "no: fused projections" if why_not(model_type) else "yes"
        layout = f"`{FAMILIES[model_type][1]}`" if model_type in FAMILIES else "no such class"
        yield f"| `{model_type}` | {kind.models} | {peft} | {layout} |"


def _towers() -> Iterable[str]:
    yield "| model type | tower | published models | class token |"
    yield "|---|---|---|---|"
    for model_type, kind in TOWERS.items():
        token = "yes" if kind.fields.get("class_token", True) else "no: `feature_select` full"
        yield f"| `{model_type}` | {kind.name} | {kind.models} | {token} |"


if __name__ == "__main__":
    print(models_table(), end="")
