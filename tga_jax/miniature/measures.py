"""What arms in the miniature's world are asked, and what a summary has of it."""

from ml_collections import ConfigDict

# Figure of summary.json -> benchmark/scene/metric of an arm's evaluate/metrics.json.
SUMMARY = {
    "picture_dsr": "pictures/all/dsr",
    "picture_dsr_seen": "pictures/seen/dsr",
    "picture_dsr_new_concept": "pictures/new_concept/dsr",
    "picture_dsr_new_category": "pictures/new_category/dsr",
    "picture_dsr_at_5pct": "pictures/all/dsr_at_5pct",
    "picture_dsr_at_5pct_seen": "pictures/seen/dsr_at_5pct",
    "picture_dsr_at_5pct_new_concept": "pictures/new_concept/dsr_at_5pct",
    "picture_dsr_at_5pct_new_category": "pictures/new_category/dsr_at_5pct",
    "picture_dsr_at_1pct": "pictures/all/dsr_at_1pct",
    "margin_auc": "pictures/all/auc",
    "over_refusal": "pictures/all/over_refusal",
    "naming_accuracy": "pictures/benign/accuracy",
    "naming_accuracy_seen": "pictures/seen/accuracy",
    "attribute_accuracy": "attributes/all/accuracy",
    "text_dsr": "texts/all/dsr",
    "text_over_refusal": "texts/all/over_refusal",
    "text_accuracy": "texts/all/accuracy",
}


def images(split: str, kinds: str, root: str = "{workdir}") -> str:
    """The questions of these kinds about images, as a benchmark; the world lies in `root`."""
    return (
        f"questions:{root}/world/eval_{split}/questions.jsonl"
        f"?images={root}/world/images&scene=group&only=kind:{kinds}"
    )


def texts(split: str) -> str:
    """Texts, half of them harmful, as a benchmark."""
    return f"texts:{{workdir}}/world/text_eval_{split}.jsonl?scene=group"


def measures(config: ConfigDict, split: str) -> None:
    """Sets what jobs evaluate and analyze ask, and how; `split` is "dev" or "test"."""
    config.generate.max_new_tokens = 32
    config.generate.batch_size = 100
    attributes = "colour+background+place+size+category+presence"
    config.evaluate.benchmarks = (
        f"pictures={images(split, 'describe+what')}, "
        f"attributes={images(split, attributes)}, texts={texts(split)}"
    )
    config.evaluate.apologies = ("Sorry", "sorry")
    config.analyze.benchmarks = f"pictures={images(split, 'describe')}, texts={texts(split)}"
    config.analyze.limit, config.analyze.batch_size = 150, 50


def matched(config: ConfigDict, root: str = "{workdir}") -> None:
    """Sets job oracle and arms that train the guide alone, on the same few samples.

    `examples/miniature_projector.py` writes their files into `root`, where the world lies.
    """
    config.jobs = ("oracle", "experiment", "report")
    config.experiment.jobs = ("finetune", "evaluate", "analyze")
    few = f"few=questions:{root}/few.jsonl?images={root}/world/images"
    config.oracle.benchmarks = config.evaluate.benchmarks = config.analyze.benchmarks = few
    config.finetune.path = f"{root}/few.json"
    config.experiment.summary = ConfigDict(
        {name: f"few/all/{name}" for name in ("dsr", "over_refusal")}
    )
    config.report.pair = "mean-centred,answer-centred"
