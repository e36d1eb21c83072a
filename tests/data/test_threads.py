from __future__ import annotations

import os
import threading
import time

import pytest

from tlcompile.data.threads import in_order


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_given(workers: int) -> None:
    def work(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        return number * number

    assert list(in_order(work, range(10), workers)) == [n * n for n in range(10)]


def test_threads_stay() -> None:
    def name(_: int) -> str:
        time.sleep(0.002)
        return threading.current_thread().name

    names = {found for _ in range(5) for found in in_order(name, range(4), 2)}
    assert 1 <= len(names) <= 2
    assert threading.main_thread().name not in names


def test_an_exception_ends_it_and_the_threads_go_on_serving() -> None:
    def work(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    with pytest.raises(ValueError, match="three"):
        list(in_order(work, range(6), 2))
    assert list(in_order(str, range(3), 2)) == ["0", "1", "2"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_starts_threads_of_its_own() -> None:
    list(in_order(str, range(3), 2))
    child = os.fork()
    if child == 0:  # waits for ever where it takes its parent's threads for its own
        os._exit(0 if list(in_order(str, range(3), 2)) == ["0", "1", "2"] else 1)
    for _ in range(500):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.01)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert status == 0
