"""Jobs index and retrieve from the command line, against transformers' CLIP and plain numpy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from tests.hf.test_clip_folder import _save_clip, _tokenizer
from tests.jobs.inputs import (
    CAPTIONS,
    Killed,
    arguments,
    make_inputs,
    make_samples,
    read_jsonl,
    write_jsonl,
)
from tga_jax.errors import UserError
from tga_jax.flags import parse_flags
from tga_jax.main import check_jobs, main
from tga_jax.retrieval import clip_embedder as clip_job
from tga_jax.retrieval.index import changed_files, read_about
from tga_jax.retrieval.scann_search import ScannSearch, available

pytestmark = pytest.mark.parity
CORPUS = ["a photo of a dog", "the red bus", "A photo of a dog!", "a bus on the street",
          "dog on blue street " * 9, "photo of the red dog", "", "street", "blue dog"]  # fmt: skip
LONG = "--config.data.buckets=(256,)"
KEPT = [CORPUS[i].strip() for i in (0, 1, 3, 4, 5, 7, 8)] + [CAPTIONS[0]]
LINES = [1, 2, 4, 5, 6, 8, 9, 10]  # of these in the corpus


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA, a CLIP, images and a corpus that holds the first image's caption."""
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
    """Compiled as the tests' own runs are (tests/conftest.py), so that bytes can be compared."""
    workdir, key = tmp_path_factory.mktemp("run"), "jax_disable_most_optimizations"
    before = jax.config.read(key)
    jax.config.update(key, True)
    assert main(command(inputs, workdir)) == 0
    jax.config.update(key, before)
    return workdir


@pytest.fixture
def images(inputs: Path, tmp_path: Path) -> Path:
    """A copy of the images to spoil."""
    return Path(shutil.copytree(inputs / "images", tmp_path / "images"))


def report(workdir: Path) -> dict:
    return json.loads((workdir / "retrieve/report.json").read_text())


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def oracle(inputs: Path) -> tuple[np.ndarray, np.ndarray]:
    """transformers' embeddings of KEPT and of the four images."""
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
        number = int(wanted.argmax())
        assert row["text"] == KEPT[number] and row["text_id"] == f"corpus.txt:{LINES[number]}"
        assert row["image"] == f"{row['id'][1]}.png"
        assert row["score"] == pytest.approx(wanted.max(), abs=1e-4)
    counts = json.loads((run / "retrieve/report.json").read_text())["counts"]
    assert counts["written"] == 4 and counts["tox"] == 1 and counts["without_picture"] == 1


def test_a_killed_run_goes_on_to_the_same_bytes(inputs, run, tmp_path, monkeypatch) -> None:
    calls, texts = [], clip_job.ClipEmbedder.texts

    def dying(self, batch):
        calls.append(len(batch))
        if len(calls) == 3:
            raise Killed
        return texts(self, batch)

    monkeypatch.setattr(clip_job.ClipEmbedder, "texts", dying)
    with pytest.raises(Killed):
        main(command(inputs, tmp_path, job="index"))
    assert not (tmp_path / "index/index.json").exists()
    with (tmp_path / "index/embeddings.npy.partial").open("ab") as file:
        file.write(b"half a row")
    assert main(command(inputs, tmp_path, job="index")) == 0
    assert calls == [3, 3, 2, 2]
    assert main(command(inputs, tmp_path)) == 0  # nothing left to embed for the index
    for name in ("index/embeddings.npy", "index/texts.jsonl", "retrieved.jsonl"):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes(), name


@pytest.mark.skipif(not available(), reason="needs scann")
@pytest.mark.parametrize("left", [".scann.partial", "scann"])
def test_an_index_killed_while_scann_writes_is_not_taken_for_whole(
    inputs, run, tmp_path, monkeypatch, capsys, left: str
) -> None:
    save = ScannSearch.save

    def dying(self: ScannSearch, folder: Path) -> None:
        save(self, tmp_path / "whole")
        (folder.parent / left).mkdir()
        for path in list((tmp_path / "whole").iterdir())[:-1]:  # the last one is not begun
            content = path.read_bytes()
            (folder.parent / left / path.name).write_bytes(content[: len(content) // 2])
        raise Killed

    flag = "--config.retrieval.backend=scann"
    with monkeypatch.context() as patch:
        patch.setattr(ScannSearch, "save", dying)
        with pytest.raises(Killed):
            main(command(inputs, tmp_path, flag, job="index"))
    assert main(command(inputs, tmp_path, flag, job="retrieve")) == 2
    assert "no finished index (no index.json); run job index" in last_line(capsys)
    assert main(command(inputs, tmp_path, flag, job="index")) == 0
    assert not (tmp_path / "index" / ".scann.partial").exists()
    assert changed_files(tmp_path / "index", read_about(tmp_path / "index")) == []
    assert main(command(inputs, tmp_path, flag, job="retrieve")) == 0
    found, wanted = (read_jsonl(folder / "retrieved.jsonl") for folder in (tmp_path, run))
    assert [row["text_id"] for row in found] == [row["text_id"] for row in wanted]


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


def test_generate_looks_unseen_images_up(inputs, run, tmp_path) -> None:
    index = f"--config.retrieval.index={run / 'index'}"
    assert main(command(inputs, tmp_path, index, LONG, job="generate")) == 0
    texts, images = oracle(inputs)
    rows = read_jsonl(tmp_path / "generate/retrieved.partial.jsonl")[1:]
    assert [row["text"] for row in rows] == [KEPT[i] for i in (images @ texts.T).argmax(1)]


def test_an_index_without_texts_in_prompts_is_warned_of(inputs, run, tmp_path, capsys) -> None:
    flags = (f"--config.retrieval.index={run / 'index'}", "--config.prompt.retrieved=False")
    assert main(command(inputs, tmp_path, *flags, LONG, job="generate")) == 0
    assert "WARNING: config.retrieval.index has no effect" in capsys.readouterr().err
    assert not (tmp_path / "generate/retrieved.partial.jsonl").exists()


def test_evaluate_looks_unseen_images_up(inputs, run, tmp_path) -> None:
    workdir = Path(shutil.copytree(run, tmp_path / "run"))
    asked = [{"question_id": i, "image": f"{i}.png", "text": "What is it?"} for i in range(4)]
    asked[3]["retrieved"] = "its own text"
    write_jsonl(tmp_path / "q.jsonl", asked)
    more = [f"--config.evaluate.benchmarks=questions:{tmp_path / 'q.jsonl'}", LONG]
    assert main(command(inputs, workdir, *more, job="evaluate")) == 0
    folder = next(path for path in (workdir / "evaluate").iterdir() if path.is_dir())
    texts, images = oracle(inputs)
    rows = read_jsonl(folder / "retrieved.partial.jsonl")[1:]
    found = [KEPT[i] for i in (images[:3] @ texts.T).argmax(1)]
    assert [row["text"] for row in rows] == found
    with_texts = [row["text"] for row in read_jsonl(folder / "answers.jsonl")]
    # The same questions with these texts given, and without any.
    given = [row | {"retrieved": text} for row, text in zip(asked, [*found, ""], strict=True)]
    given[3]["retrieved"] = asked[3]["retrieved"]
    write_jsonl(tmp_path / "given.jsonl", given)
    flags = [f"--config.generate.questions={tmp_path / 'given.jsonl'}", LONG]
    assert main(command(inputs, tmp_path / "given", *flags, job="generate")) == 0
    answers = [row["text"] for row in read_jsonl(tmp_path / "given/generate/answers.jsonl")]
    assert with_texts == answers
    off = "--config.prompt.retrieved=false"
    assert main(command(inputs, workdir, *more, off, job="evaluate")) == 0
    assert [row["text"] for row in read_jsonl(folder / "answers.jsonl")] != answers


def test_noise_gives_a_share_of_the_images_random_texts(inputs, run, tmp_path) -> None:
    flags = [f"--config.retrieval.index={run / 'index'}", "--config.retrieval.noise=0.5"]
    assert main(command(inputs, tmp_path, *flags, job="retrieve")) == 0
    nearest, noisy = (read_jsonl(one / "retrieved.jsonl") for one in (run, tmp_path))
    other = [a["id"] for a, b in zip(nearest, noisy, strict=True) if a["text_id"] != b["text_id"]]
    assert len(other) == report(tmp_path)["counts"]["noised"] == 2
    for noised, caption in zip(noisy, CAPTIONS, strict=True):
        assert noised["text"] != caption
    texts, images = oracle(inputs)
    for row, image in zip(noisy, images, strict=True):
        assert row["score"] == pytest.approx(
            float(image @ texts[KEPT.index(row["text"])]), abs=1e-4
        )


def test_every_kind_of_corpus(inputs, tmp_path, capsys) -> None:
    lines = ["a photo of a dog", "", "   ", "A PHOTO of a dog.", "bus " * 250_000, "red bus"]
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    write_jsonl(tmp_path / "b.jsonl", [{"id": 7, "text": "street"}, {"text": "Red  bus!"}])
    (tmp_path / "c.json").write_text(json.dumps(make_samples()))
    names = ("a.txt", "b.jsonl", "c.json")
    corpus = "--config.retrieval.corpus=" + ", ".join(str(tmp_path / name) for name in names)
    assert main(command(inputs, tmp_path / "run", corpus, job="index")) == 0
    rows = read_jsonl(tmp_path / "run/index/texts.jsonl")
    captions = [CAPTIONS[i] for i in (0, 1, 3)]
    cut = " ".join(["bus"] * 250)
    assert [row["text"] for row in rows] == [
        "a photo of a dog", cut, "red bus", "street", *captions
    ]  # fmt: skip
    assert [row["id"] for row in rows] == ["a.txt:1", "a.txt:5", "a.txt:6", "7", "p0", "p1", "p3"]
    assert json.loads((tmp_path / "run/index/index.json").read_text())["counts"] == {
        "read": 12, "empty": 2, "cut": 1, "duplicates": 3, "kept": 7
    }  # fmt: skip
    (tmp_path / "bad.txt").write_bytes(b"fine\n\xff\xfe\n")
    bad = f"--config.retrieval.corpus={tmp_path / 'bad.txt'}"
    assert main(command(inputs, tmp_path / "run", bad, job="index")) == 2
    assert "bad.txt: line 2: not UTF-8 text" in last_line(capsys)
    (tmp_path / "none.txt").write_text("\n ... \n")
    none = f"--config.retrieval.corpus={tmp_path / 'none.txt'}"
    assert main(command(inputs, tmp_path / "run", none, job="index")) == 2
    assert "no texts to index in" in last_line(capsys)


def test_unreadable_images_within_the_budget(inputs, run, images, tmp_path, capsys) -> None:
    (images / "1.png").write_bytes(b"no image")
    flags = [f"--config.retrieval.index={run / 'index'}", f"--config.data.image_dir={images}"]
    none, quarter = (f"--config.data.max_bad_fraction={share}" for share in (0.0, 0.25))
    assert main(command(inputs, tmp_path / "run", *flags, none, job="retrieve")) == 2
    assert last_line(capsys).startswith("error: record p1: image")
    assert main(command(inputs, tmp_path / "run", *flags, quarter, job="retrieve")) == 0
    rows = read_jsonl(run / "retrieved.jsonl")
    assert read_jsonl(tmp_path / "run/retrieved.jsonl") == [r for r in rows if r["id"] != "p1"]
    assert report(tmp_path / "run")["counts"]["unreadable"] == 1


def test_a_killed_retrieve_goes_on_to_the_same_bytes(inputs, run, tmp_path, monkeypatch) -> None:
    index = f"--config.retrieval.index={run / 'index'}"
    calls, embed = [], clip_job.ClipEmbedder.images

    def dying(self, pixels):
        calls.append(len(pixels))
        if len(calls) == 2:
            raise Killed
        return embed(self, pixels)

    monkeypatch.setattr(clip_job.ClipEmbedder, "images", dying)
    with pytest.raises(Killed):
        main(command(inputs, tmp_path, index, job="retrieve"))
    assert not (tmp_path / "retrieved.jsonl").exists()
    assert main(command(inputs, tmp_path, index, job="retrieve")) == 0
    assert calls == [3, 1, 1]
    assert (tmp_path / "retrieved.jsonl").read_bytes() == (run / "retrieved.jsonl").read_bytes()


def test_an_edited_index_is_refused_and_made_anew(inputs, run, tmp_path, capsys) -> None:
    workdir = Path(shutil.copytree(run, tmp_path / "run"))
    path = workdir / "index/texts.jsonl"
    path.write_text(path.read_text().replace("red bus", "red car"))
    (workdir / "retrieved.jsonl").unlink()
    assert main(command(inputs, workdir, job="retrieve")) == 2
    message = last_line(capsys)
    assert (
        message.startswith("error: ")
        and "texts.jsonl: it has changed since the index was made" in message
    )
    assert main(command(inputs, workdir, job="index")) == 0
    assert main(command(inputs, workdir, job="retrieve")) == 0
    for name in ("index/texts.jsonl", "index/embeddings.npy", "retrieved.jsonl"):
        assert (workdir / name).read_bytes() == (run / name).read_bytes(), name


def test_training_takes_the_texts_that_are_there(inputs, run, tmp_path) -> None:
    rows = read_jsonl(run / "retrieved.jsonl")
    write_jsonl(tmp_path / "some.jsonl", [rows[0], rows[1], rows[3] | {"id": "nobody"}])
    some = f"--config.data.retrieved={tmp_path / 'some.jsonl'}"
    assert main(command(inputs, tmp_path, some, job="inspect")) == 0
    shown = {
        row["id"]: row["retrieved_span"] for row in read_jsonl(tmp_path / "inspect/samples.jsonl")
    }
    # p1 and p2 have a text of their own, p3 has none, and nobody is no sample.
    assert [name for name, span in shown.items() if span] == ["p0", "p1", "p2"]
    spans = {row["id"]: row for row in read_jsonl(tmp_path / "inspect/samples.jsonl")}
    tokenizer = transformers.AutoTokenizer.from_pretrained(inputs / "checkpoint")

    def text(name: str) -> str:
        begin, end = shown[name]
        return tokenizer.decode(spans[name]["input_ids"][begin:end]).strip()

    assert text("p0") == rows[0]["text"] and text("p1") == "a tea set on a table"


@pytest.mark.parametrize(
    ("job", "flag", "said"),
    [
        ("index", "retrieval.backend=faiss", "config.retrieval.backend='faiss' must be one of"),
        ("retrieve", "retrieval.backend=faiss", "config.retrieval.backend='faiss' must be one of"),
        (
            "index", "retrieval.corpus= data.path=no.json",
            "config.data.path='no.json': there is no such file",
        ),
        (
            "index", "retrieval.corpus= data.path=.",
            "config.data.path='.': job index needs a LLaVA JSON file",
        ),
        (
            "index", "retrieval.corpus= data.captions=no.jsonl",
            "config.data.captions='no.jsonl': there is no such file",
        ),
        ("index", "retrieval.corpus=no.txt", "config.retrieval.corpus: no.txt: there is no such"),
        ("retrieve", "retrieval.choice=best", "config.retrieval.choice='best'"),
        ("retrieve", "retrieval.noise=2", "config.retrieval.noise=2"),
        ("retrieve", "data.path=nosuch.json", "config.data.path='nosuch.json': there is no such"),
        ("retrieve", "data.path=.", "config.data.path='.': job retrieve needs a LLaVA JSON file"),
        ("retrieve", "data.captions=no.jsonl", "config.data.captions='no.jsonl': there is no such"),
        ("generate", "retrieval.noise=2", "config.retrieval.noise=2"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_before_any_job_runs(inputs, run, tmp_path, job, flag, said) -> None:
    index = f"--config.retrieval.index={run / 'index'}"
    flags = [f"--config.{one}" for one in flag.split(" ")]
    line = command(inputs, tmp_path, index, *flags, job=job)
    with pytest.raises(UserError) as caught:
        check_jobs(parse_flags(line).config, tmp_path, [job])
    assert said in str(caught.value)


def test_the_files_that_retrieve_and_caption_write_need_not_be_there(inputs, run, tmp_path) -> None:
    flags = [f"--config.retrieval.index={run / 'index'}"]
    flags += [f"--config.data.{name}={tmp_path / name}.jsonl" for name in ("captions", "retrieved")]
    config = parse_flags(command(inputs, tmp_path, *flags)).config
    check_jobs(config, tmp_path, ["caption", "retrieve"])
