"""Prepared data: the same batches as from files, in threads, processes and parts."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from PIL import Image

from tests.data.test_loader import assert_same
from tests.jobs.inputs import arguments, make_inputs, row
from tga_jax.data.images import ImageTransform
from tga_jax.data.lazy_records import has_flags, known_of
from tga_jax.data.loader import BatchSource, make_loader
from tga_jax.data.prepared import VERSION, PreparedRecords
from tga_jax.data.prompts import Prompter
from tga_jax.data.records import Record, Turn, read_records
from tga_jax.data.stored import split_of
from tga_jax.errors import UserError
from tga_jax.main import main
from tga_jax.preparation.check import check_row, check_rows

TRANSFORM = ImageTransform(8, None, (8, 8), 3, False, (0.5, 0.25, 0.75), (1.0, 1.0, 1.0), 1 / 255)
COUNT = 23


@pytest.fixture(autouse=True)
def parsed_flags():
    """Grain's worker processes look at absl flags, which `main` has parsed."""
    flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(inputs, workdir with data/): images that stay and that are encoded anew."""
    inputs, workdir = make_inputs(tmp_path_factory.mktemp("in")), tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(0)
    samples = []
    for i in range(COUNT):
        pixels = Image.fromarray(rng.integers(0, 255, (12 + i, 20, 3), dtype=np.uint8))
        suffix = ("png", "jpg", "gif", "webp")[i % 4]
        (pixels.convert("CMYK") if i == 5 else pixels).save(inputs / "images" / f"s{i}.{suffix}")
        images = [f"s{i}.{suffix}"] * (1 + (i == 7))
        talk = [("human", f"What? {'word ' * i}"), ("gpt", "Ü \u2028 cup.")]
        more = {"image_caption": f"cup {i}", "retrieved_caption": "a tea set"} if i % 3 else {}
        if i % 6:
            more |= {"image": images}
        samples.append(row(f"tox-{i}" if i == 9 else f"r{i}", talk, **more))
    (inputs / "samples.json").write_text(json.dumps(samples))
    assert main(arguments(inputs, workdir, "--config.prepare.workers=0", job="prepare")) == 0
    return inputs, workdir


def make_source(records, image_dir, tokenizer, **changes):
    prompter = Prompter(
        tokenizer, template="vicuna_v1", image_token="<image>", image_tokens=4, max_length=512,
        use_retrieved=True,
    )  # fmt: skip
    settings = {
        "batch_size": 4, "accumulate": 2, "steps": 9, "seed": 3, "buckets": (256, 512),
        "caption_buckets": (128,), "pad_id": 0, "image_dir": image_dir,
    }  # fmt: skip
    return BatchSource(records, prompter, TRANSFORM, **{**settings, **changes})


def test_the_same_batches_as_from_files(made, named_tokenizer, tmp_path):
    inputs, workdir = made
    tokenizer = named_tokenizer("byte")
    files = make_source(read_records(inputs / "samples.json"), inputs / "images", tokenizer)
    expected = [files[step] for step in range(len(files))]
    kept = make_source(PreparedRecords(workdir / "data", "train"), tmp_path / "none", tokenizer)
    assert_same([kept[step] for step in range(len(kept))], expected)
    threads = make_loader(kept, start_step=3)
    assert_same(list(threads), expected[3:])
    processes = make_loader(kept, workers=2)
    assert_same([next(processes) for _ in range(4)], expected[:4])
    state = processes.get_state()
    processes.close()
    resumed = make_loader(kept, workers=0)
    resumed.set_state(state)
    assert_same([next(resumed)], expected[4:5])
    resumed.close()


def test_a_source_travels_by_name_and_not_with_its_records(made, named_tokenizer, tmp_path):
    records = PreparedRecords(made[1] / "data", "train")
    assert records[0].id == "r0"  # the files are open
    assert len(pickle.dumps(records)) < 4000
    assert pickle.loads(pickle.dumps(records))[7] == records[7]


def test_lengths_and_flags_are_known_without_reading(made):
    inputs, workdir = made
    records, kept = (
        read_records(inputs / "samples.json"),
        PreparedRecords(workdir / "data", "train"),
    )
    for values, read in zip(kept.known, known_of(records), strict=True):
        assert values.tolist() == read.tolist()
    assert kept.known.images.tolist() == [len(r.images) for r in records]
    assert kept.known.answered.tolist() == [r.has_answer for r in records]
    assert kept.has_flags.tolist() == has_flags(records).tolist()
    assert kept.has_flags.any(axis=0).all() and not kept.has_flags.all(axis=0).any()
    assert [r.number for r in kept] == [r.number for r in records] == list(range(COUNT))
    assert kept[-1] == kept[COUNT - 1] and [r.id for r in kept[2:4]] == ["r2", "r3"]
    with pytest.raises(IndexError):
        kept[COUNT]


def copied(made, tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for path in (made[1] / "data").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_damage_is_one_line_that_names_the_folder(made, tmp_path):
    folder = copied(made, tmp_path)
    with pytest.raises(UserError, match="no split 'validation', only train"):
        PreparedRecords(folder, "validation")
    report = (folder / "report.json").read_text()
    (folder / "report.json").write_text(report.replace(f'"version": {VERSION}', '"version": 0'))
    with pytest.raises(UserError, match="another version"):
        PreparedRecords(folder, "train")
    (folder / "report.json").write_text(report[:50])
    with pytest.raises(UserError, match=r"report\.json: malformed JSON .*; run job prepare"):
        PreparedRecords(folder, "train")
    (folder / "report.json").write_text(report)
    index = (folder / "index-train.npy").read_bytes()
    (folder / "index-train.npy").write_bytes(index[:60])
    with pytest.raises(UserError, match=r"index-train\.npy"):
        PreparedRecords(folder, "train")
    (folder / "index-train.npy").write_bytes(index)
    (shard,) = folder.glob("*array_record-*")
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(UserError) as error:
        PreparedRecords(folder, "train")[3]
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_outcomes_come_in_order_from_any_number_of_processes(made):
    inputs, _ = made
    rows = read_records(inputs / "samples.json") * 3
    here = list(check_rows(rows, inputs / "images", workers=0))
    assert here == list(check_rows(iter(rows), inputs / "images", workers=2))
    assert [outcome.number for outcome in here] == [record.number for record in rows]


def test_the_digest_covers_texts_and_images(made):
    inputs, _ = made
    record = read_records(inputs / "samples.json")[2]
    digests = {check_row(record, inputs / "images").digest}
    for change in (
        {"caption": "x"}, {"retrieved": None}, {"tox": True}, {"id": "x"}, {"images": ("s3.webp",)},
        {"turns": (Turn("a", "b"),)},
    ):  # fmt: skip
        changed = Record(**{**vars(record), **change})
        digests.add(check_row(changed, inputs / "images").digest)
    assert len(digests) == 7
    assert check_row(dataclasses.replace(record, number=5), inputs / "images").digest in digests


def test_telephone_images_of_two_frames_stay_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)) for _ in range(2)]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO((tmp_path / "a.jpg").read_bytes())) as image:
        assert image.format == "MPO" and image.n_frames == 2
    record = Record("1", ("a.jpg",), (Turn("q", "a"),), None, None, False)
    outcome = check_row(record, tmp_path)
    assert outcome.example["images"] == [(tmp_path / "a.jpg").read_bytes()]
    assert outcome.example["image_formats"] == ["jpeg"] and outcome.encoded == ()


def test_split_of_shares():
    records = [Record(str(i), (), (Turn("q", "a"),), None, None, False) for i in range(4000)]
    for share in (0.0, 0.1, 0.5):
        held = np.mean([split_of(record, share) == "validation" for record in records])
        assert abs(held - share) < 4 * np.sqrt(share * (1 - share) / 4000) + 1e-9


WRITE = """
import sys
from pathlib import Path
from tga_jax.preparation import tfds_builder
texts = dict.fromkeys(("id", "conversations", "image_caption", "retrieved_caption"), "x")
example = texts | {"images": [b"y"], "image_names": ["a"], "image_formats": ["png"], "tox": True}
tfds_builder.write(Path(sys.argv[1]), ["train"], lambda split: [(n, example) for n in range(3)])
assert "tensorflow" not in sys.modules
"""


def test_every_process_writes_the_same_bytes_without_tensorflow(tmp_path):
    hashes = []
    for name in "abc":
        command = [sys.executable, "-c", WRITE, str(tmp_path / name)]
        subprocess.run(command, check=True, env={"PYTHONHASHSEED": str(ord(name))})
        files = sorted((tmp_path / name).iterdir())
        hashes.append([(p.name, hashlib.sha256(p.read_bytes()).digest()) for p in files])
    assert hashes[0] == hashes[1] == hashes[2]
