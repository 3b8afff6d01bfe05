"""One step for all processes to save or stop at, whoever asks and however far each of them is."""

from __future__ import annotations

import threading

import pytest

from tga_jax.cluster import agreement as agreement_module
from tga_jax.cluster.agreement import Agreement, LocalStore


class SharedStore(LocalStore):
    """As the coordination service: a key is set once."""

    def key_value_set(self, key: str, value: str) -> None:
        if key in dict(self.key_value_dir_get(key)):
            raise RuntimeError("ALREADY_EXISTS")
        super().key_value_set(key, value)


def processes(*done: int | None) -> list[Agreement]:
    """Processes at these steps; None: it does not train."""
    store = SharedStore()
    found = [Agreement(store, index=i, count=len(done)) for i in range(len(done))]
    for one, step in zip(found, done, strict=True):
        if step is not None:
            one.begin(step)
    return found


def turns(agreements: list[Agreement], times: int = 3) -> None:
    """What the threads of the processes do all the time."""
    for _ in range(times):
        for one in agreements:
            one.turn()


def train(one: Agreement, done: int, until: int) -> tuple[int, str]:
    """Dispatch steps until something is due or the last one is done."""
    while not (due := one.due(done)) and done < until and one.dispatch(done + 1):
        done += 1
    return done, due


@pytest.mark.parametrize("who", [0, 1, 2])
def test_all_stop_at_the_furthest_step(who: int) -> None:
    three = processes(3, 5, 4)
    three[who].request("stop")
    turns(three)
    assert all(one.stopping for one in three)
    assert [train(one, done, 99) for one, done in zip(three, (3, 5, 4), strict=True)] == [
        (5, "stop")
    ] * 3


def test_a_process_that_has_answered_dispatches_no_step_until_all_have() -> None:
    ahead, behind = processes(5, 3)
    ahead.request("stop")
    ahead.turn()
    assert ahead.undecided() and not ahead.dispatch(6)
    assert behind.dispatch(4)  # it has not heard of it
    behind.turn()
    ahead.turn()
    assert train(ahead, 5, 99) == (5, "stop") and train(behind, 4, 99) == (5, "stop")


def test_long_work_is_left_for_a_stop_before_its_step_and_not_for_a_later_one() -> None:
    ahead, behind = processes(5, 3)
    assert not ahead.interrupts()
    ahead.request("stop")
    assert ahead.interrupts()
    turns([ahead, behind])
    assert ahead.interrupts() and not behind.interrupts()  # it has two steps to go
    assert behind.dispatch(4) and not behind.interrupts()
    assert behind.dispatch(5) and behind.interrupts()


def test_saves_come_one_after_another_and_each_once() -> None:
    two = processes(1, 2)
    for step in (2, 4):
        two[0].request("save")
        turns(two)
        assert [train(one, done, 99) for one, done in zip(two, (1, step), strict=True)] == [
            (step, "save")
        ] * 2
        assert [one.due(step) for one in two] == ["", ""]
        assert all(one.dispatch(step + 1) for one in two) and two[1].dispatch(step + 2)
        turns(two)
        assert not any(one.undecided() for one in two)


def test_a_stop_that_comes_during_a_save_comes_after_it() -> None:
    two = processes(3, 3)
    two[0].request("save")
    two[0].turn()
    two[1].request("stop")
    turns(two)
    assert [one.due(3) for one in two] == ["save", "save"]
    turns(two)
    assert [one.due(3) for one in two] == ["stop", "stop"]


def test_a_save_is_dropped_where_one_does_not_train() -> None:
    two = processes(3, None)
    two[0].request("save")
    turns(two)
    assert two[0].due(3) == "" and two[0].dispatch(4)
    two[1].begin(0)
    two[0].request("save")
    turns(two)
    assert two[0].due(4) == "save" and train(two[1], 0, 99) == (4, "save")


def test_one_that_ends_its_training_before_a_save_leaves_it_behind() -> None:
    two = processes(6, 5)
    two[0].request("save")
    turns(two)
    two[0].end()
    assert train(two[1], 5, 6) == (6, "save")
    for one in two:  # the next stage
        one.begin(0)
        assert train(one, 0, 9) == (9, "")


def test_one_that_does_not_train_is_left_out_of_a_stop() -> None:
    trains, other = processes(3, None)
    trains.request("stop")
    turns([trains, other])
    assert other.leaves_out and not trains.leaves_out
    assert not trains.stopping  # it must not go on to save without the other


def test_one_that_has_stopped_with_the_others_is_not_left_out() -> None:
    two = processes(3, 3)
    two[0].request("stop")
    turns(two)
    for one in two:
        assert one.due(3) == "stop"
        one.end()
        assert not one.leaves_out


def test_a_process_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement_module, "SECONDS", -1.0)
    here, _ = processes(3, 3)
    here.request("stop")
    with pytest.raises(TimeoutError, match="could not agree"):
        here.turn()


def test_no_call_to_the_store_is_made_under_the_lock() -> None:
    """A call that comes back into the agreement from another thread would hang otherwise."""

    class Coming(SharedStore):
        def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
            thread = threading.Thread(target=one.dispatch, args=(7,), daemon=True)
            thread.start()
            thread.join(10)
            assert not thread.is_alive()
            return super().key_value_dir_get(key)

    one = Agreement(Coming())
    one.begin(3)
    one.request("stop")
    turns([one])
    assert one.due(3) == "stop"
