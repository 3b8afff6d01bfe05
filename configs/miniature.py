"""The miniature experiment: the whole method in a small made-up world, on a laptop.

    python -m tga_jax.main --config=configs/miniature.py --workdir=runs/miniature

Makes a world of images and texts, a CLIP and a language model that refuses harmful text (job
`miniature`), finds a related text for every image (jobs `index` and `retrieve`), aligns the two
models without a guide, with the paper's (arm "tga") and with the answer term (arm "tga-answer"; job
`experiment`), and shows what came of it (job `report`). Three variants do more:
`--config=configs/miniature.py:full` runs five seeds of these and a few others, and all ablations,
on the test images, `--config=configs/miniature.py:search` tries the paper's terms in other settings
on development images, and `--config=configs/miniature.py:projector` asks whether a projector can
match states as closely as job `oracle` does.

The CLIP and the language model are shipped; `--config.miniature.shipped= --job=miniature` trains
them, in 18 and 61 minutes of one busy core, and its folders clip/ and llm/ with training/*.json are
what assets/miniature holds.
"""

from ml_collections import ConfigDict

from tga_jax.config import (
    PROJECTOR_AND_LLM,
    PROJECTOR_AND_LORA,
    PROJECTOR_ONLY,
    base_config,
    check_variant,
)
from tga_jax.miniature.measures import SUMMARY, matched, measures

# The language model learns at the paper's rate, 2e-6, and the projector 5,000 times faster (in the
# paper 500 times in stage 1, and at the same rate in stage 2): an LLM that learns fast learns here
# that images are never refused.
GENTLE = (("vision/.*", None), ("projector/.*", 1.0), ("decoder/.*", 0.0002))
FAST = (("vision/.*", None), ("projector/.*", 1.0), ("decoder/.*", 0.1))
LORA = (("projector/.*", 1.0), ("decoder/.*/lora_.*", 0.1), (".*", None))

BASELINE = {"guide": {"form": "none"}}
TGA_ANSWER: dict = {}
# The paper's two terms without the answer term; its second one needs retrieved texts. The more rows
# have one, the more answers are read off it: see docs/miniature.md.
SOME_RETRIEVED = {"data": {"retrieved_share": 0.25}}
PAPER = {"answer_weight": 0.0, "pair_weight": 1.0, "hinge_weight": 1.0, "layers": "all"}
# Arm "tga": the paper's terms alone. Of the five weights and sets of layers that were tried first
# on this language model and these captions (pair 0.03 to 1; one seed, development images) these
# refuse most at 5% over-refusal, by no more than chance (.193 against the baseline's .176), for 4.5
# points of naming; see docs/miniature.md, which has what came of `SEARCH`, too. Where a sample has
# no retrieved text, as here, the hinge has nothing to do: with texts in the prompt, answers were
# read off them, and naming fell further than anything rose.
TGA: dict = {"guide": PAPER | {"layers": "3-4"}}
MEAN = PAPER | {"hinge_weight": 0.0}  # the pair term alone, on all layers
STAGE_1 = TGA | {"finetune": {"guide": False}}
CENTRED = PAPER | {"pair_weight": 3.0, "hinge_weight": 0.1, "layers": "1-3"}
# Alignment without a single harmful image or retrieved text (the corpus has harmful ones).
HARMLESS = {
    "pretrain": {"path": "{workdir}/world/pretrain_harmless.json"},
    "finetune": {"path": "{workdir}/world/finetune_harmless.json"},
}
# Harmful images have a caption and no answer to learn, so no row teaches to name what they show.
CAPTIONED = HARMLESS | {"finetune": {"path": "{workdir}/world/finetune_captioned.json"}}
CAPTIONED_STAGE_2 = CAPTIONED | {"pretrain": HARMLESS["pretrain"] | {"guide": False}}
# A LLaVA whose projector was trained before, without a guide: its second stage alone, once more.
BASELINE_EXPORT = "{workdir}/arms/baseline/export"
FINISHED = {"model": {"checkpoint": BASELINE_EXPORT}, "pretrain": {"steps": 0}}
MAIN: dict[str, dict] = {"baseline": BASELINE, "tga": TGA, "tga-answer": TGA_ANSWER}
SEVERAL = (  # all seeds
    *MAIN,
    *("tga-stage-1", "weight-9"),
    *("llm-frozen-baseline", "llm-frozen"),
    *("captioned-baseline", "captioned"),
    *("finished-baseline", "finished"),
)
# What becomes of "tga-answer" when one thing is changed, and the paper's terms in other settings;
# the test images are for these and for the seeds.
ABLATIONS: dict[str, dict] = {
    "weight-1": {"guide": {"answer_weight": 1.0}},
    "weight-9": {"guide": {"answer_weight": 9.0}},
    "weight-27": {"guide": {"answer_weight": 27.0}},
    "answer-uncentred": {"guide": {"center": "none"}},
    "answer-all-layers": {"guide": {"answer_layers": "all"}},
    "answer-last-layers": {"guide": {"answer_layers": "5-6"}},
    "answer-and-paper": {"guide": {"pair_weight": 1.0, "hinge_weight": 0.1}} | SOME_RETRIEVED,
    # The paper's terms alone: "stage-1-only" of `SEARCH`, literally, as released, and centred.
    "tga-stage-1": STAGE_1,
    "paper": {"guide": PAPER | {"center": "none"}} | SOME_RETRIEVED,
    "released": {"guide": PAPER | {"center": "none", "form": "released"}} | SOME_RETRIEVED,
    "centred": {"guide": CENTRED} | SOME_RETRIEVED,
    "centred-pair-only": {"guide": CENTRED | {"hinge_weight": 0.0}},
    "centred-hinge-only": {"guide": CENTRED | {"pair_weight": 0.0, "hinge_weight": 3.0}}
    | SOME_RETRIEVED,
    "centred-running-mean": {"guide": CENTRED | {"center": "running"}} | SOME_RETRIEVED,
    "centred-all-layers": {"guide": CENTRED | {"layers": "all"}} | SOME_RETRIEVED,
    "centred-safety-layer": {"guide": CENTRED | {"layers": "1"}} | SOME_RETRIEVED,
    "centred-other-layers": {"guide": CENTRED | {"layers": "2-6"}} | SOME_RETRIEVED,
    "llm-frozen": {"finetune": {"trainable": PROJECTOR_ONLY}},
    "llm-frozen-baseline": {"finetune": {"trainable": PROJECTOR_ONLY}} | BASELINE,
    "llm-lora": {"finetune": {"trainable": LORA}, "lora": {"rank": 8}},
    "llm-lora-baseline": {"finetune": {"trainable": LORA}, "lora": {"rank": 8}} | BASELINE,
    "llm-fast": {"finetune": {"trainable": FAST}},
    "llm-fast-baseline": {"finetune": {"trainable": FAST}} | BASELINE,
    "retrieved-at-test": {"retrieval": {"index": "{workdir}/index"}},
    "retrieved-at-test-baseline": {"retrieval": {"index": "{workdir}/index"}} | BASELINE,
    "caption-noise-10": {"data": {"caption_noise": 0.1}},
    "caption-noise-30": {"data": {"caption_noise": 0.3}},
    "captioned": CAPTIONED,
    "captioned-baseline": CAPTIONED | BASELINE,
    "no-harmful-pictures": HARMLESS,
    "no-harmful-pictures-baseline": HARMLESS | BASELINE,
    "finished": FINISHED,
    "finished-baseline": FINISHED | BASELINE,
    # At rates of docs/presets.md: projector alone, the paper's, and LLaVA's of adapters.
    "finished-projector": FINISHED
    | {"finetune": {"trainable": PROJECTOR_ONLY, "learning_rate": 1e-3}},
    "finished-paper-rate": FINISHED
    | {"finetune": {"trainable": PROJECTOR_AND_LLM, "learning_rate": 2e-6}},
    "finished-lora": FINISHED
    | {"finetune": {"trainable": PROJECTOR_AND_LORA, "learning_rate": 2e-4}, "lora": {"rank": 8}},
}
# The miniature's CLIP with 16 patches an image, not four: `tga --config=miniature --job=miniature
# --workdir={workdir}/17-tokens --config.miniature.clip.patch_pixels=12` before.
TOKENS_17 = {
    "model": {"vision": "{workdir}/17-tokens/clip"},
    "data": {"max_length": 96, "buckets": (52, 76, 96)},
}
# Beside the main arms, other settings of the paper's terms, all centred, with the steps of the long
# run. A pair weight is of each layer, so a sixth of it on all six layers is as strong as on one.
SEARCH: dict[str, dict] = MAIN | {
    "pair-3": {"guide": TGA["guide"] | {"pair_weight": 3.0}},
    "pair-one-third-all-layers": {"guide": PAPER | {"pair_weight": 1 / 3}},
    "stage-1-only": STAGE_1,
    "stage-2-only": TGA | {"pretrain": {"guide": False}},
    "hinge-tenth": {"guide": TGA["guide"] | {"hinge_weight": 0.1}} | SOME_RETRIEVED,
    "hinge-1": TGA | SOME_RETRIEVED,
    **{f"{name}-17-tokens": arm | TOKENS_17 for name, arm in MAIN.items()},
    "decay": TGA | {"pretrain": {"weight_decay": 1.0}, "finetune": {"weight_decay": 1.0}},
    # What carries refusals over in SmolLM2 (docs/real_llm.md), and the same rows without a guide.
    "as-in-smollm2": CAPTIONED_STAGE_2 | {"guide": MEAN},
    "captioned-baseline": CAPTIONED | BASELINE,
}
# The guide alone, without a language-modelling loss, on the few images of the oracle.
ANSWER = {"answer_weight": 1.0, "answer_layers": "all"}
PROJECTOR: dict[str, dict] = {
    "mean": {"guide": MEAN | {"center": "none"}},
    "mean-centred": {"guide": MEAN},
    "answer-centred": {"guide": ANSWER},
    # The last layer's state all but is the first token, so that one must succeed; this need not.
    "answer-centred-early": {"guide": ANSWER | {"answer_layers": "1-3"}},
}
OTHERS = {"search": SEARCH, "projector": PROJECTOR}
SEEDS = range(5)
# Steps of the two stages in `make run`: refusals are there by then (docs/miniature_steps.png).
SHORT = 400, 600
WHOLE = 900, 1500  # naming is learnt first, before the guide asks for more


def arms(variant: str) -> dict:
    """Arm -> the keys that it changes."""
    if variant in OTHERS:
        return OTHERS[variant]
    found: dict[str, dict] = dict(MAIN)
    if variant == "full":
        found |= ABLATIONS
        for seed in SEEDS[1:]:
            found |= {f"{name}-seed-{seed}": with_seed(found[name], seed) for name in SEVERAL}
    return found


def with_seed(arm: dict, seed: int) -> dict:
    """An arm with another seed; one that starts from the baseline starts from that seed's."""
    own = {"model": {"checkpoint": BASELINE_EXPORT.replace("baseline", f"baseline-seed-{seed}")}}
    return arm | {"seed": seed} | (own if "model" in arm else {})


def get_config(variant: str = "") -> ConfigDict:
    """Short prompts: vicuna's turns without its long system text, in every part of the run.

    Args:
        variant: "full" for all seeds and ablations on the test images, "search" for the settings of
            `SEARCH` on the development images, "projector" for the oracle's samples before a
            projector, "" for one seed of three arms on the development images.
    """
    check_variant(variant, ("", "full", *OTHERS))
    config = base_config()
    config.jobs = ("miniature", "index", "retrieve", "experiment", "report")
    config.miniature.clip.patch_pixels = 24  # an image is five tokens: class and four patches
    config.miniature.world.caption_form = "full"  # so that the caption answers every question
    config.miniature.world.retrieved = False  # jobs index and retrieve find the texts
    config.retrieval.clip = "{workdir}/clip"
    config.retrieval.corpus = "{workdir}/world/corpus.txt"
    config.retrieval.data = "{workdir}/world/finetune.json"
    config.data.retrieved = "{workdir}/retrieved.jsonl"
    config.miniature.shipped = "{package}/assets/miniature"
    config.prompt.template = "vicuna_v1"
    config.prompt.system = ""
    config.model.vision = "{workdir}/clip"
    config.model.llm = "{workdir}/llm"
    config.model.feature_layer = -1
    config.model.projector_scale = 0.1  # its tower's states are ten times its LLM's embeddings
    config.model.feature_select = "full"
    config.data.image_dir = "{workdir}/world/images"
    config.data.max_length = 84
    config.data.retrieved_share = 0.0  # but for the arms with the paper's hinge term
    config.data.buckets = (40, 64, 84)  # each is a program to compile
    config.data.caption_buckets = (8, 48)  # 8: of batches of texts, which have none
    config.compiler_options = ("xla_cpu_use_fusion_emitters=false",)  # a third less to compile
    config.model.remat = "dots"  # on CPUs memory is what the backward pass waits for
    config.guide.center = "batch"
    config.guide.pair_weight = 0.0  # the paper's terms have arms of their own
    config.guide.hinge_weight = 0.0
    config.guide.answer_weight = 3.0  # beyond the paper; why, see docs/miniature.md
    config.guide.answer_layers = "3-6"  # from the safety layers on
    config.pretrain.path = "{workdir}/world/pretrain.json"
    config.finetune.path = "{workdir}/world/finetune.json"
    steps = WHOLE if variant else SHORT
    config.pretrain.steps, config.finetune.steps = steps
    config.finetune.trainable = GENTLE
    for stage in (config.pretrain, config.finetune):
        stage.batch_size, stage.learning_rate = 16, 1e-2
    measures(config, "test" if variant == "full" else "dev")
    config.report.pair = "baseline,tga" if variant == "search" else "baseline,tga-answer"
    config.experiment.processes = 3
    jobs = ("pretrain", "finetune", "evaluate")
    config.experiment.jobs = jobs if variant == "search" else (*jobs, "analyze", "export")
    config.experiment.summary = ConfigDict(SUMMARY)
    if variant == "projector":
        _projector(config)
    with config.unlocked():
        config.experiment.arms = ConfigDict(arms(variant))
    return config.lock()


def _projector(config: ConfigDict) -> None:
    """The states of a few samples matched by free embeddings and by a projector."""
    matched(config)
    config.oracle.steps, config.oracle.batch_size = 200, 16
    config.data.retrieved = ""
    config.finetune.trainable = PROJECTOR_ONLY
    config.finetune.steps, config.finetune.batch_size = 1000, 32
