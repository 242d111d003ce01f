"""Worker processes: tasks are shared out, and those of one that dies are done by another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import work

from algebraformer.bulk.pool import MAX_LOSSES, Pool
from algebraformer.errors import WorkerError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def everything(pool, tasks):
    """Return the results by position."""
    found = {}
    for ended in pool.run(tasks):
        for number, result in ended:
            assert number not in found
            found[number] = result
    return [found[number] for number in range(len(tasks))]


def test_tasks_are_shared_out_and_bad_ones_reported():
    with Pool(work.square, 2) as pool:
        found = everything(pool, [5, -1, *range(20)])
        assert isinstance(found[1], ValueError)
        assert found[:1] + found[2:] == [25, *(k**2 for k in range(20))]
        assert everything(pool, [7]) == [49]  # the same processes again
        assert everything(pool, []) == []


def test_a_killed_worker_is_replaced(tmp_path):
    with Pool(work.KilledOnce(tmp_path), 2) as pool:
        found = everything(pool, list(range(30)))
    assert [value for value, _ in found] == [k**2 for k in range(30)]
    assert (tmp_path / "killed").exists()
    assert len({process for _, process in found}) <= 3


def test_workers_that_always_die_end_the_work():
    with Pool(work.die, 1) as pool, pytest.raises(WorkerError, match="SIGKILL"):
        everything(pool, list(range(2 * MAX_LOSSES)))


def test_other_errors_are_raised_here():
    with Pool(work.fail, 1) as pool, pytest.raises(PermissionError) as caught:
        everything(pool, [1, 2])
    assert caught.value.filename == "x.npy"


def test_workers_leave_an_interrupt_to_their_parent():
    with Pool(work.interrupt, 1) as pool:
        assert everything(pool, [1, 2]) == [1, 2]


def test_leaving_ends_workers_at_once():
    begun = time.monotonic()
    with Pool(work.wait, 2) as pool:
        for ended in pool.run([1, 2]):
            assert ended == []
            workers = [worker.process.pid for worker in pool._workers]
            break
    assert time.monotonic() - begun < 60  # the tasks take ten minutes
    assert not any(map(is_running, workers))


def is_running(process):
    """Say whether there is such a process, other than one that has ended and that nobody has waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_workers_end_with_a_parent_that_is_killed():
    command = [sys.executable, work.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert all(map(is_running, workers))
        parent.send_signal(signal.SIGKILL)
    assert len(workers) == 2
    until = time.monotonic() + 30
    while any(map(is_running, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_running, workers))
