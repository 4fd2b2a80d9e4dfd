"""What waits is begun before it is wanted, a few at a time, and comes in order."""

import threading

import pytest

from manifests.ahead import map_ahead

PATIENCE_S = 20.0


def test_results_come_in_order_whichever_is_done_first():
    second = threading.Event()

    def call(number: int) -> int:
        assert second.wait(PATIENCE_S) if number == 0 else second.set() is None
        return number

    assert list(map_ahead(call, range(9), n=2)) == list(range(9))


def test_no_more_are_begun_than_asked_for():
    begun: list[int] = []
    coming = map_ahead(begun.append, range(9), n=3)
    next(coming)
    assert set(begun) <= {0, 1, 2, 3}
    coming.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("ahead")]


def test_with_none_ahead_a_call_is_made_when_it_is_its_turn_and_in_no_thread():
    where: list[threading.Thread] = []
    coming = map_ahead(lambda _: where.append(threading.current_thread()), range(9), n=0)
    next(coming)
    assert where == [threading.current_thread()]


def test_what_a_call_raises_comes_in_its_turn():
    coming = map_ahead(lambda number: 1 / number, [1, 2, 0, 3], n=2)
    assert [next(coming), next(coming)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(coming)
    assert not [one for one in threading.enumerate() if one.name.startswith("ahead")]
