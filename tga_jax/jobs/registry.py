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
        "prepare", "check samples and images, keep them as ArrayRecord", "data/", "inspect,score"
    ),
    "caption": JobInfo(
        "caption", "captions for images that have none", "captions.jsonl", "index,retrieve"
    ),
    "index": JobInfo("index", "embed texts with CLIP and index them", "index/", "retrieve"),
    "retrieve": JobInfo(
        "retrieve", "find a text for every image", "retrieved.jsonl", "prepare,inspect"
    ),
    "inspect": JobInfo(
        "inspect", "write exactly what the model is fed", "inspect/samples.jsonl",
        "pretrain,finetune,export",
    ),
    "pretrain": JobInfo(
        "train", "stage 1, by default the projector alone", "pretrain/", "finetune,score,export"
    ),
    "finetune": JobInfo(
        "train", "stage 2, by default projector and language model", "finetune/", "score,export"
    ),
    "score": JobInfo(
        "score", "loss and image-caption cosines of every sample", "score/scores.jsonl",
        "pretrain,finetune,export",
    ),
    "generate": JobInfo("generate", "answer questions about images", "generate/answers.jsonl"),
    "analyze": JobInfo(
        "analyze", "where refusal is decided, layer by layer", "analyze/layers.csv", "report"
    ),
    "oracle": JobInfo(
        "oracle", "which matched states make this language model refuse", "oracle/oracle.json"
    ),
    "evaluate": JobInfo(
        "evaluate", "refusals and abilities on benchmarks", "evaluate/metrics.json", "report"
    ),
    "judge": JobInfo(
        "judge", "refusals in answers that were made elsewhere", "judge/verdicts.jsonl"
    ),
    "experiment": JobInfo("experiment", "the same jobs for several arms", "arms/", "report"),
    "miniature": JobInfo(
        "miniature", "a made-up world, a small CLIP, a safe LLM", "world/ clip/ llm/"
    ),
    "plan": JobInfo(
        "plan", "memory, FLOPs and traffic on a topology that is not here", "plan/plan.json"
    ),
    "bench": JobInfo(
        "bench", "time the step on made-up rows, with the guide and without", "bench/bench.json"
    ),
    "report": JobInfo(
        "report", "one page and tables of what the other jobs left", "report/index.html"
    ),
    "export": JobInfo("export", "a Hugging Face folder of the trained model", "export/"),
}  # fmt: skip

# Jobs that run nothing on this machine's devices: config.mesh need not fit them.
WITHOUT_DEVICES = ("plan", "judge")


def module_of(name: str) -> ModuleType:
    """The module of a job, imported now: it has `check(job, before)` and `run(job)`."""
    return importlib.import_module(f"tga_jax.jobs.{JOBS[name].module}")
