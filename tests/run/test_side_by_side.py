"""Commands side by side: their lines, failures, and a SIGTERM that is passed on."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tga_jax.errors import Preempted, UserError
from tga_jax.run import side_by_side
from tga_jax.run.side_by_side import core_shares, run_side_by_side


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_all_run_and_their_lines_carry_their_names(tmp_path: Path, capfd) -> None:
    code = "import sys; print('hello', file=sys.stderr); open({!r}, 'w')"
    run_side_by_side(
        ["a", "b", "c"], 2, lambda name: python(code.format(str(tmp_path / name)))
    )  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]
    assert sorted(capfd.readouterr().err.splitlines()) == ["a: hello", "b: hello", "c: hello"]


def test_two_run_at_once_and_a_third_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a and b ends only when the other has started; c needs that both have ended."""
    wait = (
        "import pathlib, time\n"
        "here = pathlib.Path({here!r}); (here / '{name}').touch()\n"
        "end = time.time() + 20\n"
        "while not (here / '{other}').exists() and time.time() < end: time.sleep(.02)\n"
        "assert (here / '{other}').exists()"
    )
    monkeypatch.setattr(side_by_side, "core_count", lambda: 2)  # on a machine of one core, too
    monkeypatch.setattr(side_by_side, "core_shares", lambda processes: [set()] * processes)
    others = {"a": "b", "b": "a", "c": "a"}
    run_side_by_side(
        ["a", "b", "c"],
        2,
        lambda name: python(wait.format(here=str(tmp_path), name=name, other=others[name])),
    )


def slow(mark: Path) -> str:
    """Leaves a mark if it is let run to its end."""
    return f"import time; time.sleep(60); open({str(mark)!r}, 'w')"


def test_a_failure_is_named_and_ends_the_others(tmp_path: Path) -> None:
    codes = {"bad": "import sys; sys.exit(2)", "long": slow(tmp_path / "mark")}
    with pytest.raises(UserError, match="arm bad ended with exit code 2"):
        run_side_by_side(list(codes), 2, lambda name: python(codes[name]))
    assert not (tmp_path / "mark").exists()


def test_sigterm_is_passed_on(tmp_path: Path) -> None:
    threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(Preempted):
        run_side_by_side(["a"], 1, lambda name: python(slow(tmp_path / "mark")))
    assert not (tmp_path / "mark").exists()


def test_cores_are_shared_out() -> None:
    mine = os.sched_getaffinity(0)
    shares = core_shares(min(2, len(mine)))
    assert set().union(*shares) == mine and all(shares)
    assert sum(map(len, shares)) == len(mine)


def test_no_more_processes_than_cores_and_all_cores_for_one_that_is_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small models on a shared core take longer together than one after the other."""
    monkeypatch.setattr(side_by_side, "_cores", lambda: [0, 1])
    given: dict[str, set[int]] = {}
    begin = side_by_side.start

    def start(command: Sequence[str], cores: set[int]) -> Any:
        given[command[-1].removeprefix("# ")] = cores
        return begin(command, set())

    monkeypatch.setattr(side_by_side, "start", start)
    run_side_by_side(["a", "b", "c"], 3, lambda name: python(f"# {name}"))
    assert given == {"a": {0}, "b": {1}, "c": {0, 1}}
    given.clear()
    run_side_by_side(["a", "b", "c", "d"], 2, lambda name: python(f"# {name}"))
    assert [*map(len, given.values())] == [1] * 4
