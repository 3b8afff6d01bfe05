"""docs/models.md: which models load, train and export, made from the tables that do it.

python -m tga_jax.hf.models_table > docs/models.md
"""

from __future__ import annotations

from collections.abc import Iterable

from tga_jax.hf import original
from tga_jax.hf.decoders import DECODERS
from tga_jax.hf.llava_layout import FAMILIES
from tga_jax.hf.llavas import LLAVAS
from tga_jax.hf.peft_export import why_not
from tga_jax.hf.processor import DEFAULTS
from tga_jax.hf.rope_config import KINDS
from tga_jax.hf.towers import ACTIVATIONS, TOWERS

_HEAD = """# Models

Made by `python -m tga_jax.hf.models_table > docs/models.md`; a test fails where it is out of date.

A model is a vision tower, a projector and a language model. `config.model.checkpoint` is a folder
or hub id of a whole one; `config.model.vision` and `config.model.llm` are those of the parts, and
the projector is new. All of the models below train, whole or with LoRA, generate, are planned for,
and leave as the class of LLaVA that they came as, which transformers loads. What a config.json asks
for beyond this is refused in one line that names the key.
"""

_TILES = """
## Images in tiles

A LLaVA-NeXT or LLaVA-OneVision sees an image as several tiles of its tower's size, and an image
takes as many tokens as its size calls for: up to 2,928 in LLaVA-1.6, up to about 8,800 in
LLaVA-OneVision. So `config.data.max_length` should be about 4096 and 10240; samples beyond it are
left out, and the jobs say how many. The number of tokens follows from the image's size alone, for
which every process reads the headers of all images of a step. Rows have room for one of a few
numbers of tiles, so that few programs are compiled.

The vectors that end rows of features ("newlines") are trained with the projector. In the mean state
of an image they do not count, as they are the same for all images and show nothing of one;
`config.guide.newlines` counts them in.

Refused: videos; several images in one sample of LLaVA-OneVision (it shows these untiled);
`config.data.pad_to_square` "yes"; resolutions that are no multiples of the tower's. Adapters alone
(PEFT) are not written where a newline was trained, as PEFT saves modules. A new projector between a
tower and a language model takes each image as one tile.
"""

_TESTED = """
## What is tested

Against transformers, with the same random weights in float32, for each kind of language model and
each tower: every layer's states, logits, decoding with a cache; for the newer kinds also greedy
answers, the gradient of a guide, and that the export loads without missing or unexpected tensors.
Import and export give the same bits. For images in tiles also the pixels, the number of tokens of
hundreds of sizes, and what each token shows; and all jobs run on a tiny model of each class. See
`tests/models/test_parity.py`, `test_families.py` and `test_tiles.py`, `tests/hf/test_weights.py`
and `test_original.py`, `tests/data/test_tiles.py` and `tests/jobs/test_tiles.py`. The weights of
published checkpoints were not at hand: the tests build tiny models of each class.

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
            "## Classes of LLaVA\n",
            *_llavas(),
            "\n## Language models\n",
            *_decoders(),
            f"\nRotary scaling: {', '.join(KINDS)}. Windows may be those of some layers only.",
            "\n## Vision towers\n",
            *_towers(),
            "\nSquare images of any size and patch. Features of one layer, or of several side by"
            " side\n(`vision_feature_layer` a list)."
            f" Activations: {', '.join(ACTIVATIONS)}.\nImage processors: {', '.join(DEFAULTS)}.",
            "\n## Layouts\n",
            "* Hugging Face: the classes above, as transformers 4 and 5 write them.",
            f"* LLaVA's own repositories: {own}\n  (safetensors, projectors {projectors},"
            " `image_aspect_ratio` pad or square; the tower's weights\n  inside or apart)."
            " Written too, where `config.export.llava_tower` names the tower."
            " Not of images in tiles.",
            _TILES,
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


def _llavas() -> Iterable[str]:
    yield "| class | published models | an image is |"
    yield "|---|---|---|"
    for kind in LLAVAS.values():
        yield f"| `{kind.architecture}` | {kind.models} | {kind.images} |"


def _towers() -> Iterable[str]:
    yield "| model type | tower | published models | class token |"
    yield "|---|---|---|---|"
    for model_type, kind in TOWERS.items():
        token = "yes" if kind.fields.get("class_token", True) else "no: `feature_select` full"
        yield f"| `{model_type}` | {kind.name} | {kind.models} | {token} |"


if __name__ == "__main__":
    print(models_table(), end="")
