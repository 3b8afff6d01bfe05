"""metrics.jsonl and TensorBoard's event file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from tests.file_limits import files_end_at
from tga_jax.training.metrics import MetricsLog, Progress


def events(folder: Path) -> Iterator[Any]:
    """The events of the only file in a folder: length, its checksum, bytes, their checksum."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = folder.glob("events*")
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("Q", content[:8])
        yield Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def test_the_board_has_the_numbers_and_hides_what_a_killed_run_wrote_later(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, resume_step=6)
    log.write(7, {"loss": 1.5, "lm_loss": float("nan")})
    log.close()
    version, start, loss = events(tmp_path / "tensorboard")
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (7, start.session_log.START)
    (value,) = loss.summary.value
    assert (loss.step, value.tag, value.simple_value) == (7, "loss", 1.5)


def test_a_full_disk_is_an_error_and_no_wait_for_ever(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, resume_step=0)
    (tmp_path / "metrics.jsonl").unlink(missing_ok=True)
    (tmp_path / "metrics.jsonl").symlink_to("/dev/null")  # it is the board's file that is cut
    with files_end_at(20_000), pytest.raises(OSError, match="File too large"):
        for step in range(2000):
            log.write(step, {"loss": 1.0})
    with files_end_at(20_000), pytest.raises(OSError, match="File too large"):
        log.close()


def test_the_time_left_is_reckoned_without_compiling(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr("tga_jax.training.metrics.time.monotonic", lambda: now)
    compiled = "/jax/core/compile/backend_compile_duration"
    jax.monitoring.record_event_duration_secs(compiled, 40.0)  # before it begins
    progress = Progress("steps", 100, start=10)
    now += 300.0 + 20.0  # 20 steps a second apart, after a long compilation
    jax.monitoring.record_event_duration_secs(compiled, 300.0)
    progress.show(30)
    jax.monitoring.record_event_duration_secs(compiled, 60.0)  # in a thread beside the steps
    progress.show(30)
    first, second = capfd.readouterr().err.splitlines()
    assert first.startswith("steps 30/100  1:10 left") and second.startswith("steps 30/100  ? left")


def test_the_time_left_is_reckoned_without_what_came_before_the_first_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr("tga_jax.training.metrics.time.monotonic", lambda: now)
    progress = Progress("samples checked", 8500)
    now += 6.0  # worker processes start
    progress.show(1)
    now += 10.0
    progress.show(4501)
    first, second = capfd.readouterr().err.splitlines()
    assert first.startswith("samples checked 1/8500  ? left")
    assert second.startswith("samples checked 4501/8500  0:09 left")
