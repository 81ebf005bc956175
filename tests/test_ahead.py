"""Work ahead: the order stays, nothing is drawn without end, and errors come in their turn."""

import itertools
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezekit.runtime.ahead import ahead


@given(st.lists(st.integers(0, 3), max_size=40))
def test_the_same_as_a_loop(waits):
    def work(wait):
        time.sleep(wait / 10_000)
        return 2 * wait

    assert list(ahead(work, waits)) == [(wait, 2 * wait) for wait in waits]


def test_a_result_does_not_wait_for_the_next_item():
    first_known = threading.Event()

    def items():
        yield 1
        assert first_known.wait(60)
        yield 2

    results = ahead(str, items())
    assert next(results) == (1, "1")
    first_known.set()
    assert list(results) == [(2, "2")]


def test_an_endless_source_is_drawn_a_little_ahead():
    drawn = []

    def items():
        for item in itertools.count():
            drawn.append(item)
            yield item

    results = ahead(str, items())
    assert [next(results)[1] for _ in range(3)] == ["0", "1", "2"]
    results.close()
    assert len(drawn) <= 3 + 10
    count = len(drawn)
    time.sleep(0.3)
    assert len(drawn) <= count + 1  # whoever stops asking stops it


def test_errors_come_in_their_turn():
    results = ahead(lambda divisor: 12 // divisor, [3, 4, 0, 6])
    assert [next(results), next(results)] == [(3, 4), (4, 3)]
    with pytest.raises(ZeroDivisionError):
        next(results)

    def items():
        yield 1
        raise ValueError("no more")

    results = ahead(str, items())
    assert next(results) == (1, "1")
    with pytest.raises(ValueError, match="no more"):
        next(results)
