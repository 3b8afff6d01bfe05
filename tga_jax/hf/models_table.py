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

`python -m tga_jax.hf.models_table > docs/models.md` makes this page. A test fails where it is
out of date.

A model is a vision tower, a projector and a language model. `config.model.checkpoint` is the folder
or hub id of a whole model. `config.model.vision` and `config.model.llm` are those of two parts,
which get a new projector. All of the models below can be trained, whole or with LoRA, asked, and
planned for. Their export has the class of LLaVA that they came as, and transformers loads it. If a
config.json asks for more than this, it is refused in one line that names the key.
"""

_TILES = """
## Images in tiles

A LLaVA-NeXT or LLaVA-OneVision sees an image as several tiles of its tower's size, and an image
takes as many tokens as its size calls for: up to 2,928 in LLaVA-1.6, up to about 8,800 in
LLaVA-OneVision. So `config.data.max_length` should be about 4096 for LLaVA-1.6, and about 10240
for LLaVA-OneVision. With a preset, `config.data.buckets` and `config.data.caption_buckets` should
be `()`, which stands for the usual lengths up to it, and `config.pretrain.max_length`, which a
preset lowers, should be 0 if that stage is run. Samples beyond it are left out, and the jobs say
how many. The number of tokens follows from the image's size alone, for
which every process reads the headers of all images of a step. Rows have room for one of a few
numbers of tiles, so that few programs are compiled.

The vectors that end rows of features ("newlines") are trained with the projector. In the mean state
of an image they do not count, as they are the same for all images and show nothing of one;
`config.guide.newlines` counts them in.

Some things are refused: videos; several images in one sample of LLaVA-OneVision, which shows these
untiled; `config.data.pad_to_square` "yes"; and resolutions that are no multiples of the tower's.
Where a newline was trained, adapters alone (PEFT) are not written, because PEFT saves modules. A
new projector between a tower and a language model takes each image as one tile.
"""

_TESTED = """
## What is tested

The tests build tiny models of each class with random weights, as published weights were not at
hand, and compare them with transformers in float32. For each kind of language model and each
tower they compare every layer's states, the logits, and decoding with a cache. For the newer
kinds they also compare greedy answers and the gradient of a guide, and check that the export
loads without missing or unexpected tensors. Import and export give the same bits. For images in
tiles they also compare the pixels, the number of tokens of hundreds of sizes, and what each token
shows, and all jobs run on a tiny model of each class. See `tests/models/test_parity.py`,
`test_families.py` and `test_tiles.py`, `tests/hf/test_weights.py` and `test_original.py`,
`tests/data/test_tiles.py` and `tests/jobs/test_tiles.py`.

## Where we decide

* The logits of a LLaVA over Gemma 2 are not capped, as `LlavaForConditionalGeneration` does not cap
  them; the attention's scores are. Greedy answers are the same with and without a cap.
* Dynamic rotary scaling uses each text's own length, so that an answer does not depend on its
  neighbours. Transformers uses the longest length of the batch.
* As in transformers, the embeddings of Gemma's tokens are scaled, and an image's features are not.
* A SigLIP's pooling head is left out, of the export too (`vision_use_head` false).
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
            f"\nThe rotary scaling may be {', '.join(KINDS)}. Windows may be those of some "
            "layers only.",
            "\n## Vision towers\n",
            *_towers(),
            "\nImages are square, of any size and patch. The features are those of one layer, or of"
            " several side by\nside, where `vision_feature_layer` is a list. The activation may be"
            f" {', '.join(ACTIVATIONS)}.\nThe image processor may be {', '.join(DEFAULTS)}.",
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
