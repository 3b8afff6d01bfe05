"""A real language model under the miniature's images: does a guide carry its refusals over?

docs/real_llm.md has the question, the commands in their order and what came of them. The language
model is SmolLM2-135M-Instruct in runs/real/smollm2 (`examples/real_llm/convert.py`); world and CLIP
are the miniature's, in runs/real.

    W=runs/real
    tga --config=smollm2:texts     --workdir=$W            # as it is: its answers, its refusals
    tga --config=smollm2:safety    --workdir=$W/safety     # is taught to refuse texts
    tga --config=smollm2:projector --workdir=$W/projector  # which states decide a refusal
    tga --config=smollm2           --workdir=$W            # alignment, with and without a guide
    tga --config=smollm2:defences  --workdir=$W/defences   # what needs no training, on the baseline
    tga --config=smollm2:finished  --workdir=$W/finished   # the baseline, aligned once more
"""

from ml_collections import ConfigDict

from tga_jax.config import (
    ANSWER_GUIDE,
    PAPER_GUIDE,
    PROJECTOR_ONLY,
    base_config,
    check_variant,
)
from tga_jax.miniature.measures import SUMMARY, images, matched

# The language model learns 500 times more slowly than the projector does, as in the paper more
# slowly than the projector does in stage 1. (There both have the lower rate in stage 2.)
PAPER_RATES = (("vision/.*", None), ("projector/.*", 1.0), ("decoder/.*", 0.002))
ADAPTERS = (("decoder/.*/lora_.*", 1.0), (".*", None))

BASELINE: dict = {"guide": {"form": "none"}}
TGA = {"guide": dict(PAPER_GUIDE)}
TGA_CENTRED = {"guide": PAPER_GUIDE | {"center": "batch"}}
# At weight 1 of 30 layers the guide is so strong that the projector learns little to name.
TGA_GENTLE = {"guide": TGA_CENTRED["guide"] | {"pair_weight": 0.1, "hinge_weight": 0.1}}
# Stage 1 has no questions, and so no state where an answer begins. Nor do its means say much: this
# tokenizer puts nothing before the image or the caption, and the state of a sequence's first token
# is 20 to 190 times as long as the others on most layers (an attention sink).
UNGUIDED = {"guide": False}
STAGE_2 = {"pretrain": UNGUIDED}
TGA_ANSWER = {"guide": dict(ANSWER_GUIDE)} | STAGE_2
# A language model that learns also reads texts, some of which it must go on to refuse.
SLOW = {"finetune": {"trainable": PAPER_RATES, "path": "{workdir}/real/finetune.json"}}
# The paper's prompts have a retrieved text in stage 2, which its hinge term compares: run
# `--job=index,retrieve` before. Images are asked about without one, as in the other arms.
RETRIEVED = {"data": {"retrieved": "{workdir}/retrieved.jsonl", "retrieved_share": 1.0}}
HARMLESS = UNGUIDED | {"path": "{workdir}/world/pretrain_harmless.json"}
# The miniature's CLIP with 16 patches an image, not four: `tga --config=miniature --job=miniature
# --workdir={workdir}/17-tokens --config.miniature.clip.patch_pixels=12` before, and the language
# model by itself (examples/real_llm/language.py).
TOKENS_17 = {
    "model": {
        "checkpoint": "",
        "vision": "{workdir}/17-tokens/clip",
        "llm": "{workdir}/safety/llm",
    }
}
# What the rows of images are in place of the world's own, by the file that has them
# (examples/real_llm/data.py). Where an image has a caption and no answers, the guide does not meet
# the language-modelling loss: harmful ones ("captioned"), which stage 1 then leaves out, or all.
# The world's captions differ as much by their wording as by the thing they name, and no image
# can tell their wording. "named" captions only name the thing; "bare" ones lack opening words.
STAGES = {
    "captioned": HARMLESS,
    "guide_only": UNGUIDED,
    "named": UNGUIDED,
    "named_captioned": HARMLESS,
    "bare_captioned": HARMLESS,
}
ROWS = {
    rows: {"pretrain": first, "finetune": {"path": f"{{workdir}}/real/finetune_{rows}.json"}}
    for rows, first in STAGES.items()
}
ARMS: dict[str, dict] = {
    "baseline": BASELINE,
    "tga": TGA,
    "tga-answer": TGA_ANSWER,
    "tga-centred": TGA_CENTRED,
    "tga-centred-tenth": TGA_GENTLE,
    "tga-centred-stage-2": TGA_CENTRED | STAGE_2,
    "baseline-captioned": BASELINE | ROWS["captioned"],
    "tga-answer-captioned": TGA_ANSWER | ROWS["captioned"],
    "tga-centred-captioned": TGA_CENTRED | ROWS["captioned"],
    "tga-centred-alone": TGA_CENTRED | ROWS["guide_only"],
    "tga-centred-named": TGA_CENTRED | ROWS["named"],
    "tga-centred-named-captioned": TGA_CENTRED | ROWS["named_captioned"],
    "tga-centred-bare-captioned": TGA_CENTRED | ROWS["bare_captioned"],
    "tga-centred-tenth-bare-captioned": TGA_GENTLE | ROWS["bare_captioned"],
    "tga-named-captioned": TGA | ROWS["named_captioned"],
    "baseline-retrieved": BASELINE | RETRIEVED,
    "tga-retrieved": TGA | RETRIEVED,
    "baseline-17-tokens": BASELINE | TOKENS_17,
    "tga-answer-17-tokens": TGA_ANSWER | TOKENS_17,
    "baseline-llm-trained": BASELINE | SLOW,
    "tga-llm-trained": TGA | SLOW,
    "tga-answer-llm-trained": TGA_ANSWER | SLOW,
}
# The guide alone, without a language-modelling loss, on the few images of the oracle.
PROJECTOR: dict[str, dict] = {
    "mean": TGA,
    "mean-centred": TGA_CENTRED,
    "answer-centred": TGA_ANSWER,
}
# The baseline with defences that need no training, and a retrieved text before trained models.
WITH_TEXT = (
    *("baseline-seed-1", "baseline-seed-2", "tga", "tga-seed-1", "tga-seed-2"),
    *("tga-answer", "tga-answer-seed-1", "tga-answer-seed-2"),
    *("tga-centred-bare-captioned", "tga-answer-captioned"),
    *("baseline-retrieved", "tga-retrieved"),
)
FOUND = {"retrieval": {"index": "{workdir}/index"}}
DEFENCES: dict[str, dict] = {
    "undefended": {},
    "safety-prompt": {"evaluate": {"profile": "paper"}},
    "retrieved-text": FOUND,
    "zero-shot": {"evaluate": {"defence": "zero_shot"}},
    "steering": {"evaluate": {"defence": "steering"}},
    **{
        f"{name}-retrieved-text": FOUND
        | {"model": {"checkpoint": f"{{workdir}}/../arms/{name}/export"}}
        for name in WITH_TEXT
    },
}
SEEDS = range(3)
# Figures of the miniature that have no question here: its texts have a right answer.
UNASKED = ("attributes/all/accuracy", "texts/all/accuracy")
SEVERAL = (  # all seeds
    *("baseline", "tga", "tga-answer"),
    *("baseline-captioned", "tga-centred-bare-captioned", "tga-answer-captioned"),
)


def arms() -> dict:
    """Arm -> the keys that it changes; all seeds of some."""
    seeds = {
        f"{name}-seed-{seed}": {**ARMS[name], "seed": seed}
        for name in SEVERAL
        for seed in SEEDS[1:]
    }
    return ARMS | seeds


def _model(config: ConfigDict, root: str) -> None:
    config.model.vision = f"{root}/clip"
    config.model.llm = f"{root}/smollm2"
    config.model.feature_layer = -1
    config.model.feature_select = "full"
    config.model.projector_scale = 0.1


def _data(config: ConfigDict, root: str) -> None:
    config.data.image_dir = f"{root}/world/images"
    config.data.max_length = 160
    config.data.buckets = (32, 40, 48, 64, 96, 160)
    config.data.caption_buckets = (8, 40, 64)
    config.data.retrieved_share = 0.0
    config.model.remat = "dots"
    config.generate.max_new_tokens = 40
    config.generate.batch_size = 32
    config.evaluate.apologies = ("Sorry",)


def _short_prompts(config: ConfigDict) -> None:
    """SmolLM2's own turns without its system text, which is as long as a row."""
    config.prompt.template, config.prompt.system = "chatml_qwen", ""


def _retrieval(config: ConfigDict, root: str) -> None:
    config.retrieval.clip = f"{root}/clip"
    config.retrieval.corpus = f"{root}/world/corpus.txt"
    config.retrieval.data = f"{root}/real/finetune_images.json"


def _texts(config: ConfigDict) -> None:
    config.jobs = ("generate", "evaluate")
    config.generate.questions = "{workdir}/real/harmless.jsonl"
    config.evaluate.benchmarks = "texts=texts:{workdir}/real/texts_dev.jsonl?scene=kind"
    config.data.path = "{workdir}/real/kept.json"


def _safety(config: ConfigDict) -> None:
    """Adapters learn to refuse harmful texts and to answer the others as before."""
    _short_prompts(config)
    config.jobs = ("finetune", "evaluate", "score", "export")
    config.data.path = "{workdir}/../real/kept.json"
    config.lora.rank, config.lora.alpha = 16, 32.0
    config.guide.form = "none"
    stage = config.finetune
    stage.path = "{workdir}/../real/safety.json"
    stage.trainable, stage.steps, stage.batch_size = ADAPTERS, 800, 8
    stage.learning_rate, stage.save_every = 1e-3, 50
    config.evaluate.benchmarks = "texts=texts:{workdir}/../real/texts_dev.jsonl?scene=kind"


def _alignment(config: ConfigDict) -> None:
    _short_prompts(config)
    config.model.checkpoint = "{workdir}/safety/export"
    config.jobs = ("experiment", "report")
    _retrieval(config, "{workdir}")
    config.pretrain.path = "{workdir}/world/pretrain.json"
    config.finetune.path = "{workdir}/real/finetune_images.json"
    config.finetune.trainable = PROJECTOR_ONLY
    config.pretrain.steps, config.finetune.steps = 300, 900
    for stage in (config.pretrain, config.finetune):
        # Of 2e-3, 6e-3 and 2e-2 the rate whose loss without a guide falls fastest in stage 1.
        stage.batch_size, stage.learning_rate, stage.save_every = 8, 6e-3, 50
    _asked(config)
    config.experiment.jobs = ("pretrain", "finetune", "evaluate", "analyze", "export")
    config.experiment.summary = ConfigDict(
        {figure: where for figure, where in SUMMARY.items() if where not in UNASKED}
    )
    config.report.pair = "baseline,tga-answer"
    with config.unlocked():
        config.experiment.arms = ConfigDict(arms())


def _asked(config: ConfigDict, root: str = "{workdir}", *, part: str = "") -> None:
    """What the arms are asked: of every group of images and kind of text, at most so many.

    `part` is the option that takes a part of the texts.
    """
    pictures, texts = images("test", "describe", root), _test_texts(root)
    config.evaluate.benchmarks = f"pictures={pictures}&limit=100, texts={texts}{part}"
    config.generate.max_new_tokens, config.generate.batch_size = 24, 50
    config.analyze.benchmarks = f"pictures={pictures}, texts={texts}"
    config.analyze.limit, config.analyze.batch_size = 100, 25


def _test_texts(root: str) -> str:
    return f"texts:{root}/real/texts_test.jsonl?scene=kind"


def _defences(config: ConfigDict) -> None:
    _short_prompts(config)
    root = "{workdir}/.."
    config.model.checkpoint = f"{root}/arms/baseline/export"
    config.jobs = ("index", "experiment", "report")
    _retrieval(config, root)
    # The two parts' texts have some in common, so the test part's are divided.
    _asked(config, root, part="&part=test")
    config.evaluate.development = (
        f"pictures={images('dev', 'describe', root)}&limit=40, "
        f"texts={_test_texts(root)}&part=development"
    )
    config.experiment.jobs = ("evaluate",)
    config.report.pair = "undefended,steering"
    with config.unlocked():
        config.experiment.arms = ConfigDict(DEFENCES)


def _projector(config: ConfigDict) -> None:
    """The states of a few samples matched by free embeddings and by a projector."""
    _alignment(config)
    root = "{workdir}/.."
    config.model.checkpoint = f"{root}/safety/export"
    matched(config, root)
    config.oracle.batch_size, config.oracle.steps = 12, 120
    config.finetune.steps, config.finetune.batch_size = 200, 24
    with config.unlocked():
        config.experiment.arms = ConfigDict(PROJECTOR)


def _finished(config: ConfigDict) -> None:
    """A LLaVA whose projector was trained before, with the answer term: its second stage alone."""
    _alignment(config)
    root = "{workdir}/.."
    config.model.checkpoint = f"{root}/arms/baseline/export"
    config.guide.update(ANSWER_GUIDE)
    config.finetune.path = f"{root}/real/finetune_images.json"
    _asked(config, root)
    config.jobs = ("finetune", "evaluate", "analyze")
    with config.unlocked():
        config.experiment.arms = ConfigDict()


VARIANTS = {
    "": _alignment,
    "texts": _texts,
    "safety": _safety,
    "projector": _projector,
    "defences": _defences,
    "finished": _finished,
}
# Whose workdir is a folder of the run's.
INSIDE = ("safety", "projector", "defences", "finished")


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one of the commands above.

    Args:
        variant: "texts", "safety", "projector", "defences", "finished", or "" for the alignment.
    """
    check_variant(variant, VARIANTS)
    config = base_config()
    root = "{workdir}/.." if variant in INSIDE else "{workdir}"
    _model(config, root)
    _data(config, root)
    VARIANTS[variant](config)
    return config.lock()
