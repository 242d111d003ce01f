"""Threads: the pool against plain loops, with nesting, errors, other limits and forked processes."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from algebraformer import threads


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture
def two(monkeypatch):
    """Two threads, whatever the machine has."""
    monkeypatch.setattr(threads, "processors", lambda: 2)
    with threadpool_limits(2, "blas"):
        yield


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_results_are_those_of_a_loop(two, count):
    assert threads.run(lambda i: i * i, range(count)) == [i * i for i in range(count)]


def test_parts_run_at_the_same_time(two):
    meet = threading.Barrier(2, timeout=20)
    assert len(set(threads.run(lambda _: (meet.wait(), threading.get_ident())[1], range(2)))) == 2


def test_blas_has_one_thread_inside_and_its_own_number_after(two):
    before = blas_threads()
    assert threads.run(lambda _: blas_threads(), range(4)) == [[1] * len(before)] * 4
    assert blas_threads() == before
    assert 2 in before


def test_inside_a_task_there_is_one_thread(two):
    def task(_):
        with threads.one_blas_thread() as allowed:
            return allowed, len(set(threads.run(lambda _: threading.get_ident(), range(8))))

    assert threads.run(task, range(4)) == [(1, 1)] * 4


def test_a_thread_can_be_kept_from_using_others(two):
    def allowed(part=None):
        with threads.one_blas_thread() as count:
            return count

    before = allowed()
    with threads.single_thread():
        assert allowed() == 1
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(allowed).result() == before  # another thread has its own
        with threads.single_thread():
            assert threads.run(allowed, range(3)) == [1, 1, 1]
        assert allowed() == 1
    assert allowed() == before > 1


def test_a_limit_of_the_caller_holds():
    with threadpool_limits(1, "blas"):
        assert len(set(threads.run(lambda _: threading.get_ident(), range(8)))) == 1
        with threads.one_blas_thread() as allowed:
            assert allowed == 1


def test_errors_come_through_and_leave_no_limit(two):
    def task(i):
        if i == 3:
            raise ZeroDivisionError(i)
        return i

    before = blas_threads()
    with pytest.raises(ZeroDivisionError):
        threads.run(task, range(8))
    assert blas_threads() == before
    assert threads.run(task, range(3)) == [0, 1, 2]


def test_after_an_error_nothing_runs_on(two):
    """What another thread has begun is waited for, and nothing new is begun, also behind the caller's own error."""
    for first in (0, 1):
        begun, ended, meet = [], [], threading.Barrier(2, timeout=20)

        def task(i, first=first, begun=begun, ended=ended, meet=meet):
            begun.append(i)
            if i < 2:
                meet.wait()
            if i == first:
                raise ZeroDivisionError
            time.sleep(0.1)
            ended.append(i)

        with pytest.raises(ZeroDivisionError):
            threads.run(task, range(20))
        assert (sorted(begun), ended) == ([0, 1], [1 - first])


def test_floating_point_errors_are_handled_as_in_the_caller(two):
    def divide(i):
        time.sleep(0.01)
        return float(np.float64(i) / np.zeros(1)[0])

    with np.errstate(divide="ignore"):
        assert threads.run(divide, range(1, 9)) == [np.inf] * 8
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        threads.run(divide, range(1, 9))


def in_a_thread(call):
    """Return what a call returns in another thread."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    thread.join(60)
    return answers[0]


def test_any_thread_limits_blas_and_restores_it(two):
    """Whichever did so first: `threadpoolctl` lets one thread alone set OpenBLAS's limit until it is told otherwise."""
    many = blas_threads()
    one = [1] * len(many)
    for around in (lambda call: call(), in_a_thread):
        assert around(lambda: threads.run(lambda _: blas_threads(), range(4))) == [one] * 4
        assert blas_threads() == many
    inside, leave = threading.Event(), threading.Event()

    def last_to_leave():
        with threads.one_blas_thread() as allowed:
            inside.set()
            leave.wait(20)
            return allowed, blas_threads()

    with ThreadPoolExecutor(1) as other:
        with threads.one_blas_thread():
            last = other.submit(last_to_leave)
            assert inside.wait(20)
        assert blas_threads() == one
        leave.set()
        assert last.result(20) == (2, one)
    assert blas_threads() == many


class LimitByThread:
    """A BLAS library that works with OpenMP: a new thread has the default, whatever others have set."""

    def __init__(self):
        self.limits = threading.local()

    def get_num_threads(self):
        return getattr(self.limits, "count", 2)

    def set_num_threads(self, count):
        self.limits.count = count


def test_limits_that_belong_to_a_thread(two, monkeypatch):
    library, meet = LimitByThread(), threading.Barrier(2, timeout=20)
    monkeypatch.setattr(threads, "_blas", lambda: threads._Blas([], [library]))
    assert threads.run(lambda _: (meet.wait(), library.get_num_threads())[1], range(2)) == [1, 1]
    assert library.get_num_threads() == 2


def test_callers_in_several_threads_restore_the_limit(two):
    def call():
        for _ in range(20):
            threads.run(lambda _: time.sleep(1e-4), range(4))

    before = blas_threads()
    callers = [threading.Thread(target=call) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert blas_threads() == before


def test_a_library_for_one_thread_does_not_bind_the_others(monkeypatch):
    class Library:
        def __init__(self, count):
            self.count = count

        def get_num_threads(self):
            return self.count

        def set_num_threads(self, count):
            self.count = min(count, self.count)

    monkeypatch.setattr(threads, "processors", lambda: 8)
    monkeypatch.setattr(threads, "_blas", lambda: threads._Blas([Library(1), Library(4)], []))
    with threads.one_blas_thread() as allowed:
        assert allowed == 4


def square_sum(count, answers):
    answers.put(sum(threads.run(lambda i: i * i, range(count))))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_gets_its_own_pool(two):
    threads.run(lambda i: i, range(4))  # the pool of this process exists
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=square_sum, args=(50, answers))
    child.start()
    assert answers.get(timeout=60) == sum(i * i for i in range(50))
    child.join()


def limits(answers):
    before = blas_threads()
    with threads.one_blas_thread() as allowed:
        answers.put((before, allowed))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_no_limit_of_other_threads(two):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def fork():
        child = context.Process(target=limits, args=(answers,))
        child.start()
        found = answers.get(timeout=60)
        child.join()
        return found

    before = blas_threads()
    with threads.one_blas_thread():
        assert in_a_thread(fork) == (before, 2)
        assert blas_threads() == [1] * len(before)


BEHIND_THE_MAIN_THREAD = """
import threading
from algebraformer import threads

def job():
    threading.main_thread().join()
    print(sum(threads.run(lambda i: i, range(50))))

threads.processors = lambda: 2
threading.Thread(target=job).start()
"""


def test_a_thread_goes_on_when_the_main_thread_has_ended():
    """Python's pools take no work then."""
    child = subprocess.run([sys.executable, "-c", BEHIND_THE_MAIN_THREAD], capture_output=True, text=True, timeout=60)
    assert (child.stdout.strip(), child.stderr) == (str(sum(range(50))), "")


@pytest.mark.parametrize(("count", "entries", "largest"), [(1, 10, 5), (64, 2**20, 64), (64, 2**20, 7), (0, 4, 3)])
def test_slices_hold_every_system_once(two, count, entries, largest):
    slices = threads.split(count, entries, largest)
    assert [i for part in slices for i in range(part.start, part.stop)] == list(range(count))
    assert all(part.stop - part.start <= largest for part in slices)


def test_little_work_is_not_split(two):
    assert len(threads.split(100, 16, 1000)) == 1
    assert len(threads.split(64, 2**20, 1000)) == 2
