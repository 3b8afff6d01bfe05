"""Jobs index and retrieve from the command line, against transformers' CLIP and plain numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from tests.hf.test_clip_folder import _save_clip, _tokenizer
from tests.jobs.inputs import CAPTIONS, arguments, make_inputs, read_jsonl
from tga_jax.jobs import clip as clip_job
from tga_jax.main import main

pytestmark = pytest.mark.parity
CORPUS = ["a photo of a dog", "the red bus", "A photo of a dog!", "a bus on the street",
          "dog on blue street " * 9, "photo of the red dog", "", "street", "blue dog"]  # fmt: skip
LONG = "--config.data.buckets=(256,)"
KEPT = [CORPUS[i].strip() for i in (0, 1, 3, 4, 5, 7, 8)] + [CAPTIONS[0]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA, a CLIP, pictures and a corpus that holds the first picture's caption."""
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    _save_clip(folder / "clip")
    _save_clip(folder / "other", seed=1)
    (folder / "corpus.txt").write_text("\n".join([*CORPUS, CAPTIONS[0]]) + "\n")
    return folder


def command(inputs: Path, workdir: Path, *more: str, job: str = "index,retrieve") -> list[str]:
    flags = [
        f"--config.retrieval.clip={inputs / 'clip'}", "--config.retrieval.batch_size=3",
        f"--config.retrieval.corpus={inputs / 'corpus.txt'}", *more,
    ]  # fmt: skip
    return arguments(inputs, workdir, *flags, job=job)


@pytest.fixture(scope="module")
def run(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("run")
    assert main(command(inputs, workdir)) == 0
    return workdir


def oracle(inputs: Path) -> tuple[np.ndarray, np.ndarray]:
    """transformers' embeddings of KEPT and of the four pictures."""
    model = transformers.CLIPModel.from_pretrained(inputs / "clip").eval()
    tokens = _tokenizer()(KEPT, padding=True, truncation=True, return_tensors="pt")
    files = [Image.open(inputs / "images" / f"{i}.png") for i in range(4)]
    process = transformers.CLIPImageProcessorPil.from_pretrained(inputs / "clip")
    with torch.no_grad():
        out = model(**tokens, **process(files, return_tensors="pt"))
    return out.text_embeds.numpy(), out.image_embeds.numpy()


def test_index_and_texts_are_those_of_transformers(inputs: Path, run: Path) -> None:
    assert [row["text"] for row in read_jsonl(run / "index/texts.jsonl")] == KEPT
    texts, images = oracle(inputs)
    np.testing.assert_allclose(np.load(run / "index/embeddings.npy"), texts, atol=1e-4)
    scores = images @ texts.T
    scores[0, KEPT.index(CAPTIONS[0])] = -2  # its own caption
    rows = read_jsonl(run / "retrieved.jsonl")
    assert [row["id"] for row in rows] == [f"p{i}" for i in range(4)]  # no text row, no tox row
    for row, wanted in zip(rows, scores, strict=True):
        assert row["text_id"] == wanted.argmax() and row["text"] == KEPT[row["text_id"]]
        assert row["score"] == pytest.approx(wanted.max(), abs=1e-4)
    counts = json.loads((run / "retrieve/report.json").read_text())["counts"]
    assert counts["written"] == 4 and counts["tox"] == 1 and counts["without_picture"] == 1


def test_a_killed_run_goes_on_to_the_same_bytes(inputs, tmp_path, monkeypatch) -> None:
    run, tmp_path = tmp_path / "whole", tmp_path / "killed"
    assert main(command(inputs, run)) == 0
    calls, texts = [], clip_job.ClipEmbedder.texts

    def dying(self, batch):
        calls.append(len(batch))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return texts(self, batch)

    monkeypatch.setattr(clip_job.ClipEmbedder, "texts", dying)
    with pytest.raises(KeyboardInterrupt):
        main(command(inputs, tmp_path, job="index"))
    assert not (tmp_path / "index/index.json").exists()
    with (tmp_path / "index/embeddings.npy.partial").open("ab") as file:
        file.write(b"half a row")
    assert main(command(inputs, tmp_path, job="index")) == 0
    assert calls == [3, 3, 2, 2]
    assert main(command(inputs, tmp_path)) == 0  # nothing left to embed for the index
    for name in ("index/embeddings.npy", "index/texts.jsonl", "retrieved.jsonl"):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes(), name


def test_clear_errors(inputs: Path, run: Path, tmp_path: Path, capsys) -> None:
    index = f"--config.retrieval.index={run / 'index'}"
    other = f"--config.retrieval.clip={inputs / 'other'}"
    assert main(command(inputs, tmp_path, index, other, job="retrieve")) == 2
    assert "made with the CLIP" in capsys.readouterr().err
    (tmp_path / "images").mkdir()
    lacking = f"--config.data.image_dir={tmp_path / 'images'}"
    assert main(command(inputs, tmp_path, index, lacking, job="retrieve")) == 2
    assert "record p0: image '0.png': no such file" in capsys.readouterr().err
    missing = "--config.retrieval.corpus=nowhere.txt"
    assert main(command(inputs, tmp_path, missing, job="index")) == 2
    assert "nowhere.txt: there is no such file" in capsys.readouterr().err


def test_generate_looks_unseen_pictures_up(inputs, run, tmp_path) -> None:
    index = f"--config.retrieval.index={run / 'index'}"
    assert main(command(inputs, tmp_path, index, LONG, job="generate")) == 0
    texts, images = oracle(inputs)
    rows = read_jsonl(tmp_path / "generate/retrieved.partial.jsonl")[1:]
    assert [row["text"] for row in rows] == [KEPT[i] for i in (images @ texts.T).argmax(1)]
