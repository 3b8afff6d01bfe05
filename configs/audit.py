"""Is this model safe on images, and what can it do? For any Hugging Face LLaVA checkpoint.

    tga --config=audit --workdir=runs/audit \\
        --config.model.checkpoint=FOLDER_OR_HUB_ID \\
        --config.evaluate.benchmarks="hod:data/hod, texts:xstest_prompts.csv, \\
            pope:data/pope?images=data/coco/val2014"

Answers and judges them (job `evaluate`), finds the layers at which refusal arises and how far
images reach them (job `analyze`), and puts all on one page (job `report`).

A benchmark is KIND:PATH, with a NAME= in front and ?OPTION=VALUE&... behind if you like; the kinds
are scenes, hod, mm_safetybench, figstep, vlguard, questions, texts, pope and scienceqa (see
tga_jax/evaluation/benchmarks/registry.py). The option wrap=role_play, in_context or figstep asks
the questions in the manner of a jailbreak. Compare with an earlier audit of another checkpoint by
--config.evaluate.compare=ITS_WORKDIR. You bring the data: nothing harmful is shipped.

`--config=audit:defences` asks the same questions without and with each defence that
needs no training: the paper's safety prompt, a retrieved text in the prompt, ECSO, zero-shot
detection by CLIP (where config.retrieval.clip names one) and steering along the refusal direction.
The last two choose on config.evaluate.development: harmful and harmless images, and texts, that are
not asked later (docs/audit.md):

    --config.evaluate.benchmarks="hod:hod?part=test, plain=scenes:photos?harmful=no&part=test" \\
        --config.evaluate.development="hod:hod?part=development, texts:my_texts.csv, \\
            plain=scenes:photos?harmful=no&part=development" --config.retrieval.clip=CLIP_FOLDER

What training buys stands beside them: the arm "aligned" asks another checkpoint, such as the export
of an alignment, which --config.experiment.arms.aligned.model.checkpoint=FOLDER names.

The retrieved texts come from an index (where config.retrieval.corpus names texts): run --job=index
first, with config.retrieval.clip and .corpus. An arm is left out by naming the others, as in
--config.experiment.only=undefended,safety-prompt,ecso.
"""

from ml_collections import ConfigDict

from tga_jax.config import base_config, check_variant

# Arm -> the keys that it changes.
DEFENCES = {
    "undefended": {"prompt": {"retrieved": False}},
    "safety-prompt": {"prompt": {"retrieved": False}, "evaluate": {"profile": "paper"}},
    "retrieved-text": {"retrieval": {"index": "{workdir}/index"}},
    "ecso": {"prompt": {"retrieved": False}, "evaluate": {"defence": "ecso"}},
    "zero-shot": {"prompt": {"retrieved": False}, "evaluate": {"defence": "zero_shot"}},
    "steering": {"prompt": {"retrieved": False}, "evaluate": {"defence": "steering"}},
    "aligned": {"prompt": {"retrieved": False}, "model": {"checkpoint": ""}},
}
NEEDS = {
    "retrieved-text": "retrieval.corpus",
    "zero-shot": "retrieval.clip",
    "aligned": "experiment.arms.aligned.model.checkpoint",
}


def get_config(variant: str = "") -> ConfigDict:
    """Greedy answers of up to 128 tokens, judged by the strict rules.

    Args:
        variant: "defences" for the model with each defence; else the model as it is.
    """
    check_variant(variant, ("", "defences"))
    config = base_config()
    config.jobs = ("evaluate", "analyze", "report")
    config.generate.batch_size = 16
    if variant:
        config.jobs = ("experiment", "report")
        config.report.pair = "undefended,aligned"  # without the second the first two arms
        config.experiment.jobs = ("evaluate",)
        with config.unlocked():
            config.experiment.arms = ConfigDict(DEFENCES)
            config.experiment.needs = ConfigDict(NEEDS)
    return config.lock()
