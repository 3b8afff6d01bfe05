"""Job `generate`: answers to questions about pictures, in LLaVA's answer format."""

from __future__ import annotations

from pathlib import Path

from tga_jax.cluster import shared_files
from tga_jax.data.records import read_questions
from tga_jax.errors import UserError
from tga_jax.files import file_digest
from tga_jax.retrieval.retriever import configured, with_retrieved
from tga_jax.run.answerer import Answerer, answer_line
from tga_jax.run.context import Context
from tga_jax.run.work import Work


def run(context: Context) -> None:
    """Write generate/answers.jsonl, in the order of the questions."""
    config, weights = context.config, context.current_weights()
    if not config.generate.questions:
        raise UserError("no questions: set config.generate.questions to a JSONL file")
    questions = read_questions(Path(config.generate.questions))
    folder = context.workdir / "generate"
    retriever = configured(context)
    if retriever is not None:
        questions = with_retrieved(retriever, questions, folder, lambda row: context.image_dir())
    signature = {
        "weights": weights.digest,
        "questions": file_digest(Path(config.generate.questions)),
        "settings": {k: config[k].to_dict() for k in ("data", "prompt", "model", "generate")},
        "dtype": config.dtype,
        "seed": config.seed,
        "retrieval": None if retriever is None else retriever.settings,
    }
    work, path = Work(folder, "answers", signature), folder / "answers.jsonl"
    if work.is_done:
        context.say(f"finished before: {path}")
        return
    texts = {row["row"]: row["text"] for row in work.rows()}
    todo = sorted(set(range(len(questions))) - texts.keys(), key=lambda i: len(questions[i].text))
    for new in Answerer(context, questions).answer(todo, weights) if todo else ():
        work.append([{"row": row, "text": text} for row, text in new.items()])
        texts |= new
    model_id = f"{context.source.name}-{weights.tag}"
    lines = [answer_line(q, texts[i], model_id) for i, q in enumerate(questions)]
    shared_files.write_jsonl(path, lines)
    work.finish()
    context.say(f"{len(questions)} answers -> {path}")
