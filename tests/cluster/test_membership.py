"""Who has come, who is gone and who says why, over real connections of one machine."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from launch.rehearse import free_port
from tga_jax.cluster import membership
from tga_jax.cluster.membership import Membership
from tga_jax.errors import Preempted

SECONDS = 20.0  # the most that anything here takes


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "TURN_SECONDS", 0.02)
    monkeypatch.setattr(membership, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(membership, "LINGER_SECONDS", 0.5)


Ended = queue.Queue  # of (exit code, why)


@contextlib.contextmanager
def member(port: int, index: int, count: int, dead: float = 60) -> Iterator[tuple[Membership, Any]]:
    """A process's membership, and what it hears of ends."""
    one = Membership(f"localhost:{port}", index, count, dead_seconds=dead)
    ended: Ended = Ended()
    one.start(lambda code, why: ended.put((code, why)))
    try:
        yield one, ended
    finally:
        one.close()


class Raw:
    """The other side of a connection, message by message."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(SECONDS)
        self.socket, self._lines = connection, connection.makefile()

    @staticmethod
    def connect(port: int, *hello: int) -> Raw:
        """A process that comes to process 0."""
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                raw = Raw(socket.create_connection(("localhost", port)))
                raw.send({"hello": hello})
                return raw

    def send(self, message: dict[str, Any]) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def hear(self, name: str) -> Any:
        """The next message of this name."""
        for line in self._lines:
            if name in (message := json.loads(line)):
                return message[name]
        raise AssertionError(f"it closed without {name}")

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


def test_all_come_in_any_order_and_leave_without_a_word() -> None:
    port = free_port()
    with contextlib.ExitStack() as stack:
        three = [stack.enter_context(member(port, i, 3)) for i in (2, 0, 1)]
        for one, _ in three:
            one.wait_for_all(SECONDS)
        # The port is free for JAX's service.
        socket.create_server(("localhost", port)).close()
    assert all(ended.empty() for _, ended in three)


def test_what_is_missing_is_said_again_and_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(membership, "SAY_SECONDS", 0.2)
    port = free_port()
    with member(port, 0, 4) as (first, _), member(port, 2, 4) as (other, _):
        with pytest.raises(Preempted, match="process 1, 3 of 4 has not come: start the same"):
            first.wait_for_all(1.0)
        assert capfd.readouterr().err.count("waiting for process 1, 3 of 4") >= 2
        with pytest.raises(Preempted, match="process 1, 3 of 4 has not come"):
            other.wait_for_all(0.5)
        assert capfd.readouterr().err == ""  # process 0 says it


def test_a_missing_first_process_is_said_by_the_others(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(membership, "SAY_SECONDS", 0.2)
    with member(free_port(), 1, 2) as (one, _):
        with pytest.raises(Preempted, match="nothing listens there"):
            one.wait_for_all(0.5)
    assert "waiting for process 0 of 2" in capfd.readouterr().err


@pytest.mark.parametrize("all_here", [False, True], ids=["waiting", "running"])
def test_a_connection_that_closes_is_a_death(all_here: bool) -> None:
    port = free_port()
    with member(port, 0, 2 if all_here else 3) as (first, ended):
        dies = Raw.connect(port, 1, first.count)
        dies.hear("missing")
        dies.close()
        text = f"process 1 of {first.count} is gone: its connection closed"
        assert ended.get(timeout=SECONDS) == (75, text)


@pytest.mark.parametrize("all_here", [False, True], ids=["waiting", "running"])
def test_a_silent_process_is_dead_and_one_that_beats_is_not(all_here: bool) -> None:
    port = free_port()
    with member(port, 0, 3 if all_here else 4, dead=0.8) as (first, ended):
        with member(port, 1, first.count, dead=0.8) as (_, not_heard):
            silent = Raw.connect(port, 2, first.count)
            code, why = ended.get(timeout=SECONDS)
            assert code == 75 and why.startswith(f"process 2 of {first.count} has been silent for")
            assert ended.empty() and not_heard.empty()
            silent.close()


@pytest.mark.parametrize("closes", [True, False], ids=["killed", "frozen"])
@pytest.mark.parametrize("missing", [[], [2]], ids=["running", "waiting"])
def test_the_death_of_the_first_process(closes: bool, missing: list[int]) -> None:
    with socket.create_server(("localhost", 0)) as server:
        with member(server.getsockname()[1], 1, 3, dead=60 if closes else 0.5) as (_, ended):
            first = Raw(server.accept()[0])
            assert first.hear("hello") == [1, 3]
            first.send({"missing": missing})
            if closes:
                first.close()
            code, why = ended.get(timeout=SECONDS)
            how = "is gone" if closes else "has been silent"
            assert code == 75 and why.startswith(f"process 0 of 3 {how}")
            first.close()


def test_what_answers_and_is_no_partner_counts_as_nothing() -> None:
    """The service of a run before, which still ends, may have the port."""
    with socket.create_server(("localhost", 0)) as server:
        with member(server.getsockname()[1], 1, 2) as (one, ended):
            for answer in (b"", b"HTTP/1.1 400 Bad Request\n", b"\x00\x00\x06\n"):
                stranger = server.accept()[0]
                stranger.sendall(answer)
                stranger.close()
            first = Raw(server.accept()[0])
            first.send({"missing": []})
            one.wait_for_all(SECONDS)
            assert ended.empty()
            first.send({"bye": True})
            first.close()


def test_one_that_ends_says_why_to_the_first_and_that_to_the_others() -> None:
    port = free_port()
    with member(port, 0, 3) as (first, ended), member(port, 1, 3) as (one, _):
        other = Raw.connect(port, 2, 3)
        first.wait_for_all(SECONDS)
        one.wait_for_all(SECONDS)
        one.tell(2, "process 1 of 3 ended: config.data.path is missing")
        assert ended.get(timeout=SECONDS) == (
            2,
            "process 1 of 3 ended: config.data.path is missing",
        )
        told = threading.Thread(target=first.tell, args=(2, "process 1 of 3 ended: it"))
        told.start()
        assert other.hear("end") == [2, "process 1 of 3 ended: it"]
        other.close()
        told.join(SECONDS)
        assert not told.is_alive()


@pytest.mark.parametrize(
    ("hello", "code", "said"),
    [
        ((1, 4), 2, "process 1 of 4 has come to process 0 of 3: use one --processes"),
        ((2, 3), 75, "process 2 of 3 has come twice"),
        ((0, 3), 75, "process 0 of 3 has come twice"),
    ],
)
def test_one_that_does_not_belong_is_sent_away(
    hello: tuple[int, int], code: int, said: str
) -> None:
    port = free_port()
    with member(port, 0, 3) as (_, ended):
        belongs = Raw.connect(port, 2, 3)
        assert belongs.hear("missing") == [1]
        stranger = Raw.connect(port, *hello)
        assert (found := stranger.hear("end"))[0] == code and said in found[1]
        stranger.close()
        belongs.send({})
        assert belongs.hear("missing") == [1] and ended.empty()
        belongs.send({"bye": True})
        belongs.close()


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("", 0)) as server:
        with member(server.getsockname()[1], 0, 2) as (first, _):
            with pytest.raises(Preempted, match="its port cannot be opened here: .*in use"):
                first.wait_for_all(0.3)
