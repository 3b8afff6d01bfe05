"""The jobs by name. Kept apart from their code, so that `--help` imports none of it."""

import importlib
from types import ModuleType
from typing import NamedTuple

# What runs on several processes: together, or the first alone while the others wait. The other
# jobs are for one process.
TOGETHER = (
    "caption", "index", "retrieve", "pretrain", "finetune", "score", "generate", "analyze",
    "evaluate", "export", "experiment",
)  # fmt: skip
FIRST_ALONE = ("inspect", "prepare", "report", "judge")


class JobInfo(NamedTuple):
    """What is known of a job without importing it.

    Attributes:
        module: its file under tga_jax.jobs.
        what: what it does, for `--help`.
        writes: where its results are, in the workdir.
        next: the jobs that usually follow, with commas; "": it depends.
    """

    module: str
    what: str
    writes: str
    next: str = ""


JOBS: dict[str, JobInfo] = {
    "prepare": JobInfo(
        "prepare", "checks samples and images, and keeps them as ArrayRecord", "data/",
        "inspect,score",
    ),
    "caption": JobInfo(
        "caption", "writes captions for images that have none", "captions.jsonl", "index,retrieve"
    ),
    "index": JobInfo("index", "embeds texts with CLIP and indexes them", "index/", "retrieve"),
    "retrieve": JobInfo(
        "retrieve", "finds a related text for every image", "retrieved.jsonl", "prepare,inspect"
    ),
    "inspect": JobInfo(
        "inspect", "writes exactly what the model is fed", "inspect/samples.jsonl",
        "pretrain,finetune,export",
    ),
    "pretrain": JobInfo(
        "train", "trains stage 1, by default the projector alone", "pretrain/",
        "finetune,score,export",
    ),
    "finetune": JobInfo(
        "train", "trains stage 2, by default projector and language model", "finetune/",
        "score,export",
    ),
    "score": JobInfo(
        "score", "measures the loss and the cosines of every sample", "score/scores.jsonl",
        "pretrain,finetune,export",
    ),
    "generate": JobInfo("generate", "answers questions about images", "generate/answers.jsonl"),
    "analyze": JobInfo(
        "analyze", "finds the layers at which refusal is decided", "analyze/layers.csv", "report"
    ),
    "oracle": JobInfo(
        "oracle", "finds which matched states make this language model refuse", "oracle/oracle.json"
    ),
    "evaluate": JobInfo(
        "evaluate", "measures refusals and abilities on benchmarks", "evaluate/metrics.json",
        "report",
    ),
    "judge": JobInfo(
        "judge", "judges answers that were made elsewhere", "judge/verdicts.jsonl",
        "report",
    ),
    "experiment": JobInfo("experiment", "runs the same jobs for several arms", "arms/", "report"),
    "miniature": JobInfo(
        "miniature", "makes a small world, a small CLIP and a small safe LLM", "world/ clip/ llm/"
    ),
    "plan": JobInfo(
        "plan", "computes what a step needs on hardware that is not here", "plan/plan.json"
    ),
    "bench": JobInfo(
        "bench", "times a step on made-up rows, with the guide and without", "bench/bench.json"
    ),
    "report": JobInfo(
        "report", "makes one page and tables of what the other jobs left", "report/index.html"
    ),
    "export": JobInfo("export", "writes a Hugging Face folder of the trained model", "export/"),
}  # fmt: skip

# Jobs that run nothing on this machine's devices: config.mesh need not fit them.
WITHOUT_DEVICES = ("plan", "judge")


def module_of(name: str) -> ModuleType:
    """The module of a job, imported now: it has `check(job, before)` and `run(job)`."""
    return importlib.import_module(f"tga_jax.jobs.{JOBS[name].module}")
