"""SIGTERM in every phase, agreed steps, partners that leave or die, stacks of a stall."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tga_jax.cluster import watch as watching_module
from tga_jax.cluster.watch import Hold, Watch, WatchConfig, hold, watching
from tga_jax.errors import Preempted


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching_module, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(watching_module, "LINGER_SECONDS", 0.0)


def until(what: Callable[[], Any], seconds: float = 20) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
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


def test_in_training_sigterm_asks_for_a_stop_after_the_step_under_way() -> None:
    with pytest.raises(Preempted), hold(done=3) as held:
        assert held.go(4) and held.due(3) == ""
        terminate()
        assert held.stopped() and not held.go(5)
        assert held.due(4) == "stop"


def test_long_work_is_left_for_a_stop_before_its_step_and_not_for_a_later_one() -> None:
    with pytest.raises(Preempted), hold(done=3) as held:
        assert held.go(4) and not held.asked()  # 4 is under way
        terminate()
        assert held.asked() and held.due(4) == "stop"
    ahead, behind = pod(5, 3)
    ahead.watch._note("stopped by SIGTERM")
    until(lambda: ahead.watch._round.target == behind.watch._round.target == 5)
    assert ahead.hold.asked() and not behind.hold.asked()  # it has two steps to go
    assert behind.hold.go(4) and not behind.hold.asked()
    assert behind.hold.go(5) and behind.hold.asked()
    close([ahead, behind])


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
    with watching(WatchConfig(stall_seconds=0.2)) as watch:
        for _ in range(20):
            watch.alive()
            time.sleep(0.02)
        assert "stacks" not in capfd.readouterr().err
        time.sleep(0.4)
    said = capfd.readouterr().err
    assert "all stacks" in said and "test_a_stall_shows_all_stacks" in said


ENDS_A_THREAD = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

# --- with partners: threads that share a service ---


class Service:
    """The coordination service's key-value store."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.lock = threading.Lock()

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        with self.lock:
            if key in self.values and not allow_overwrite:
                raise RuntimeError("ALREADY_EXISTS")
            self.values[key] = value

    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
        with self.lock:
            return [(k, v) for k, v in self.values.items() if k.startswith(key)]


class FrozenService(Service):
    """One that stops to answer, as in a first process that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = threading.Event()
        self.answers.set()

    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
        self.answers.wait()
        return super().key_value_dir_get(key)


class Partner:
    """A process, as a watch and its hold."""

    def __init__(self, service: Service, index: int, count: int, done: int | None) -> None:
        config = WatchConfig(dead_seconds=0.5)
        self.watch = Watch(config, client=service, index=index, count=count)
        if done is not None:
            self.watch._hold = Hold(self.watch, done=done, save_seconds=0)
        thread = threading.Thread(target=self.watch.start)  # not the main thread: SIGTERM is ours
        thread.start()
        thread.join()

    @property
    def hold(self) -> Hold:
        assert self.watch._hold is not None
        return self.watch._hold


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Exit codes of processes that the watch ended; the thread then ends as the process would."""
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise SystemExit

    monkeypatch.setattr(watching_module.os, "_exit", leave)
    return codes


def pod(*done: int | None) -> list[Partner]:
    service = Service()
    return [Partner(service, i, len(done), d) for i, d in enumerate(done)]


def close(partners: list[Partner]) -> None:
    for partner in partners:
        partner.watch.close()


def train(partner: Partner, steps: int) -> tuple[int, str]:
    """Go on until something is due or the end; (step, what)."""
    done = partner.hold.dispatched
    while True:
        due = partner.hold.due(done)
        if due or done == steps:
            return done, due
        if partner.hold.go(done + 1):
            done += 1
            time.sleep(0.005)


@pytest.mark.parametrize("who", [0, 2])
def test_all_stop_at_the_furthest_step(who: int, ended: list[int]) -> None:
    partners, found = pod(3, 5, 4), {}
    threads = [
        threading.Thread(target=lambda p=p, i=i: found.update({i: train(p, 10**6)}))
        for i, p in enumerate(partners)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    partners[who].watch._note("stopped by SIGTERM")
    for thread in threads:
        thread.join(20)
    steps = {step for step, _ in found.values()}
    assert len(found) == 3 and len(steps) == 1 and {what for _, what in found.values()} == {"stop"}
    assert ended == []
    close(partners)


@ENDS_A_THREAD
def test_a_save_is_dropped_where_one_does_not_train_and_a_stop_ends_it(ended: list[int]) -> None:
    partners = pod(3, None)
    with partners[0].watch._lock:
        partners[0].watch._ask("save")
    until(lambda: partners[0].watch._round.number == 1)
    assert partners[0].hold.due(3) == ""
    partners[0].watch._note("stopped by SIGTERM")
    until(lambda: len(ended) == 2)  # the one that does not train, and so the other
    assert ended == [75, 75]
    close(partners)


@ENDS_A_THREAD
def test_partners_of_one_that_leaves_end_with_its_code(
    ended: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    partners = pod(3, None, 3)
    partners[1].watch.leave(2, "config.data.path is missing")
    until(lambda: len(ended) == 2)
    said = capfd.readouterr().err
    assert ended == [2, 2] and said.count("process 1 of 3 ended: config.data.path is missing") == 2
    close(partners)


@ENDS_A_THREAD
def test_a_partner_that_dies_is_named(ended: list[int], capfd: pytest.CaptureFixture[str]) -> None:
    partners = pod(3, 3, 3)
    until(lambda: len(partners[0].watch._heard) == 3)
    partners[1].watch.close()
    until(lambda: len(ended) == 2)
    said = capfd.readouterr().err
    assert ended == [75, 75] and said.count("process 1 of 3 has been silent for") == 2
    close([partners[0], partners[2]])


@ENDS_A_THREAD
@pytest.mark.parametrize("leaving", [False, True])
def test_a_coordinator_that_no_longer_answers_is_named(
    leaving: bool, ended: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    service = FrozenService()
    partner = Partner(service, 1, 2, 3)
    until(lambda: partner.watch._beat > 3)
    time.sleep(0.7)  # longer than `dead_seconds`, which is for silence only
    assert ended == []
    service.answers.clear()
    if leaving:
        partner.watch.leave(2, "config.data.path is missing")
    until(lambda: ended)
    said = capfd.readouterr().err
    assert ended == [2 if leaving else 75] and "process 1: the coordinator has been silent" in said
    service.answers.set()
    partner.watch.close()
