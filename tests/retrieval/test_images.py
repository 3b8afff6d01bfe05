"""Which images get a text, and what of it is written, where ids restart."""

from __future__ import annotations

from tga_jax.data.records import Record, Turn
from tga_jax.retrieval.images import Sample, choose_samples


def record(name: str, *images: str, caption: str | None = None, tox: bool = False) -> Record:
    return Record(name, images, (Turn("q", f"says {name}"),), caption, None, tox)


def test_each_image_of_an_id_is_a_sample_of_its_own() -> None:
    records = [
        record("0", "a.png", caption="a"), record("1", "b.png"), record("0", "c.png", "d.png"),
        record("0", "a.png"), record("text"), record("tox-1", "a.png", tox=True),
        record("2", "a.png", caption="also a"),
    ]  # fmt: skip
    samples, counts = choose_samples(records)
    own = ("a", "says 0", "also a", "says 2")
    assert samples == [
        Sample("0 a.png", "0", "a.png", "a", own), Sample("0 c.png", "0", "c.png", "", ("says 0",)),
        Sample("1", "1", "b.png", "", ("says 1",)), Sample("2", "2", "a.png", "also a", own),
    ]  # fmt: skip
    assert counts == {"records": 7, "without_picture": 1, "tox": 1}
