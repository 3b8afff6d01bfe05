"""The jobs by name. Kept apart from their code, so that `--help` imports none of it."""

import importlib
from types import ModuleType

# What runs on several processes: together, or the first alone while the others wait. The other
# jobs are for one process.
TOGETHER = ("caption", "pretrain", "finetune", "score", "generate", "export")
FIRST_ALONE = ("inspect", "prepare", "report", "judge")

# name -> (module under tga_jax.jobs, what it does)
JOBS: dict[str, tuple[str, str]] = {
    "prepare": ("prepare", "check samples and images, keep them as ArrayRecord: data/"),
    "caption": ("caption", "captions for images that have none: captions.jsonl"),
    "index": ("index", "embed texts with CLIP and index them: index/"),
    "retrieve": ("retrieve", "find a text for every image: retrieved.jsonl"),
    "inspect": ("inspect", "write exactly what the model is fed: inspect/samples.jsonl"),
    "pretrain": ("train", "stage 1, by default the projector alone: pretrain/"),
    "finetune": ("train", "stage 2, by default projector and language model: finetune/"),
    "score": ("score", "loss and image-caption cosines of every sample: score/scores.jsonl"),
    "generate": ("generate", "answer questions about images: generate/answers.jsonl"),
    "analyze": ("analyze", "where refusal is decided, layer by layer: analyze/layers.csv"),
    "oracle": ("oracle", "which matched states make this language model refuse: oracle/"),
    "evaluate": ("evaluate", "refusals and abilities on benchmarks: evaluate/metrics.json"),
    "judge": ("judge", "refusals in answers that were made elsewhere: judge/verdicts.jsonl"),
    "experiment": ("experiment", "the same jobs for several arms: arms/<name>/"),
    "miniature": ("miniature", "a made-up world, a small CLIP, a safe LLM: world/ clip/ llm/"),
    "plan": ("plan", "memory, FLOPs and traffic on a topology that is not here: plan/plan.json"),
    "bench": ("bench", "time the step on made-up rows, with the guide and without: bench/"),
    "report": ("report", "one page and tables of what the other jobs left: report/index.html"),
    "export": ("export", "a Hugging Face folder of the trained model: export/"),
}

# Jobs that run nothing on this machine's devices: config.mesh need not fit them.
WITHOUT_DEVICES = ("plan", "judge")


def module_of(name: str) -> ModuleType:
    """The module of a job, imported now: it has `check(job, before)` and `run(job)`."""
    return importlib.import_module(f"tga_jax.jobs.{JOBS[name][0]}")
