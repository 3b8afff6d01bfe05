"""Which processes of a run have come, whether they live, and why they end.

Every process keeps a connection to process 0, from its first moment to its last, over which each
side says every second that it lives. So a death is noticed in every phase, also while JAX connects
and while the devices are started. Process 0 listens at the coordinator's address until all have
come; JAX's own service, which tells nothing before that, then takes the port over.

A connection carries one JSON object a line: {"hello": [process, processes]} first, then
{"missing": [...]} from process 0 and {} from the others every second, at last {"bye": true}, or
{"end": [exit code, why]} from a process that ends before the others do.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from tga_jax.errors import EXIT_PREEMPTED, EXIT_USER_ERROR, Preempted

TURN_SECONDS = 0.2
BEAT_SECONDS = 1.0
SAY_SECONDS = 10.0  # how often is said which processes are missing
LINGER_SECONDS = 3.0  # JAX's service ends with process 0: the others first hear why


class Peer:
    """A connection to another process."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        self.socket, self._rest = connection, b""
        self.heard = time.monotonic()
        self.process: int | None = None  # None: it has not said so yet
        self.done = False  # it said that it ends

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; one that is gone is noticed when it is read."""
        with contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """The messages that came, and whether the connection is still open."""
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            messages = [dict(json.loads(line)) for line in lines]
        except (ValueError, TypeError):  # something else than a process of this program
            return [], False
        self.heard = time.monotonic()
        return messages, data != b""

    def wait_for_end(self, until: float) -> None:
        """Wait until the other side has closed, at most until this time of the monotonic clock."""
        with contextlib.suppress(OSError):  # it has not
            while (left := until - time.monotonic()) > 0:
                self.socket.settimeout(left)
                if not self.socket.recv(65536):
                    return


class Membership:
    """The connections of this process and the thread that looks after them."""

    def __init__(self, address: str, index: int, count: int, *, dead_seconds: float) -> None:
        """`address`: HOST:PORT of process 0. `dead_seconds`: one that is silent so long is gone."""
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self.address, self.index, self.count = address, index, count
        self._dead_seconds = dead_seconds
        self._missing = list(range(1, count)) if index == 0 else [0]
        self._all_here = threading.Event()
        self._peers: list[Peer] = []
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._problem, self._closed, self._beat_at = "", False, 0.0
        self._thread = threading.Thread(target=self._run, name="membership", daemon=True)

    # --- the process's other threads ---

    def start(self, ended: Callable[[int, str], None]) -> None:
        """Listen or connect; `ended` is called with an exit code and why, when a process ends."""
        self._ended = ended
        self._thread.start()

    def wait_for_all(self, seconds: float) -> None:
        """Wait until every process is here, and say which are missing.

        Raises:
            Preempted: not all came within `seconds`.
        """
        began = time.monotonic()
        while not self._all_here.wait(min(SAY_SECONDS, max(0, began + seconds - time.monotonic()))):
            waited = time.monotonic() - began
            if waited >= seconds:
                text = f"not connected through {self.address} after {seconds:.0f} s"
                raise Preempted(f"{text}; {self._hint()}")
            if self.index == 0 or 0 in self._missing:  # otherwise process 0 says it
                text = f"waiting for {self._named_missing()} of {self.count}, {waited:.0f} s so far"
                print(text, file=sys.stderr, flush=True)

    def tell(self, code: int, text: str) -> None:
        """Say that this process ends, and why, before it does."""
        peers = [peer for peer in self._peers if peer.process is not None]
        for peer in peers:
            peer.send({"end": [code, text]})
        if self.index == 0:
            until = time.monotonic() + LINGER_SECONDS
            for peer in peers:
                peer.wait_for_end(until)

    def close(self) -> None:
        """Say that this process has ended well."""
        self._closed = True
        self._thread.join()
        for peer in self._peers:
            peer.send({"bye": True})
            peer.socket.close()
        if self._listener is not None:
            self._listener.close()
        self._selector.close()

    def _named_missing(self) -> str:
        shown = ", ".join(map(str, self._missing[:10]))
        more = len(self._missing) - 10
        return f"process {shown}" + (f" and {more} more" if more > 0 else "")

    def _hint(self) -> str:
        if self.index == 0 and self._listener is None:
            return f"its port cannot be opened here: {self._problem}"
        if 0 in self._missing:
            return (
                f"nothing listens there ({self._problem}): is process 0 running, is the address "
                "right and its port open between the hosts?"
            )
        missing = f"{self._named_missing()} of {self.count}"
        return f"{missing} has not come: start the same command on every host"

    # --- the thread ---

    def _run(self) -> None:
        while not self._closed:
            if not self._all_here.is_set():
                self._open()
            for key, _ in self._selector.select(TURN_SECONDS):
                if key.data is None:
                    self._accept()
                else:
                    self._read(key.data)
            self._beat()
            self._find_silent()

    def _open(self) -> None:
        """Listen, or connect to the one that listens; again in the next turn where that fails."""
        try:
            if self.index == 0 and self._listener is None:
                self._listener = _listen(self._port, self.count)
                self._selector.register(self._listener, selectors.EVENT_READ, None)
                self._announce_if_all_are_here()
            elif self.index != 0 and not self._peers:
                connection = socket.create_connection((self._host, self._port), 2)
                if connection.getsockname() == connection.getpeername():  # TCP can meet itself
                    connection.close()
                    raise ConnectionRefusedError("Connection refused")
                self._add(connection).send({"hello": [self.index, self.count]})
        except OSError as error:
            self._problem = str(error)

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):
            self._add(self._listener.accept()[0])

    def _add(self, connection: socket.socket) -> Peer:
        peer = Peer(connection)
        self._peers.append(peer)
        self._selector.register(connection, selectors.EVENT_READ, peer)
        return peer

    def _remove(self, peer: Peer) -> None:
        self._peers.remove(peer)
        self._selector.unregister(peer.socket)
        peer.socket.close()

    def _read(self, peer: Peer) -> None:
        messages, is_open = peer.read()
        for message in messages:
            self._handle(peer, message)
        if not is_open:
            self._lose(peer, "is gone: its connection closed")

    def _handle(self, peer: Peer, message: dict[str, Any]) -> None:
        if "hello" in message:
            self._welcome(peer, *message["hello"])
        if "missing" in message:
            peer.process, self._missing = 0, message["missing"]
            if not self._missing:
                self._all_here.set()
        peer.done = peer.done or "bye" in message or "end" in message
        if "end" in message:
            self._ended(*message["end"])

    def _welcome(self, peer: Peer, process: int, count: int) -> None:
        """Process 0 hears which process has connected."""
        who = f"process {process} of {count}"
        if count != self.count:
            text = f"{who} has come to process 0 of {self.count}: use one --processes everywhere"
            peer.send({"end": [EXIT_USER_ERROR, text]})
        elif process not in self._missing:
            text = f"{who} has come twice: give each host a --process of its own"
            peer.send({"end": [EXIT_PREEMPTED, text]})
        else:
            peer.process = process
            self._missing.remove(process)
            self._announce_if_all_are_here()

    def _announce_if_all_are_here(self) -> None:
        """Where all have come the port is left to JAX's service, and everyone is told."""
        if self._missing:
            return
        assert self._listener is not None
        self._selector.unregister(self._listener)
        self._listener.close()
        self._beat_at = 0.0
        self._beat()
        self._all_here.set()

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._beat_at < BEAT_SECONDS:
            return
        self._beat_at = now
        for peer in self._peers:
            if self.index != 0:
                peer.send({})
            elif peer.process is not None:
                peer.send({"missing": self._missing})

    def _find_silent(self) -> None:
        """After what has come was read: a process that was itself frozen blames nobody."""
        now = time.monotonic()
        for peer in list(self._peers):
            if now - peer.heard > self._dead_seconds:
                self._lose(peer, f"has been silent for {now - peer.heard:.0f} s")

    def _lose(self, peer: Peer, how: str) -> None:
        self._remove(peer)
        if peer.process is not None and not (peer.done or self._closed):
            self._ended(EXIT_PREEMPTED, f"process {peer.process} of {self.count} {how}")


def _listen(port: int, count: int) -> socket.socket:
    """A socket of all this host's addresses, as JAX's service has it."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(
        ("", port), family=family, backlog=max(count, 128), dualstack_ipv6=both
    )
