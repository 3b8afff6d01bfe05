"""Work on any Hugging Face LLaVA checkpoint that you name.

    tga --config=from_hf:tga_answer_projector+gpu80 --workdir=runs/mine \\
        --config.model.checkpoint=FOLDER_OR_HUB_ID \\
        --config.data.path=samples.json --config.data.image_dir=images \\
        --job=inspect,score,finetune,score,export

Behind the colon stand a recipe and a preset, joined by "+", or one of them alone. The recipe says
what is switched on: `tga_answer`, the guide that the evidence so far supports, alone or with the
projector as all that is trained (`tga_answer_projector`), `tga_centred`, the paper's pair term in
the form that did best with SmolLM2, or `tga`, the guide as published; docs/method.md tells them
apart. The preset fits both stages to hardware: `gpu80` (one GPU of 80 GB), `gpu24`,
`gpu8x80`, `v5e16`, `v5p8` or `laptop`; docs/presets.md has what each needs.

A preset alone takes the recipe `tga_answer`. Without either, the recipe is `tga`, and the settings
are those for trying things out on a small model: float32, all weights trained, batches of 8.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from tga_jax.config import (
    ANSWER_GUIDE,
    CENTRED_GUIDE,
    PAPER_GUIDE,
    PROJECTOR_AND_LORA,
    PROJECTOR_ONLY,
    base_config,
    check_variant,
)

# --- recipes: what is switched on ---


def tga(config: ConfigDict) -> None:
    """The guide as published: both of the paper's terms at weight 1, raw states, all layers.

    Of it is known that in our miniature it carries no refusal over to images and costs half of
    the naming (docs/miniature.md). With SmolLM2 on ordinary samples it carries next to none over,
    but as many as the answer term if a retrieved text stands in the prompt at test, unless such
    texts stood in the prompts of the training, too (docs/real_llm.md). Both are small. It wants
    samples with a caption, and with a retrieved text for the second term.
    """
    config.guide.update(PAPER_GUIDE)


def tga_answer(config: ConfigDict) -> None:
    """The answer term alone, centred.

    It is not in the paper. In the miniature it carries over nine tenths of the refusals for things
    that alignment shows, a quarter or more for others of their kind, for two to five points of
    naming, by its weight, and with SmolLM2 a third to half and 7% to 19% (three seeds). Where
    harmful images are known and have captions and no answers, it carries over more, at a lower
    price. It wants captions that answer the questions, and counts where a template has a question,
    so not in the first stage with its template "plain".
    """
    config.guide.update(ANSWER_GUIDE)
    config.prompt.retrieved = False  # the answer is to be read off the image; no term uses the text


def tga_answer_projector(config: ConfigDict) -> None:
    """The answer term alone, and nothing is trained but the projector, at its rate of stage 1.

    Of a preset's own trained parts and rates is known that in the miniature they carry next to
    nothing over, where a projector is that was trained before: 2% and 6% of the harmful images are
    refused, and 36% with this recipe (docs/presets.md). It wants what `tga_answer` wants.
    """
    tga_answer(config)
    config.lora.rank = 0
    config.finetune.trainable = PROJECTOR_ONLY
    config.finetune.learning_rate = config.pretrain.learning_rate


def tga_centred(config: ConfigDict) -> None:
    """The paper's pair term alone, centred, in stage 2.

    With SmolLM2 it carries refusals over where harmful images have captions and no answers, most of
    all where these lack opening words, and fewer where all images have answers. Answers say less
    then (docs/real_llm.md). It wants a language model whose row "mean-centred" of job
    `oracle` refuses.
    """
    config.guide.update(CENTRED_GUIDE)
    config.pretrain.guide = False  # many tokenizers put nothing before the image there
    config.prompt.retrieved = False  # no term uses the text


def audit_only(config: ConfigDict) -> None:
    """No training: the checkpoint as it is, asked and judged, and its layers looked at.

    It needs config.evaluate.benchmarks, as configs/audit.py says, which has more of it.
    """
    config.jobs = ("evaluate", "analyze", "report")
    config.guide.form = "none"
    config.generate.batch_size = 16


# --- presets: what fits which hardware ---

# Each length is a program that takes minutes to compile; an image of LLaVA-1.5 has 576 tokens.
BUCKETS = (640, 768, 1024, 1536, 2048)


def _large(
    config: ConfigDict, *, rows: int, topology: str, remat: str = "full", longest: int = BUCKETS[-1]
) -> None:
    """A 7B model in bfloat16, with LLaVA's batches.

    Args:
        config: is changed.
        rows: samples that are in memory at once, on all devices together; the batches of 256 and
            128 are accumulated from so many.
        topology: the hardware, as job `plan` names it.
        remat: what blocks keep for their backward pass.
        longest: tokens of the longest sample of the second stage.
    """
    config.dtype = "bfloat16"
    config.model.remat = remat
    config.plan.topology = topology
    config.plan.caption_length = 256
    config.data.max_length = longest
    config.data.buckets = tuple(length for length in BUCKETS if length <= longest)
    config.data.caption_buckets = (64, 256, longest)
    config.pretrain.max_length = 1024
    config.pretrain.batch_size, config.finetune.batch_size = 256, 128
    for stage in (config.pretrain, config.finetune):
        stage.accumulate = stage.batch_size // rows
        stage.save_every = 100


def _adapters(config: ConfigDict, *, rank: int) -> None:
    """The decoder is trained by adapters, at LLaVA's rates."""
    config.lora.rank, config.lora.alpha = rank, 2.0 * rank
    config.finetune.trainable = PROJECTOR_AND_LORA
    config.finetune.learning_rate = 2e-4


def gpu80(config: ConfigDict) -> None:
    """A 7B model on one GPU of 80 GB: adapters of rank 128 and the projector, 8 samples at once."""
    _large(config, rows=8, topology="h100:1")
    _adapters(config, rank=128)


def gpu24(config: ConfigDict) -> None:
    """A 7B model on one GPU of 24 GB: adapters of rank 64 and the projector, 2 samples at once.

    The frozen matrices are kept in 4 bits: in bfloat16 they alone are 12 GiB.
    """
    _large(config, rows=2, topology="rtx4090:1")
    _adapters(config, rank=64)
    config.model.quantize = "nf4"


def gpu8x80(config: ConfigDict) -> None:
    """A 7B model on eight GPUs of 80 GB: all weights but the tower's, 32 samples at once."""
    _large(config, rows=32, topology="h100:8", remat="dots")


def v5e16(config: ConfigDict) -> None:
    """A 7B model on 16 chips of TPU v5e: all weights but the tower's, 16 samples at once."""
    _large(config, rows=16, topology="v5e:4x4")


def v5p8(config: ConfigDict) -> None:
    """A 7B model on 8 chips of TPU v5p: all weights but the tower's, 32 samples at once."""
    _large(config, rows=32, topology="v5p:2x2x2", remat="dots")


def laptop(config: ConfigDict) -> None:
    """A LLaVA made of SmolLM2-135M-Instruct and CLIP ViT-B/32, on a CPU with 16 GB of memory.

    A checkpoint of your own, with --config.model.checkpoint, takes the place of these two.
    """
    config.model.vision = "openai/clip-vit-base-patch32"
    config.model.llm = "HuggingFaceTB/SmolLM2-135M-Instruct"
    config.model.remat = "dots"
    config.data.max_length = 512
    config.data.buckets = (128, 256, 512)
    config.data.caption_buckets = (64, 512)
    config.plan.caption_length = 64


RECIPES: dict[str, Callable[[ConfigDict], None]] = {
    "tga": tga,
    "tga_answer": tga_answer,
    "tga_answer_projector": tga_answer_projector,
    "tga_centred": tga_centred,
    "audit_only": audit_only,
}
RECOMMENDED = "tga_answer"
PRESETS: dict[str, Callable[[ConfigDict], None]] = {
    "gpu80": gpu80,
    "gpu24": gpu24,
    "gpu8x80": gpu8x80,
    "v5e16": v5e16,
    "v5p8": v5p8,
    "laptop": laptop,
}
VARIANTS = RECIPES | PRESETS


def get_config(variant: str = "tga") -> ConfigDict:
    """The defaults, with batches small enough to try things out, as the variant changes them.

    Args:
        variant: a name in RECIPES, one in PRESETS, or both with "+" between them.
    """
    names = variant.split("+")
    if not all(names):
        raise ValueError(f"{variant!r}: a name is missing beside the '+'")
    for name in names:
        check_variant(name, VARIANTS)
    recipes = [name for name in names if name in RECIPES] or [RECOMMENDED]
    presets = [name for name in names if name in PRESETS]
    if len(recipes) > 1 or len(presets) > 1:
        raise ValueError(f"{variant!r}: one recipe and one preset at most")
    config = base_config()
    config.jobs = ("inspect", "score")
    for stage in (config.pretrain, config.finetune):
        stage.batch_size = 8
        stage.save_every = 100
    for name in (*presets, *recipes):
        VARIANTS[name](config)
    return config.lock()
