"""Checks records and their pictures in parallel, and turns them into examples to be stored."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from tga_jax.data.images import FORMATS, decode_image, resolve_image
from tga_jax.data.records import Record, text_length
from tga_jax.data.stored import Outcome, Row
from tga_jax.data.templates import count_marks
from tga_jax.errors import UserError

RECORDS_A_TASK = 16  # what a worker process gets at a time


def check_row(row: Row, image_dir: Path) -> Outcome:
    """Reads a record's pictures and checks all that can be checked without a model."""
    number, record = row
    try:
        count_marks(record)
        if not any((turn.answer or "").strip() for turn in record.turns):
            raise UserError(f"record {record.id}: it has no answer, so there is nothing to learn")
        pictures = [_read_picture(record, name, image_dir) for name in record.images]
    except UserError as error:
        return Outcome(number, record.id, reason=str(error))
    example = _example(record, pictures)
    return Outcome(
        number,
        record.id,
        example=example,
        digest=_digest(example),
        figures=(
            text_length(record),
            len(record.images),
            int(record.caption is not None),
            int(record.retrieved is not None),
            int(record.tox),
        ),
        encoded=tuple(change for _, _, change in pictures if change),
    )


def _read_picture(record: Record, name: str, image_dir: Path) -> tuple[bytes, str, str]:
    """Returns (bytes, their format, why they are not the file's own or "").

    Pixels are those of `load_image` either way: what is encoded anew is its RGB, without loss.
    """
    if record.tox:  # blank in training, whatever the file holds
        return b"", "", ""
    path = resolve_image(image_dir, name, record_id=record.id)
    where = f"record {record.id}: image {path}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error.strerror}") from error
    pixels = decode_image(io.BytesIO(content), where=where)
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        # Telephones write JPEG files of several pictures; the first is an ordinary JPEG.
        form = "JPEG" if image.format == "MPO" else str(image.format)
        change = _change(image, form, path.suffix.lower())
    if not change:
        return content, form.lower(), ""
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG")
    return buffer.getvalue(), "png", change


def _change(image: Image.Image, form: str, suffix: str) -> str:
    """Why a picture is not kept as it is, "" if it is."""
    claimed = Image.registered_extensions().get(suffix, form)
    if (form if claimed == "MPO" else claimed) != form:
        return "format"
    if image.mode in ("P", "PA"):
        return "palette"
    if image.mode == "CMYK":
        return "cmyk"
    return "animated" if getattr(image, "is_animated", False) and image.format != "MPO" else ""


def _example(record: Record, pictures: list[tuple[bytes, str, str]]) -> dict[str, Any]:
    conversation = []
    for turn in record.turns:
        conversation.append({"from": "human", "value": turn.question})
        if turn.answer is not None:
            conversation.append({"from": "gpt", "value": turn.answer})
    return {
        "id": record.id,
        "conversations": json.dumps(conversation, ensure_ascii=False),
        "images": [content for content, _, _ in pictures],
        "image_names": list(record.images),
        "image_formats": [form for _, form, _ in pictures],
        "image_caption": record.caption or "",
        "retrieved_caption": record.retrieved or "",
        "tox": record.tox,
    }


def _digest(example: dict[str, Any]) -> str:
    hashes = [hashlib.sha256(content).hexdigest() for content in example["images"]]
    text = json.dumps(example | {"images": hashes}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_rows(rows: Iterable[Row], image_dir: Path, *, workers: int) -> Iterator[Outcome]:
    """`check_row` of every row, in order, in `workers` processes; 0: in this one."""
    if not workers:
        yield from (check_row(row, image_dir) for row in rows)
        return
    rows = iter(rows)
    tasks = iter(lambda: list(islice(rows, RECORDS_A_TASK)), [])
    # Forked processes would inherit JAX's threads in an unknown state.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    try:
        waiting: deque[Future[list[Outcome]]] = deque()
        for task in tasks:
            waiting.append(pool.submit(_check_task, task, image_dir))
            if len(waiting) > 4 * workers:  # no more in memory than keeps all of them busy
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _check_task(rows: list[Row], image_dir: Path) -> list[Outcome]:
    return [check_row(row, image_dir) for row in rows]


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next task for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
