"""An agreement of all processes on one step, at which all of them save, or save and stop.

A process asks. From then on each of them names the last step that it dispatched and dispatches no
other until all have answered; the furthest step named is the agreed one, because every process can
still reach it. Rounds are numbered, so that each is asked for, answered and left in order.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Protocol

SECONDS = 45.0  # for all processes to name the step they are at
WAIT_SECONDS = 0.5


class Store(Protocol):
    """Texts by key, the same for all processes, as JAX's coordination service keeps them."""

    def key_value_set(self, key: str, value: str) -> None:
        """Set a key; an error where it is set."""

    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
        """The keys under a folder, and their values."""


class LocalStore:
    """The store of a process that has no partners."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def key_value_set(self, key: str, value: str) -> None:
        """Give a key its value in this process."""
        self._values[key] = value

    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
        """The keys under a folder, and their values."""
        return [(k, v) for k, v in self._values.items() if k.startswith(key)]


class Agreement:
    """This process's part: the training loop asks what is due, another thread takes the turns.

    The lock is for what these two share. No call to the store is made under it, because such a
    call may last, and no signal handler takes it.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        index: int = 0,
        count: int = 1,
        seconds: float = SECONDS,
    ) -> None:
        """`index`: of this process, of `count`. `seconds`: for all to answer."""
        self._store: Store = store or LocalStore()
        self._index, self._count, self._seconds = index, count, seconds
        self._lock = threading.Condition()
        self._round = 0
        self._what, self._step = "", None  # type: str, int | None
        self._late_at = 0.0
        self._dispatched: int | None = None  # None: this process does not train
        self._wants_save = self._wants_stop = False

    # --- whoever asks ---

    def request(self, what: str) -> None:
        """Ask for a "save" or a "stop", which is never taken back; fit for a signal handler."""
        if what == "stop":
            self._wants_stop = True
        else:
            self._wants_save = True

    # --- the training loop ---

    def begin(self, done: int) -> None:
        """This process trains from now on; `done` is its last step."""
        with self._lock:
            self._dispatched = done

    def end(self) -> None:
        """This process no longer trains."""
        with self._lock:
            self._dispatched = None
            if self._what == "save" and self._step is not None:
                self._close()

    def due(self, done: int) -> str:
        """What to do after step `done`: "", "save" or "stop"; waits for a round under way."""
        with self._lock:
            while self.undecided():
                self._lock.wait(WAIT_SECONDS)
            if self._step is None or done < self._step:
                return ""
            what = self._what
            if what == "save":
                self._close()
            return what

    def dispatch(self, step: int) -> bool:
        """Whether `step` may be dispatched now; otherwise ask `due` again."""
        with self._lock:
            if self.undecided() or (self._step is not None and step > self._step):
                return False
            self._dispatched = step
            return True

    def interrupts(self) -> bool:
        """Whether long work before the next step should be left: `due` has something to say."""
        step, at = self._step, self._dispatched  # the other thread may change them
        return self.undecided() or (step is not None and at is not None and at >= step)

    def undecided(self) -> bool:
        """Whether a round is under way in which not all have answered, or a stop is to come."""
        return self._step is None and (self._what != "" or self._wants_stop)

    # --- the thread that takes the turns ---

    @property
    def stopping(self) -> bool:
        """Whether all agreed on the step to stop at."""
        return self._what == "stop" and self._step is not None

    @property
    def leaves_out(self) -> bool:
        """Whether the others stop at a step, and this process does not train."""
        return self._what == "stop" and self._dispatched is None and self._step is None

    def turn(self) -> None:
        """Take part in the round under way, or begin the one that is wanted.

        Raises:
            TimeoutError: the others did not answer in time.
        """
        with self._lock:
            number, what, step = self._round, self._what, self._step
        folder = f"tga/agreement/{number}"
        if step is None and not what:
            what = self._asked(folder)
            if what:
                self._answer(folder, what)
        if step is None and what and not self.leaves_out:
            self._settle(folder)

    def _asked(self, folder: str) -> str:
        """What is asked for in this round, by whichever process was the first to ask."""
        found = self._store.key_value_dir_get(f"{folder}/asked/")
        wanted = "stop" if self._wants_stop else "save" if self._wants_save else ""
        if wanted and not found:
            with contextlib.suppress(Exception):  # another process was first
                self._store.key_value_set(f"{folder}/asked/what", wanted)
            found = self._store.key_value_dir_get(f"{folder}/asked/")
        return found[0][1] if found else ""

    def _answer(self, folder: str, what: str) -> None:
        """Name the last step dispatched; -1 says that this process saves none."""
        with self._lock:  # from here on no other step is dispatched
            self._what, at = what, self._dispatched
        self._late_at = time.monotonic() + SECONDS
        if not self.leaves_out:
            at = -1 if at is None else at
            self._store.key_value_set(f"{folder}/at/{self._index}", str(at))

    def _settle(self, folder: str) -> None:
        steps = [int(at) for _, at in self._store.key_value_dir_get(f"{folder}/at/")]
        if len(steps) < self._count:
            if time.monotonic() > self._late_at:
                raise TimeoutError("the processes could not agree on a step to stop at")
            return
        with self._lock:
            self._step = max(steps)
            # A save in which a process would not take part is dropped, by all of them.
            if self._what == "save" and (min(steps) < 0 or self._dispatched is None):
                self._close()
            self._lock.notify_all()

    def _close(self) -> None:
        """Leave a round; the lock is held."""
        self._round += 1
        self._what, self._step, self._wants_save = "", None, False
