"""SIGTERM and Ctrl-C, heard in every phase; partners that end; steps that never end.

A thread watches, because the main thread may be inside a compiler or a collective. Outside of
training everything finished is on disk, so a signal ends the process at once. Inside (`Hold`) the
processes first agree on a step that all of them reach (`agreement`), save there and then stop. The
same agreement serves checkpoints by time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

from tga_jax.cluster.agreement import Agreement
from tga_jax.cluster.membership import Membership
from tga_jax.errors import EXIT_PREEMPTED, RETRY, Preempted

POLL_SECONDS = 0.5
QUICK_SECONDS = 0.05  # while the training loop waits for an agreement
PATIENCE_SECONDS = 10.0  # for the main thread to stop by itself
SIGNALS = {signal.SIGTERM: "stopped by SIGTERM", signal.SIGINT: "stopped by Ctrl-C"}
WITH_THE_OTHERS = "stopped with the others"


@dataclasses.dataclass(frozen=True)
class WatchConfig:
    """dead_seconds: a partner that has been silent so long is gone.
    stall_seconds: stacks are shown when nothing ended for so long; 0: never."""

    dead_seconds: float = 40.0
    stall_seconds: float = 900.0


class Watch:
    """The watching thread of a process. Made in the main thread; `close` gives the signals back."""

    def __init__(self, config: WatchConfig, members: Membership | None = None) -> None:
        """`members`: of the run, where this process has partners."""
        self._config, self._members = config, members
        self.agreement = Agreement()  # with itself, until JAX has connected the processes
        self.stop_reason = ""  # why this process is to stop
        self._hold: Hold | None = None
        self._deadline: tuple[float, str] | None = None  # when this process ends, and why
        self._raises = False  # whether a signal is raised in the main thread, or only noted
        self._lost = False  # whether Python dropped what was raised there
        self._finished = self._closed = False
        self._ending = threading.Lock()  # whoever takes it ends the process
        self.alive()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    # --- the main thread ---

    def start(self) -> Watch:
        """Take SIGTERM and Ctrl-C, which are only noted until `heed`, and begin to watch."""
        self._before = {one: signal.signal(one, self._on_signal) for one in SIGNALS}
        self._old_wake = signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        self._old_hook, sys.unraisablehook = sys.unraisablehook, self._on_unraisable
        self._thread.start()
        if self._members is not None:
            self._members.start(self._on_partner_ended)
        return self

    def heed(self) -> None:
        """Raise a signal from now on where the main thread is; also one that came before.

        Raises:
            Preempted: it came before.
        """
        self._raises = True
        self.check()

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """A signal inside is raised at the end, so that nothing is left half done.

        Raises:
            Preempted: it came.
        """
        before, self._raises = self._raises, False
        try:
            yield
        finally:
            self._raises = before
        if before and self._hold is None:
            self.check()

    def close(self) -> None:
        """Give the signals back and end the threads."""
        self._closed = True
        signal.set_wakeup_fd(self._old_wake)
        sys.unraisablehook = self._old_hook
        for one, before in self._before.items():
            signal.signal(one, signal.SIG_IGN if self._finished else before)
        self._woken.send(b"\0")
        self._thread.join()
        if self._members is not None:
            self._members.close()
        self._wake.close()
        self._woken.close()

    def alive(self) -> None:
        """Something ended: a step, a batch."""
        self._alive_at, self._stalls_shown = time.monotonic(), 0

    def finish(self) -> None:
        """All processes have done everything: nothing may make a failure of it any more."""
        self._finished = True
        self._woken.send(b"\0")
        self._thread.join()

    def end(self, code: int, reason: str, *, shown: str = "", told: str = "") -> None:
        """End the process, from any thread, and tell the partners; there is no return.

        Files are written whole or line by line, so that this may happen at any time.

        Args:
            code: the exit code, which the partners take over.
            reason: why, in one line.
            shown: what this process prints; "": the reason.
            told: what the partners print; "": that this process ended, and the reason.
        """
        with self._ending:  # one that comes second waits here for the end
            members, shown = self._members, shown or reason + RETRY * (code == EXIT_PREEMPTED)
            who = "" if members is None else f"process {members.index}: "
            print(f"{who}{shown}", file=sys.stderr, flush=True)
            if members is not None:
                who = f"process {members.index} of {members.count}"
                members.tell(code, told or f"{who} ended: {reason}")
            sys.stdout.flush()
            os._exit(code)

    def hold(self, hold: Hold, done: int) -> None:
        """Training begins: SIGTERM only asks, from now on."""
        self.check()
        self.agreement.begin(done)
        self._hold = hold

    def release(self) -> None:
        """Training is over: from now on SIGTERM ends the process."""
        self._hold = None
        self.agreement.end()

    def check(self) -> None:
        """Raise what came while it could not be raised.

        Raises:
            Preempted: SIGTERM came, here or to a partner.
        """
        if self.agreement.leaves_out and not self.stop_reason:
            self.stop_reason = WITH_THE_OTHERS
        if self.stop_reason:
            self._raises = False
            raise Preempted(self.stop_reason)

    def _on_signal(self, number: int, _: object) -> None:
        """Takes no lock: the main thread, which this interrupts, may have it."""
        if self._finished or self._ending.locked():
            return
        self._note_signal(number)
        if self._hold is None and self._raises:
            self._raises = False  # once is enough
            raise Preempted(self.stop_reason)

    def _on_unraisable(self, dropped: sys.UnraisableHookArgs) -> None:
        """What Python cannot raise, as in a finalizer: a signal is raised once more after it."""
        if isinstance(dropped.exc_value, Preempted):
            self._lost = True
        else:
            self._old_hook(dropped)

    def _note_signal(self, number: int) -> None:
        self.stop_reason = self.stop_reason or SIGNALS[signal.Signals(number)]
        if self._hold is not None:
            self.agreement.request("stop")

    # --- the watching thread ---

    def _run(self) -> None:
        while not (self._closed or self._finished):
            seconds = QUICK_SECONDS if self.agreement.undecided() else POLL_SECONDS
            ready, _, _ = select.select([self._wake], [], [], seconds)
            for number in set(self._wake.recv(64)) & SIGNALS.keys() if ready else ():
                self._note_signal(number)
            self._raise_again()
            self._check_deadline()
            self._check_stall()
            self._agree()

    def _raise_again(self) -> None:
        if self._lost:
            self._lost, self._raises = False, True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def _check_deadline(self) -> None:
        now = time.monotonic()
        if self.stop_reason and self._hold is None and self._deadline is None:
            self._deadline = now + PATIENCE_SECONDS, self.stop_reason
        if self._deadline is not None and now > self._deadline[0]:
            self.end(EXIT_PREEMPTED, self._deadline[1])

    def _check_stall(self) -> None:
        still, stall = time.monotonic() - self._alive_at, self._config.stall_seconds
        if stall and still > stall * (self._stalls_shown + 1):
            self._stalls_shown += 1
            print(f"nothing has ended for {still / 60:.1f} minutes; all stacks:", file=sys.stderr)
            faulthandler.dump_traceback(file=2, all_threads=True)

    def _agree(self) -> None:
        """A turn of the agreement. A call to the coordinator may last: no lock is held."""
        held = self._hold  # the main thread may end it
        first = self._members is None or self._members.index == 0
        if first and held is not None and held.wants_save():
            held.saved()
            self.agreement.request("save")
        try:
            self.agreement.turn()
        except TimeoutError as error:
            self.end(EXIT_PREEMPTED, str(error))
        except Exception as error:  # whatever the service raises
            reason, _, _ = str(error).partition("\n")
            self.end(EXIT_PREEMPTED, f"no coordinator: {reason}")
        if self.agreement.leaves_out and not self.stop_reason:
            self.end(EXIT_PREEMPTED, WITH_THE_OTHERS)

    # --- the thread that hears the partners ---

    def _on_partner_ended(self, code: int, reason: str) -> None:
        if self._finished:
            sys.stdout.flush()
            os._exit(0)
        elif self.agreement.stopping:  # it was done earlier, which is no reason to hurry
            self._deadline = time.monotonic() + self._config.dead_seconds, reason
        else:
            self.end(code, reason, told=reason)


class Hold:
    """Training: the watch does not end the process, the loop asks what to do."""

    def __init__(self, watch: Watch, save_seconds: float) -> None:
        self._watch, self._save_seconds = watch, save_seconds
        self.saved()

    def due(self, done: int) -> str:
        """What to do after step `done`: "", "save" or "stop"; waits for an agreement under way."""
        return self._watch.agreement.due(done)

    def go(self, step: int) -> bool:
        """Whether to dispatch `step` now; otherwise ask `due` again."""
        return self._watch.agreement.dispatch(step)

    def asked(self) -> bool:
        """Whether long work before the next step should be left: `due` has something to say."""
        return self._watch.agreement.interrupts()

    def stopped(self) -> bool:
        """Whether SIGTERM or Ctrl-C came to this process or to a partner."""
        return bool(self._watch.stop_reason)

    @property
    def reason(self) -> str:
        """Why to stop, such as "stopped by Ctrl-C"."""
        return self._watch.stop_reason or WITH_THE_OTHERS

    def ask_to_stop(self) -> None:
        """Have all processes agree on a step to stop at, which `due` then says."""
        self._watch.agreement.request("stop")

    def saved(self) -> None:
        """Tell the watch that a checkpoint was begun: the time to the next one starts now."""
        self._saved_at = time.monotonic()

    def alive(self) -> None:
        """Tell the watch that a step ended, so that nothing has stalled."""
        self._watch.alive()

    def wants_save(self) -> bool:
        """Whether it is time for a checkpoint."""
        return bool(self._save_seconds) and time.monotonic() - self._saved_at > self._save_seconds


_current: Watch | None = None


@contextlib.contextmanager
def watching(config: WatchConfig, members: Membership | None = None) -> Iterator[Watch]:
    """A watch for everything inside, `hold` and `alive` included.

    A process with partners calls `heed` inside, at a place where it tells them why it ends.
    """
    global _current
    before, _current = _current, Watch(config, members).start()
    try:
        if members is None:
            _current.heed()
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
    watch, held = _current, Hold(_current, save_seconds)
    watch.hold(held, done)
    try:
        yield held
    finally:
        watch.release()
    watch.check()


def noting() -> contextlib.AbstractContextManager[None]:
    """A signal inside is raised at the end; see `Watch.noting`."""
    return contextlib.nullcontext() if _current is None else _current.noting()


def alive() -> None:
    """Something ended, in whatever phase."""
    if _current is not None:
        _current.alive()
