"""SIGTERM, heard in every phase; partners that die; steps that never end.

A thread watches, because the main thread may be inside a compiler or a collective. Outside of
training everything finished is on disk, so SIGTERM ends the process at once. Inside (`Hold`) the
processes first agree on a step that all of them reach, save there and then stop. The same
agreement serves checkpoints by time.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import faulthandler
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from tga_jax.errors import EXIT_PREEMPTED, EXIT_USER_ERROR, RETRY, Preempted

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 10.0  # for the main thread to stop by itself
AGREE_SECONDS = 45.0  # for all processes to name the step they are at
LINGER_SECONDS = 3.0  # the first process hosts the service that tells the others why it leaves


@dataclasses.dataclass(frozen=True)
class WatchConfig:
    """dead_seconds: a partner that has been silent so long is gone.
    stall_seconds: stacks are shown when nothing ended for so long; 0: never."""

    dead_seconds: float = 40.0
    stall_seconds: float = 900.0


class Watch:
    """The watching thread of a process. Made in the main thread; `close` gives SIGTERM back."""

    def __init__(
        self, config: WatchConfig, *, client: Any = None, index: int = 0, count: int = 1
    ) -> None:
        """`client`: of the coordination service, where `count` processes have one."""
        self._config, self._client, self._index, self._count = config, client, index, count
        self._lock = threading.Condition()  # of a re-entrant lock: the signal handler takes it too
        self._reason = ""  # why this process is to stop
        self._stop_by: float | None = None
        self._round = _Round()
        self._hold: Hold | None = None
        self._raised = self._leaving = False
        self._code = EXIT_PREEMPTED  # with which this process ends
        self._heard: dict[str, tuple[str, float]] = {}
        self._beat = 0
        self.alive()
        self._wake, wake = socket.socketpair()
        self._wake.setblocking(False)
        wake.setblocking(False)
        self._woken = wake
        self._before: Any = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    # --- in the main thread ---

    def start(self) -> Watch:
        """Take SIGTERM and begin to watch."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._on_signal)
            self._old_wake = signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        self._thread.start()
        if self._client is not None:
            threading.Thread(target=self._guard, name="guard", daemon=True).start()
        return self

    def close(self) -> None:
        """Give SIGTERM back and end the thread."""
        self._closed = True
        if self._before is not None:
            signal.set_wakeup_fd(self._old_wake)
            signal.signal(signal.SIGTERM, self._before)
        self._woken.send(b"\0")
        self._thread.join()
        self._wake.close()
        self._woken.close()

    def alive(self) -> None:
        """Something ended: a step, a batch."""
        self._alive_at, self._stall_shown = time.monotonic(), 0

    def leave(self, code: int, reason: str) -> None:
        """Tell the partners that this process ends, and why, before it does."""
        self._leaving, self._code = True, code
        if self._client is None:
            return
        with contextlib.suppress(Exception):  # no coordinator: the partners know
            self._client.key_value_set(f"tga/gone/{self._index}", json.dumps([code, reason]))
            if self._index == 0:
                time.sleep(LINGER_SECONDS)

    def released(self) -> None:
        """The hold is over: from now on SIGTERM ends the process."""
        with self._lock:
            self._hold = None
            if self._reason:
                self._stop_by = time.monotonic() + PATIENCE_SECONDS

    def check(self) -> None:
        """Raise what came while it could not be raised.

        Raises:
            Preempted: SIGTERM came.
        """
        if self._reason:
            raise Preempted(self._reason)

    def _on_signal(self, *_: object) -> None:
        self._note("stopped by SIGTERM")
        if self._hold is None and not (self._raised or self._leaving):
            self._raised = True  # once is enough
            raise Preempted(self._reason)

    def _note(self, reason: str) -> None:
        with self._lock:
            if self._reason:
                return
            self._reason = reason
            self._stop_by = time.monotonic() + PATIENCE_SECONDS
            if self._hold is not None:
                self._ask("stop")

    # --- agreements; the lock is held ---

    def _ask(self, what: str) -> None:
        """Begin a round, or join the one that another process began."""
        if self._client is None:
            if not self._round.open and self._hold is not None:
                self._round.begin(what, self._hold.dispatched)
                self._round.settle([self._hold.dispatched])
            elif what == "stop":
                self._round.what = what
            self._lock.notify_all()
        else:
            self._round.wanted = what if self._round.wanted != "stop" else "stop"

    # --- in the watching thread ---

    def _run(self) -> None:
        while not self._closed:
            quick = self._round.open and self._round.target is None
            ready, _, _ = select.select([self._wake], [], [], 0.05 if quick else POLL_SECONDS)
            if ready:
                data = self._wake.recv(64)
                if signal.SIGTERM in data:
                    self._note("stopped by SIGTERM")
            if self._closed or self._leaving:
                continue
            self._check_time()
            if self._client is not None:
                try:
                    self._talk()
                except Exception as error:  # whatever the service raises
                    if not (self._closed or self._leaving):
                        self._end(EXIT_PREEMPTED, f"no coordinator: {str(error).splitlines()[0]}")

    def _guard(self) -> None:
        """In a thread of its own: end this process where the service does not answer.

        The watching thread is then inside a call that gives up after 98 s, with an abort. Waits
        are counted, not time: a process that was itself frozen is not ended for it.
        """
        seen, waits = -1, 0
        while not self._closed:
            time.sleep(POLL_SECONDS)
            seen, waits = self._beat, waits + 1 if self._beat == seen else 0
            if waits * POLL_SECONDS > self._config.dead_seconds:
                break
        if not self._closed:
            self._say(f"the coordinator has been silent for {waits * POLL_SECONDS:.0f} s", RETRY)
            os._exit(self._code)

    def _check_time(self) -> None:
        now = time.monotonic()
        late = self._stop_by is not None and now > self._stop_by
        if late and self._hold is None and not self._leaving:
            self._end(EXIT_PREEMPTED, self._reason)
        if self._hold is not None and self._hold.wants_save(now):
            with self._lock:
                self._hold.saved_at = now
                self._ask("save")
        stall = self._config.stall_seconds
        if stall and now - self._alive_at > stall * (self._stall_shown + 1):
            self._stall_shown += 1
            minutes = (now - self._alive_at) / 60
            print(f"nothing has ended for {minutes:.1f} minutes; all stacks:", file=sys.stderr)
            faulthandler.dump_traceback(file=2, all_threads=True)

    def _talk(self) -> None:
        """A turn: show that this process lives, look at the others, take part in the round."""
        self._beat += 1
        self._client.key_value_set(f"tga/beat/{self._index}", str(self._beat), allow_overwrite=True)
        for key, text in self._client.key_value_dir_get("tga/gone/"):
            other = int(key.rsplit("/", 1)[1])
            if other != self._index and not self._is_stopping():
                code, reason = json.loads(text)
                self._end(code, f"process {other} of {self._count} ended: {reason}")
        self._find_dead()
        self._take_part()

    def _find_dead(self) -> None:
        now = time.monotonic()
        for key, text in self._client.key_value_dir_get("tga/beat/"):
            if self._heard.get(key, ("", 0.0))[0] != text:
                self._heard[key] = text, now
        for key, (_, when) in self._heard.items():
            if now - when > self._config.dead_seconds:
                other = key.rsplit("/", 1)[1]
                self._end(
                    EXIT_PREEMPTED,
                    f"process {other} of {self._count} has been silent for {now - when:.0f} s",
                )

    def _take_part(self) -> None:
        number = self._round.number
        with self._lock:
            if self._round.wanted and not self._round.open:
                with contextlib.suppress(Exception):  # another process was first
                    self._client.key_value_set(f"tga/ask/{number}", self._round.wanted)
        asked = dict(self._client.key_value_dir_get("tga/ask/"))
        what = asked.get(f"tga/ask/{number}")
        if what is None:
            return
        with self._lock:
            if not self._round.open:
                if what == "stop" and self._hold is None:
                    self._end(EXIT_PREEMPTED, "stopped with the others")
                at = -1 if self._hold is None else self._hold.dispatched
                self._round.begin(what, at)
                self._round.by = time.monotonic() + AGREE_SECONDS
                self._client.key_value_set(f"tga/at/{number}/{self._index}", str(at))
        if self._round.target is None:
            found = self._client.key_value_dir_get(f"tga/at/{number}/")
            if len(found) == self._count:
                with self._lock:
                    self._round.settle([int(text) for _, text in found])
                    self._lock.notify_all()
            elif time.monotonic() > self._round.by:
                self._end(EXIT_PREEMPTED, "the processes could not agree on a step to stop at")

    def _is_stopping(self) -> bool:
        """Whether all agreed to stop: a partner that is done earlier is no reason to hurry."""
        return self._round.what == "stop" and self._round.target is not None

    def _end(self, code: int, reason: str) -> None:
        """End the process from here; files are written whole or line by line."""
        self._say(reason, "" if code == EXIT_USER_ERROR else RETRY)
        self.leave(code, reason)
        sys.stdout.flush()
        os._exit(code)

    def _say(self, reason: str, then: str) -> None:
        who = f"process {self._index}: " if self._count > 1 else ""
        print(f"{who}{reason}{then}", file=sys.stderr, flush=True)


@dataclasses.dataclass
class _Round:
    """One agreement on a step: each process names the last step it dispatched; the most counts."""

    number: int = 0
    wanted: str = ""  # by this process
    open: bool = False
    what: str = ""
    target: int | None = None
    by: float = 0.0

    def begin(self, what: str, at: int) -> None:
        self.open, self.what, self.target = True, what, None

    def settle(self, steps: list[int]) -> None:
        """A save in which a process would not take part is dropped."""
        self.target = max(steps)
        if self.what == "save" and min(steps) < 0:
            self.close()

    def close(self) -> None:
        wanted = "" if self.wanted == self.what else self.wanted
        self.number, self.wanted = self.number + 1, wanted
        self.open, self.target, self.what = False, None, ""


class Hold:
    """Training: the watch does not end the process, the loop asks what to do.

    `dispatched` is the last step given to the devices.
    """

    def __init__(self, watch: Watch, *, done: int, save_seconds: float) -> None:
        self._watch, self.dispatched, self._save_seconds = watch, done, save_seconds
        self.saved_at = time.monotonic()

    def due(self, done: int) -> str:
        """What to do after step `done`: "", "save" or "stop"; waits for an agreement under way."""
        lock, round_ = self._watch._lock, self._watch._round
        with lock:
            while self._undecided():
                lock.wait(POLL_SECONDS)
            if not round_.open or round_.target is None or done < round_.target:
                return ""
            what = round_.what
            if what == "save":
                round_.close()
            return what

    def go(self, step: int) -> bool:
        """Whether to dispatch `step` now; otherwise ask `due` again."""
        round_ = self._watch._round
        with self._watch._lock:
            if round_.open and (round_.target is None or step > round_.target):
                return False
            self.dispatched = step
        return True

    def asked(self) -> bool:
        """Whether long work before the next step should be left: `due` has something to say."""
        target = self._watch._round.target  # the watching thread may change it
        return self._undecided() or (target is not None and self.dispatched >= target)

    def _undecided(self) -> bool:
        """Whether an agreement is under way."""
        round_ = self._watch._round
        return round_.target is None if round_.open else self.stopped()

    def stopped(self) -> bool:
        """Whether SIGTERM came."""
        return bool(self._watch._reason)

    def saved(self) -> None:
        """A checkpoint was begun."""
        self.saved_at = time.monotonic()

    def alive(self) -> None:
        """A step ended."""
        self._watch.alive()

    def wants_save(self, now: float) -> bool:
        """Whether it is time for a checkpoint; the first process says so for all."""
        first = self._watch._index == 0
        return bool(first and self._save_seconds and now - self.saved_at > self._save_seconds)


_current: Watch | None = None


@contextlib.contextmanager
def watching(config: WatchConfig, **partners: Any) -> Iterator[Watch]:
    """A watch for everything inside, `hold` and `alive` included."""
    global _current
    before, _current = _current, Watch(config, **partners).start()
    try:
        yield _current
    finally:
        _current.close()
        _current = before


@contextlib.contextmanager
def hold(*, done: int = 0, save_seconds: float = 0.0) -> Iterator[Hold]:
    """SIGTERM inside only asks; one that came is raised at the end.

    Args:
        done: the last step done.
        save_seconds: an agreed "save" comes so long after the last checkpoint; 0: never.

    Raises:
        Preempted: SIGTERM came.
    """
    if _current is None:
        with watching(WatchConfig()), hold(done=done, save_seconds=save_seconds) as inner:
            yield inner
        return
    watch = _current
    watch.check()
    watch._hold = Hold(watch, done=done, save_seconds=save_seconds)
    try:
        yield watch._hold
    finally:
        watch.released()
    watch.check()


def alive() -> None:
    """Something ended, in whatever phase."""
    if _current is not None:
        _current.alive()


def translate_abort(address: str, index: int) -> None:
    """Make JAX's abort, where it is about a coordinator that is gone, one line and a retry.

    JAX ends a process at once, with a C++ stack, when the first process closes its sockets; no
    Python code is asked. Other aborts stay what they are.

    Args:
        address: the coordinator's host:port.
        index: this process.
    """
    host, _, port = address.rpartition(":")

    def on_abort(_: int) -> None:
        try:
            socket.create_connection((host.strip("[]"), int(port)), 2).close()
        except OSError:
            text = f"\nprocess {index}: process 0, the coordinator at {address}, is gone"
            os.write(2, f"{text}{RETRY}\n".encode())
            os._exit(EXIT_PREEMPTED)

    translate_abort.handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort)  # type: ignore[attr-defined]
    ctypes.CDLL(None).signal(signal.SIGABRT, translate_abort.handler)  # type: ignore[attr-defined]
