"""SIGTERM in every phase, agreed steps, partners that leave or die, stacks of a stall."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tga_jax.cluster import watch as watching_module
from tga_jax.cluster.agreement import Agreement, LocalStore
from tga_jax.cluster.watch import Watch, WatchConfig, hold, watching
from tga_jax.errors import Preempted

SECONDS = 20.0  # the most that anything here takes
ENDS_A_THREAD = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching_module, "POLL_SECONDS", 0.02)


def until(what: Callable[[], Any]) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


# --- alone ---


def test_outside_of_training_sigterm_ends_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="SIGTERM"), watching(WatchConfig()):
        terminate()
        time.sleep(5)
        raise AssertionError("still here")
    assert signal.getsignal(signal.SIGTERM) is before


class SlowToDie:
    """Python drops what is raised in a finalizer, as it does in a callback of its collector."""

    def __del__(self) -> None:
        terminate()
        time.sleep(0.2)


def test_a_signal_in_a_finalizer_is_raised_after_it(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.unraisablehook
    with pytest.raises(Preempted, match="SIGTERM"), watching(WatchConfig()):
        SlowToDie()
        time.sleep(5)
        raise AssertionError("still here")
    assert sys.unraisablehook is before
    assert not capfd.readouterr().err


def test_in_training_sigterm_asks_for_a_stop_after_the_step_under_way() -> None:
    with pytest.raises(Preempted), hold(done=3) as held:
        assert held.go(4) and held.due(3) == ""
        terminate()
        assert held.stopped() and not held.go(5)
        assert held.due(4) == "stop"


def test_long_work_is_left_for_a_stop() -> None:
    with pytest.raises(Preempted), hold(done=3) as held:
        assert held.go(4) and not held.asked()  # 4 is under way
        terminate()
        assert held.asked() and held.due(4) == "stop"


def test_a_stop_that_nobody_asked_about_is_raised_at_the_end() -> None:
    reached = False
    with pytest.raises(Preempted), hold():
        terminate()
        reached = True
    assert reached


def test_checkpoints_by_time() -> None:
    with hold(save_seconds=0.1) as held:
        assert held.go(1) and held.due(1) == ""
        until(lambda: held.due(1) == "save")
        held.saved()
        assert held.go(2)
    with hold(save_seconds=0) as held:
        time.sleep(0.2)
        assert held.due(0) == ""


STUCK = """
import hashlib
from tga_jax.cluster import watch
watch.PATIENCE_SECONDS = 0.3
with watch.watching(watch.WatchConfig()):
    print("up", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2**31 - 1)  # C code that no signal handler interrupts
"""


def ticks(pid: int) -> int:
    """Hundredths of a second of user time that a process has taken."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11])


def test_a_main_thread_that_is_in_a_compiler_is_ended() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    begun = ticks(process.pid)
    until(lambda: ticks(process.pid) > begun + 20)  # only the C code takes that long
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75 and "run the same command again" in said


def test_a_stall_shows_all_stacks(capfd: pytest.CaptureFixture[str]) -> None:
    said = ""

    def heard() -> str:
        nonlocal said
        said += capfd.readouterr().err
        return said

    with watching(WatchConfig(stall_seconds=0.2)):
        until(lambda: "test_a_stall_shows_all_stacks" in heard())
    assert "nothing has ended for" in said and "all stacks" in said


# --- with partners ---


class Members:
    """What the watch knows of the processes of a run: the first of two."""

    index, count = 0, 2

    def __init__(self) -> None:
        self.told: list[tuple[int, str]] = []

    def start(self, ended: Callable[[int, str], None]) -> None:
        self.ended = ended  # to be called when a partner ends

    def tell(self, code: int, text: str) -> None:
        self.told.append((code, text))

    def close(self) -> None:
        pass


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> queue.Queue[int]:
    """Exit codes of a process that the watch ends; the thread then ends as the process would."""
    codes: queue.Queue[int] = queue.Queue()

    def leave(code: int) -> None:
        codes.put(code)
        raise SystemExit

    monkeypatch.setattr(watching_module.os, "_exit", leave)
    return codes


@contextlib.contextmanager
def one_of_two(**config: float) -> Iterator[tuple[Watch, Members, Agreement]]:
    """The watch of a process; its partner's agreement, which takes no turns by itself."""
    members, store = Members(), LocalStore()
    with watching(WatchConfig(**config), cast(Any, members)) as watch:
        watch.agreement = Agreement(store, index=0, count=2)
        watch.heed()
        yield watch, members, Agreement(store, index=1, count=2)


def test_a_process_ends_with_the_code_of_a_partner_and_says_why(
    exits: queue.Queue[int], capfd: pytest.CaptureFixture[str]
) -> None:
    for code, then in ((2, ""), (75, "; run the same command again to go on")):
        with one_of_two() as (_, members, _), pytest.raises(SystemExit):
            members.ended(code, "process 1 of 2 ended: it")
        assert capfd.readouterr().err == f"process 0: process 1 of 2 ended: it{then}\n"
        assert exits.get(timeout=SECONDS) == code
        assert members.told == [(code, "process 1 of 2 ended: it")]  # unchanged, to the others


def test_a_process_that_ends_by_itself_says_why(
    exits: queue.Queue[int], capfd: pytest.CaptureFixture[str]
) -> None:
    with one_of_two() as (watch, members, _), pytest.raises(SystemExit):
        watch.end(2, "x is missing", shown="error: x is missing")
    assert capfd.readouterr().err == "process 0: error: x is missing\n"
    assert members.told == [(2, "process 0 of 2 ended: x is missing")]


@ENDS_A_THREAD
def test_both_stop_at_one_step_and_a_partner_that_is_done_earlier_is_waited_for(
    exits: queue.Queue[int],
) -> None:
    with one_of_two(dead_seconds=0.1) as (_, members, partner):
        partner.begin(5)
        with pytest.raises(Preempted), hold(done=3) as held:
            terminate()
            until(lambda: partner.turn() or partner.stopping)
            assert [held.due(3), partner.due(5)] == ["", "stop"]
            assert held.go(4) and held.go(5) and not held.go(6)
            members.ended(75, "process 1 of 2 ended: it")  # does not end this one at once
            assert held.due(5) == "stop"
            assert exits.get(timeout=SECONDS) == 75  # but in the end


@ENDS_A_THREAD
def test_one_that_does_not_train_ends_when_the_others_stop(exits: queue.Queue[int]) -> None:
    with one_of_two() as (_, _, partner):
        partner.begin(5)
        partner.request("stop")
        partner.turn()
        assert exits.get(timeout=SECONDS) == 75


@ENDS_A_THREAD
def test_a_coordinator_that_fails_ends_the_process(
    exits: queue.Queue[int], capfd: pytest.CaptureFixture[str]
) -> None:
    class Failing(LocalStore):
        def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
            raise RuntimeError("UNAVAILABLE: failed to connect\nand much more")

    with one_of_two() as (watch, _, _):
        watch.agreement = Agreement(Failing(), index=0, count=2)
        assert exits.get(timeout=SECONDS) == 75
    assert "no coordinator: UNAVAILABLE: failed to connect; run the same" in capfd.readouterr().err


def test_nothing_makes_a_failure_of_a_finished_process(exits: queue.Queue[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with one_of_two() as (watch, members, _):
            watch.finish()
            terminate()
            with pytest.raises(SystemExit):
                members.ended(75, "process 1 of 2 is gone")
            assert exits.get(timeout=SECONDS) == 0
        terminate()  # on the way to the exit
    finally:
        signal.signal(signal.SIGTERM, before)
