"""Job `score`: loss and per-layer cosines of every sample, without training."""

from __future__ import annotations

import shutil

from tga_jax.analysis.scores import Scorer
from tga_jax.cluster import hosts
from tga_jax.data.lazy_records import text_lengths
from tga_jax.files import write_jsonl
from tga_jax.run.context import Context
from tga_jax.run.samples import samples_digest
from tga_jax.run.stage import guide_config
from tga_jax.run.work import Work


def run(context: Context) -> None:
    """Write score/<weights>.jsonl, and the same as score/scores.jsonl."""
    config, weights = context.config, context.current_weights()
    records, cfg = context.records(), guide_config(context)
    folder = context.workdir / "score"
    signature = {
        "weights": weights.digest,
        "data": samples_digest(context),
        "settings": {k: config[k].to_dict() for k in ("data", "prompt", "guide", "model")},
        "dtype": config.dtype,
    }
    work, path = Work(folder, weights.tag, signature), folder / f"{weights.tag}.jsonl"
    if not work.is_done:
        rows = {row["row"]: row for row in work.rows()}
        prompter = context.prompter()
        lengths = text_lengths(records)
        todo = sorted(set(range(len(records))) - rows.keys(), key=lambda i: lengths[i])
        scorer = Scorer(context, cfg, lambda i: prompter.encode(records[i]), len(records))
        for new in scorer.score(todo, weights) if todo else ():
            work.append(new)
            rows |= {row["row"]: row for row in new}
        lines = [{k: v for k, v in rows[i].items() if k != "row"} for i in range(len(records))]
        write_jsonl(path, lines)
        work.finish()
    if hosts.is_first():
        shutil.copyfile(path, folder / "scores.jsonl")
    context.say(f"weights {weights.tag}: {len(records)} samples -> {folder / 'scores.jsonl'}")
