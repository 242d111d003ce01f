"""Worker processes that share out tasks: those of one that dies are done by another.

Every worker has a task at a time and a pipe of its own, so that a process that was killed, by a user or for want of
memory, costs the one task that it had; `concurrent.futures` gives up all workers and all their tasks then. If the
process that started them is killed, their pipes end, and so do they after the task that they have.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from algebraformer.errors import WorkerError

Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_LOSSES = 5
"""Workers that may die one after the other, none having finished a task: it is the tasks then, or the memory."""
PATIENCE = 0.2
"""Longest time between two reports, in seconds: what a person takes for at once."""


class Pool(Generic[Task, Result]):
    """Processes that compute work(task); a context manager, which ends them at once when it is left.

    Parameters
    ----------
    work : callable
        What a task is given to; pickled once for each process.
    count : int
        Number of processes.
    """

    def __init__(self, work: Callable[[Task], Result], count: int) -> None:
        self._work, self._count = work, count
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.end()
        self._workers = []

    def run(self, tasks: Sequence[Task]) -> Iterator[list[tuple[int, Result | ValueError]]]:
        """Yield the tasks that have ended, every now and then: positions and results, none if there are none yet.

        A ValueError that a task raises is its result: one bad task does not end the others.

        Raises
        ------
        WorkerError
            Workers die and none finishes a task.
        Exception
            Any other error of a task.
        """
        left = deque(range(len(tasks)))
        self._workers += [_Worker(self._work) for _ in range(min(self._count, len(tasks)) - len(self._workers))]
        busy: dict[Any, tuple[_Worker, int]] = {}  # by connection
        idle, losses = list(self._workers), 0
        while left or busy:
            while left and idle:
                worker, number = idle.pop(), left.popleft()
                worker.begin(tasks[number])
                busy[worker.connection] = worker, number
            ended: list[tuple[int, Result | ValueError]] = []
            for connection in wait(list(busy), timeout=PATIENCE):
                worker, number = busy.pop(connection)
                try:
                    result = worker.result()
                except (EOFError, ConnectionError):
                    losses += 1
                    left.appendleft(number)
                    idle.append(self._replace(worker, losses))
                    continue
                if isinstance(result, Exception) and not isinstance(result, ValueError):
                    raise result
                losses = 0
                idle.append(worker)
                ended.append((number, result))
            yield ended

    def _replace(self, dead: _Worker, losses: int) -> _Worker:
        """Return another worker in place of one that has died; `WorkerError` after too many of them."""
        if losses > MAX_LOSSES:
            raise WorkerError(
                f"{losses} worker processes ended one after the other without finishing a task, the last one by "
                f"{dead.how_it_ended()}: is there enough memory?"
            )
        dead.end()
        fresh = _Worker(self._work)
        self._workers[self._workers.index(dead)] = fresh
        return fresh


class _Worker:
    """A process, and our end of its pipe."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks, but not the threads
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work), daemon=True, name="algebraformer")
        with _interrupts_wait():
            self.process.start()
        theirs.close()  # it ends with the process

    def begin(self, task: Any) -> None:
        """Send a task; if the process is gone, `result` says so."""
        with contextlib.suppress(ConnectionError):
            self.connection.send(task)

    def result(self) -> Any:
        """Receive what became of the task."""
        return self.connection.recv()

    def how_it_ended(self) -> str:
        """Return signal or exit code of a process that is gone."""
        self.process.join()
        code = self.process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def end(self) -> None:
        """End the process, also in the middle of a task: files are written whole or not at all."""
        self.process.kill()
        self.process.join()
        self.process.close()
        self.connection.close()


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold back Ctrl-C meanwhile: a process that is started then never gets it, and leaves it to this one."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starting it, which any first process does, lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    """Do tasks until there is nobody left to send them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be held back
    warnings.simplefilter("ignore")  # they name systems of a block; what they say is in the results
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            task = connection.recv()
            try:
                result = work(task)
            except Exception as error:  # noqa: BLE001  # the other process raises it
                result = error
            connection.send(result)
