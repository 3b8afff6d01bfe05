"""Mutations of rows and of images."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from tests.jobs.inputs import make_samples
from tests.jobs.mutation import STRICT, TOLERANT, Mutation, mutate_bytes, odd_value

KEYS = ("id", "image", "conversations", "image_caption", "retrieved_caption", "tox", "video", "x")
ROLES = ("user", "assistant", "system", "GPT", "Human", "", None, 1, ["human"], "gpt", "human")
NAMES = (
    "gone.png", "../x.png", "/etc/passwd", ".", "", "0.png/", "a\0.png", "x" * 5000, "~/0.png",
    "0.PNG", "./0.png", "a\u2028.png", "\ud800.png", "images/0.png", "http://a.b/0.png",
)  # fmt: skip
MARKS: tuple[Callable[[str], str], ...] = (
    lambda text: f"<image>{text}",
    lambda text: f"{text} <image>",
    lambda text: text.replace("<image>", ""),
    lambda text: text.replace("<image>\n", "") + "\n<image>",
    lambda text: text.replace("<image>", "<IMAGE>"),
    lambda text: text.replace("<image>", "<image>\u2028<|endoftext|>"),
)

Rows = list[Any]


def row_mutation(rng: random.Random) -> Mutation:
    """One row, or the file that the rows are in."""
    flag, job = (
        rng.choice([STRICT, TOLERANT]),
        rng.choice(["inspect"] * 6 + ["prepare"] * 5 + ["finetune"]),
    )
    lines = rng.random() < 0.5
    if rng.random() < 0.15:
        return _text_mutation(rng, job, flag, lines)
    rows = make_samples()
    number = rng.randrange(len(rows))
    before = rows[number]["id"]
    change = rng.choice([_key, _key, _turn, _turn, _role, _mark, _turns, _image, _row, _rename])
    name, expect = change(rng, rows, number)
    text = as_text(rows, lines)
    after = (
        rows[number].get("id") if number < len(rows) and isinstance(rows[number], dict) else None
    )
    culprits = [f"record number {number + 1}", *(f"record {i}:" for i in (before, after))]
    return Mutation(
        f"row {number} ({before}): {name}",
        job,
        tuple(culprits),
        lambda inputs: (inputs / "samples.json").write_bytes(text) and None,
        (flag,),
        None if expect is None else expect * (flag == STRICT),
        len(rows),
        frozenset({before, str(after)}),
    )


def as_text(rows: Rows, lines: bool) -> bytes:
    """Rows as a JSON list, or one a line."""
    if not lines:
        return json.dumps(rows).encode()
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _text_mutation(rng: random.Random, job: str, flag: str, lines: bool) -> Mutation:
    name, text = mutate_bytes(rng, as_text(make_samples(), lines))

    def spoil(inputs: Path) -> None:
        (inputs / "samples.json").write_bytes(text)

    culprits = ("samples.json", *(f"record {row['id']}" for row in make_samples()))
    what = "lines" if lines else "list"
    return Mutation(f"samples.json ({what}): {name}", job, culprits, spoil, (flag,), rows=None)


def _key(rng: random.Random, rows: Rows, number: int) -> tuple[str, int | None]:
    key, value = rng.choice(KEYS), odd_value(rng)
    rows[number][key] = value
    return f"{key}={value!r}", 2 if key == "conversations" or "\ud800" in repr(
        (key, value)
    ) else None


def _turn(rng: random.Random, rows: Rows, number: int) -> tuple[str, int | None]:
    turns, value = rows[number]["conversations"], odd_value(rng)
    at = rng.randrange(len(turns))
    if rng.random() < 0.3:
        turns[at] = value
        return f"turn {at}={value!r}", 2
    turns[at]["value"] = value
    return f"turn {at} says {value!r}", None if isinstance(value, str) else 2


def _role(rng: random.Random, rows: Rows, number: int) -> tuple[str, int | None]:
    turns, role = rows[number]["conversations"], rng.choice(ROLES)
    at = rng.randrange(len(turns))
    same = role == turns[at]["from"]
    turns[at]["from"] = role
    return f"turn {at} is {role!r}'s", 0 if same else 2


def _mark(rng: random.Random, rows: Rows, number: int) -> tuple[str, int | None]:
    turns, change = rows[number]["conversations"], rng.randrange(len(MARKS))
    at = rng.randrange(len(turns))
    turns[at]["value"] = MARKS[change](turns[at]["value"])
    return f"turn {at} is now {turns[at]['value']!r}", None


def _turns(rng: random.Random, rows: Rows, number: int) -> tuple[str, int | None]:
    turns = rows[number]["conversations"]
    at = rng.randrange(len(turns))
    name, changed, expect = rng.choice(
        [
            ("no turn", [], 2),
            (f"turn {at} twice", [*turns[: at + 1], *turns[at:]], 2),
            (f"without turn {at}", turns[:at] + turns[at + 1 :], None),
            ("turns in a list", [turns], 2),
            ("turns backwards", turns[::-1], None),
            ("an object", {"0": turns[0]}, 2),
        ]
    )
    rows[number]["conversations"] = changed
    return name, expect


def _image(rng: random.Random, rows: Rows, number: int) -> tuple[str, int | None]:
    name = rng.choice(NAMES)
    value = rng.choice([name, name, [name], ["0.png", name], [["0.png"]], {"path": name}])
    rows[number]["image"] = value
    right = value == "./0.png" and number != 4
    blank = number == 5  # a "tox" row's image is not read
    return f"image={value!r:.60}", None if right or blank else 2


def _row(rng: random.Random, rows: Rows, number: int) -> tuple[str, int | None]:
    row, value = rows[number], odd_value(rng)
    name, changed, expect = rng.choice(
        [
            ("gone", [], 0),
            ("twice", [row, dict(row)], 0),
            (f"{value!r} in its place", [value], 2),
            ("in a list", [[row]], 2),
            ("in an object", [{"row": row}], 2),
        ]
    )
    rows[number : number + 1] = changed
    return name, expect


def _rename(rng: random.Random, rows: Rows, number: int) -> tuple[str, int | None]:
    key = rng.choice(list(rows[number]))
    if rng.random() < 0.5:
        del rows[number][key]
    else:
        rows[number][key.upper()] = rows[number].pop(key)
    wanted = key in ("id", "conversations") or (key == "image" and number != 4)
    return f"without {key}, or in capitals", 2 if wanted else 0


def image_mutation(rng: random.Random) -> Mutation:
    """An image's file; row p<n> shows <n>.png, and row tox-1 shows 0.png blank."""
    number = rng.randrange(4)
    flag, job = (
        rng.choice([STRICT, TOLERANT]),
        rng.choice(["inspect"] * 3 + ["prepare"] * 3 + ["score"]),
    )
    change = rng.choice(IMAGES)
    at = rng.random()
    mutation = Mutation(
        f"{number}.png: {change.__name__} {at:.3f}",
        job,
        (f"{number}.png",),
        lambda inputs: change(inputs / "images" / f"{number}.png", at),
        (flag,),
        touched=frozenset(),
    )
    expect = EXPECTED.get(change)
    return dataclasses.replace(
        mutation, expect=None if expect is None else expect * (flag == STRICT)
    )


def truncated(path: Path, at: float) -> None:
    """A part of it is missing."""
    path.write_bytes(path.read_bytes()[: int(at * path.stat().st_size * 0.9)])


def empty(path: Path, at: float) -> None:
    """No bytes."""
    path.write_bytes(b"")


def zeros(path: Path, at: float) -> None:
    """As many bytes as before, none of which says anything."""
    path.write_bytes(bytes(path.stat().st_size))


def other_format(path: Path, at: float) -> None:
    """Another raster format under the name of a PNG, which is no mistake."""
    kind = ("JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")[int(at * 6)]
    with Image.open(path) as image:
        image.copy().save(path, format=kind)


def no_raster(path: Path, at: float) -> None:
    """A format that is not read."""
    path.write_text(
        ("%!PS-Adobe-3.0 EPSF-3.0\n", "<svg/>", "%PDF-1.4", "<html>404</html>")[int(at * 4)]
    )


def tiny(path: Path, at: float) -> None:
    """One pixel, of one of Pillow's modes."""
    Image.new(("RGB", "1", "L", "LA", "P", "RGBA", "I;16")[int(at * 7)], (1, 1)).save(path)


def thin(path: Path, at: float) -> None:
    """One pixel high and very wide; scaled to a square's height it would be enormous."""
    Image.new("L", (int(1000 + at * 60_000), 1)).save(path)


def enormous(path: Path, at: float) -> None:
    """A header that promises 2^31 x 2^31 pixels at most, and a checksum that is right."""
    content, side = path.read_bytes(), int(2 ** (15 + 16 * at))
    header = b"IHDR" + struct.pack(">II", side, side) + content[24:29]
    path.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])


def folder(path: Path, at: float) -> None:
    """A folder of that name."""
    path.unlink()
    path.mkdir()


def loop(path: Path, at: float) -> None:
    """A link to itself."""
    path.unlink()
    path.symlink_to(path.name)


def outside(path: Path, at: float) -> None:
    """A link that leaves the image folder."""
    path.rename(path.parents[1] / "outside.png")
    path.symlink_to("../outside.png")


def inside(path: Path, at: float) -> None:
    """A link within the image folder, which is no mistake."""
    path.rename(path.with_name("moved.png"))
    path.symlink_to("moved.png")


def gone(path: Path, at: float) -> None:
    """No such file."""
    path.unlink()


def pipe(path: Path, at: float) -> None:
    """A named pipe, which would be waited for without end."""
    path.unlink()
    os.mkfifo(path)


def garbled(path: Path, at: float) -> None:
    """One byte is another; a checksum may or may not find it."""
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 0x55
    path.write_bytes(bytes(content))


IMAGES = (
    truncated, empty, zeros, other_format, no_raster, tiny, thin, enormous, folder, loop, outside,
    inside, gone, pipe, garbled,
)  # fmt: skip
BROKEN = (truncated, empty, zeros, no_raster, enormous, folder, loop, outside, gone, pipe)
EXPECTED: dict[Callable[[Path, float], None], int] = {change: 2 for change in BROKEN}
EXPECTED |= {change: 0 for change in (other_format, tiny, inside)}
