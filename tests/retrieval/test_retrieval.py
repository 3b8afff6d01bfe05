"""Texts, search, exclusion and the index's checks, against plain numpy."""

from __future__ import annotations

import json
import os
import sys
import zipfile

import numpy as np
import pytest

from tga_jax.errors import UserError
from tga_jax.retrieval import scann_search
from tga_jax.retrieval.choose import Query, Rules, find, noised_ids
from tga_jax.retrieval.index import choose_backend, open_index, seal_index, text_rows
from tga_jax.retrieval.retriever import look_up
from tga_jax.retrieval.scann_search import ScannSearch, scann_parameters
from tga_jax.retrieval.search import ExactSearch
from tga_jax.retrieval.texts import Text, clean, normal_form, read_lines, tidy, truncate

CLIP = {"name": "clip", "digest": "d"}
needs_scann = pytest.mark.skipif(not scann_search.available(), reason="no scann wheel here")


def vectors(count: int, width: int = 16, *, seed: int = 0, clusters: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, width))
    if clusters:
        centres = np.random.default_rng(99).normal(size=(clusters, width))
        x = centres[rng.integers(clusters, size=count)] + 0.5 * x
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def make_index(folder, *, count=60, backend="exact", texts=None):
    folder.mkdir(exist_ok=True)
    items = [Text(str(i), t) for i, t in enumerate(texts or [f"thing {i}" for i in range(count)])]
    np.save(folder / "embeddings.npy", vectors(len(items)))
    lines = [json.dumps(row) + "\n" for row in text_rows(items)]
    (folder / "texts.jsonl").write_text("".join(lines))
    about = seal_index(
        folder, backend=backend, exact_below=50, leaves_share=0.5, clip=CLIP, more={}
    )
    (folder / "index.json").write_text(json.dumps(about))
    return folder


def rules(**more) -> Rules:
    base = dict(seed=1, top_k=4, choice="nearest", noise=0.0)
    return Rules(**{**base, "duplicate_cosine": 0.98, "duplicate_jaccard": 0.5, **more})


def test_texts_are_cleaned_and_kept_once():
    texts = ["A  cup.\x07", "a cup", "", " ?! ", "Cafe\u0301", "caf\u00e9!", "one two three four"]
    kept, counts = tidy([Text(str(i), t) for i, t in enumerate(texts)], most=10)
    assert [t.text for t in kept] == ["A cup.", "Caf\u00e9", "one two"]
    assert counts == {"read": 7, "empty": 2, "cut": 1, "duplicates": 2, "kept": 3}
    assert clean("a\u2028b\tc") == "a b c" and truncate("x" * 9, 4) == "xxxx"
    assert normal_form("The CUP, red!") == "the cup red"


def test_corpus_files_name_the_bad_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 7, "text": "x"}\n\n{"text": "y"}\n')
    assert list(read_lines(path)) == [Text("7", "x"), Text("a.jsonl:3", "y")]
    path.write_text('{"id": null, "text": "x"}\n')
    assert list(read_lines(path)) == [Text("a.jsonl:1", "x")]
    path.write_text('{"id": 1, "image": "1.png", "caption": "a cup"}\n')
    assert list(read_lines(path)) == [Text("1", "a cup")]  # of job caption
    path.write_text('{"id": 1, "conversations": []}\n')
    with pytest.raises(
        UserError, match="line 1: it must be an object .* samples are read from .json"
    ):
        list(read_lines(path))
    path.write_text('{"text": "x"}\n{"text": 3}\n')
    with pytest.raises(UserError, match="line 2"):
        list(read_lines(path))
    (tmp_path / "b.txt").write_bytes(b"good\n\xff bad\n")
    with pytest.raises(UserError, match="line 2: not UTF-8"):
        list(read_lines(tmp_path / "b.txt"))
    (tmp_path / "c.txt").write_text("w " * 500_000 + "\nshort\n")
    assert [len(t.text) for t in tidy(read_lines(tmp_path / "c.txt"), most=50)[0]] == [49, 5]


def test_exact_search_is_a_stable_sort(monkeypatch):
    monkeypatch.setattr("tga_jax.retrieval.search.BLOCK_FLOATS", 300)  # several blocks
    x, q = vectors(100), vectors(9, seed=1)
    x[50] = x[3]  # a tie
    q[0] = x[3]
    numbers, scores = ExactSearch(x)(q, 7)
    wanted = np.argsort(-(q @ x.T), axis=1, kind="stable")[:, :7]
    np.testing.assert_array_equal(numbers, wanted)
    np.testing.assert_allclose(scores, np.take_along_axis(q @ x.T, wanted, 1), atol=1e-6)
    assert numbers[0, :2].tolist() == [3, 50] and ExactSearch(x)(q, 500)[0].shape == (9, 100)


@needs_scann
def test_scann_below_the_threshold_is_exact_and_survives_a_move(tmp_path):
    x, q = vectors(200), vectors(20, seed=1)
    parameters = scann_parameters(200, exact_below=201, leaves_share=0.2)
    assert parameters == {"kind": "exact"}
    ScannSearch.build(x, parameters).save(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    loaded = ScannSearch.load(tmp_path / "b", 200, parameters)
    np.testing.assert_array_equal(loaded(q, 12)[0], ExactSearch(x)(q, 12)[0])
    (tmp_path / "b" / "scann_docids.pkl").write_bytes(b"x")
    with pytest.raises(UserError, match="did not write this file"):
        ScannSearch.load(tmp_path / "b", 200, parameters)


@needs_scann
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 40])
def test_few_texts_are_searched_whatever_the_threshold(count):
    x = vectors(count)
    found = ScannSearch.build(x, scann_parameters(count, exact_below=0, leaves_share=0.2))(x, 3)[0]
    assert found.shape == (count, min(count, 3)) and found[:, 0].tolist() == list(range(count))


@needs_scann
def test_the_tree_recalls_what_exact_search_finds():
    x = vectors(60_000, 64, clusters=1000)
    q = vectors(200, 64, seed=5, clusters=1000)
    parameters = scann_parameters(len(x), exact_below=50_000, leaves_share=0.2)
    assert parameters["kind"] == "tree"
    found = ScannSearch.build(x, parameters)(q, 10)[0]
    wanted = ExactSearch(x)(q, 10)[0]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, wanted, strict=True)])
    assert recall >= 0.95


@pytest.mark.parametrize(
    ("count", "leaves", "read", "reordered"),
    [
        (40, 20, 20, 100),
        (10_000, 316, 100, 100),
        (60_000, 775, 155, 100),
        (100_000, 1000, 200, 100),
        (1_160_000, 3406, 1044, 341),
    ],
)
def test_larger_sets_read_a_larger_share(
    count: int, leaves: int, read: int, reordered: int
) -> None:
    found = scann_parameters(count, exact_below=0, leaves_share=0.2)
    assert (found["leaves"], found["leaves_read"], found["reordered"]) == (leaves, read, reordered)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_a_share_of_the_tree_is_a_share(share: float) -> None:
    with pytest.raises(UserError, match="config.retrieval.leaves_share"):
        scann_parameters(100_000, exact_below=50_000, leaves_share=share)


def test_own_texts_are_never_found(tmp_path):
    index = open_index(make_index(tmp_path / "i"), clip_digest="d")
    image = index.embeddings[5]
    order = np.argsort(-(index.embeddings @ image), kind="stable")
    own = [f"THING {n}!" for n in order[:9]]  # more than the first search looks at
    one = Query("a", image, tuple(own), np.zeros((9, 16), np.float32))
    found = find(index, [one], rules(), set())[0]
    assert (found.number, found.excluded) == (order[9], 9)
    assert found.score == pytest.approx(float(index.embeddings[order[9]] @ image))
    # Near-duplicates: both the cosine and the words must agree.
    near = Query("a", image, ("thing five",), image[None])
    assert find(index, [near], rules(duplicate_jaccard=0.5), set())[0].number == order[0]
    assert find(index, [near], rules(duplicate_jaccard=0.3), set())[0].number == order[1]
    every = Query("a", image, tuple(f"thing {n}" for n in range(60)), np.zeros((60, 16)))
    assert find(index, [every], rules(noise=1.0), {"a"})[0].number is None


def test_lots_follow_seed_and_id_alone(tmp_path):
    index = open_index(make_index(tmp_path / "i"), clip_digest="d")
    queries = [Query(str(i), index.embeddings[i]) for i in range(50)]
    sampled = rules(choice="sampled")
    there = [f.number for f in find(index, queries, sampled, set())]
    back = [f.number for f in find(index, queries[::-1], sampled, set())][::-1]
    near = np.argsort(-(index.embeddings[:50] @ index.embeddings.T), axis=1)[:, :4]
    assert there == back and all(t in row for t, row in zip(there, near, strict=True))
    assert 20 < sum(t != n[0] for t, n in zip(there, near, strict=True)) < 50  # about 3 of 4
    noisy = rules(noise=0.1)
    noised = noised_ids([q.id for q in queries], noisy)
    assert len(noised) == 5 and noised == noised_ids([q.id for q in queries[::-1]], noisy)
    for one, query, row in zip(find(index, queries, noisy, noised), queries, near, strict=True):
        assert one.noised == (query.id in noised) == (one.number != row[0])


def test_an_edited_index_is_refused(tmp_path):
    folder = make_index(tmp_path / "i")
    with pytest.raises(UserError, match="made with the CLIP"):
        open_index(folder, clip_digest="other")
    x = np.load(folder / "embeddings.npy")
    np.save(folder / "embeddings.npy", -x)
    with pytest.raises(UserError, match="embeddings.npy: it has changed"):
        open_index(folder, clip_digest="d")
    np.save(folder / "embeddings.npy", x)
    texts = (folder / "texts.jsonl").read_text()
    (folder / "texts.jsonl").write_text(texts.replace("thing 3", "thong 3"))
    with pytest.raises(UserError, match="texts.jsonl: it has changed"):
        open_index(folder, clip_digest="d")
    (folder / "texts.jsonl").write_text(texts)
    about = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(about | {"version": 0}))
    with pytest.raises(UserError, match="version 0"):
        open_index(folder, clip_digest="d")
    (folder / "index.json").unlink()
    with pytest.raises(UserError, match="no finished index"):
        open_index(folder, clip_digest="d")


def test_without_scann_the_search_is_exact_with_a_warning(monkeypatch):
    monkeypatch.setitem(sys.modules, "scann", None)
    monkeypatch.setitem(sys.modules, "scann.scann_ops.py", None)
    said: list[str] = []
    assert choose_backend("auto", say=said.append) == "exact" and "warning" in said[0]
    with pytest.raises(UserError, match="pip install scann"):
        choose_backend("scann")


@pytest.mark.parametrize("packed", [False, True])
def test_texts_of_an_image_that_was_replaced_are_looked_up_anew(tmp_path, packed):
    """Also where the new image has as many bytes as the old one."""

    class Asked:
        settings = {"index": "i"}
        kept = []

        def texts(self, asked, work):
            self.kept.append(work.rows())
            work.append([{"row": 0, "text": "a cup"}])
            return ["a cup"]

    folder = tmp_path / "images.zip" if packed else tmp_path / "images"

    def replace(content, time):
        if packed:
            with zipfile.ZipFile(folder, "w") as archive:
                archive.writestr("images/1.png", content)
        else:
            folder.mkdir(exist_ok=True)
            (folder / "1.png").write_bytes(content)
        os.utime(folder if packed else folder / "1.png", (time, time))

    asked, retriever = [("q", (folder, "1.png", "q"), None)], Asked()
    for content, time in ((b"abcd", 1000), (b"abcd", 1000), (b"efgh", 2000)):
        replace(content, time)
        assert look_up(retriever, tmp_path / "kept", asked) == ["a cup"]
    assert [len(rows) for rows in retriever.kept] == [0, 1, 0]
