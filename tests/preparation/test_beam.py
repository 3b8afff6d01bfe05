"""The same builder under Apache Beam's local runner.

Beam pins older libraries than ours, so it wants an environment of its own:
    pip install apache-beam==2.77.0 tensorflow-datasets==4.9.10 importlib_resources==7.1.0 pytest
The job as a whole needs in addition, installed with --no-deps, what `pip freeze` names in our
environment and that one lacks; protobuf stays at Beam's 6.33.6 and pillow may be 12.3.0.
"""

import json

import pytest
from PIL import Image

from benchmarks.chain import command
from tga_jax.data.records import Record, Turn
from tga_jax.preparation import tfds_builder
from tga_jax.preparation.beam_rows import beam_examples, read_outcomes
from tga_jax.preparation.check import check_rows

pytest.importorskip("apache_beam")
LOCAL = ["--runner=DirectRunner", "--direct_num_workers=1"]


def test_beam_writes_what_one_machine_writes(tmp_path):
    for number in range(20):
        Image.new("RGB", (9, 9 + number), (number, 0, 0)).save(tmp_path / f"{number}.png")
    rows = [
        Record(str(n), (f"{n}.png",), (Turn("q", "a"),), f"c {n}", None, False, number=n)
        for n in range(24)  # the last four have no file
    ]
    here = list(check_rows(rows, tmp_path, workers=0))
    kept = [(o.number, o.example) for o in here if o.example is not None]
    notes = tmp_path / "notes" / "train"
    count = tfds_builder.write(tmp_path / "one", ["train"], lambda split: kept)
    beam_count = tfds_builder.write(
        tmp_path / "beam",
        ["train"],
        lambda split: beam_examples(rows, tmp_path, notes),
        beam=LOCAL,
    )
    assert count == beam_count == {"train": 20}
    import tensorflow_datasets as tfds

    one, other = (
        list(tfds.builder_from_directory(tmp_path / name).as_data_source("train"))
        for name in ("one", "beam")
    )
    assert [e["id"] for e in one] == [e["id"] for e in other]
    assert [list(e["images"]) for e in one] == [list(e["images"]) for e in other]
    noted = list(read_outcomes(notes))
    assert [(o.bad, o.digest, o.figures) for o in noted] == [
        (o.bad, o.digest, o.figures) for o in here
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_job_under_beam_writes_the_same_bytes(tmp_path, workers):
    pytest.importorskip("jax")
    pytest.importorskip("transformers")
    from tga_jax.main import main

    inputs, rows = tmp_path / "inputs", []
    (inputs / "images").mkdir(parents=True)
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A thing."}]
    for number in range(30):
        image = Image.new("RGB", (9, 9 + number), (number, 0, 0))
        image.save(inputs / "images" / f"{number}.png")
        name = "nowhere.png" if number == 5 else f"{number}.png"
        rows.append({"id": f"p{number}", "image": name, "conversations": talk})
    (inputs / "samples.json").write_text(json.dumps(rows))
    more = ["--config.data.max_bad_fraction=0.1", "--config.data.validation=0.2"]
    mode = "in_memory" if workers == 1 else "multi_processing"
    beam = f"--runner=DirectRunner --direct_num_workers={workers} --direct_running_mode={mode}"
    assert main(command(inputs, tmp_path / "one", *more, job="prepare")) == 0
    more.append(f"--config.prepare.beam={beam}")
    assert main(command(inputs, tmp_path / "beam", *more, job="prepare")) == 0
    one, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "data").iterdir()}
        for name in ("one", "beam")
    )
    assert json.loads(one["report.json"])["skipped"] == 1 and len(one) > 5
    assert one == other
