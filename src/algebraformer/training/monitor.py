"""Progress bar and signals of a run.

Every long part of a training reports its progress. Whatever happens to the progress bar, a result is never lost to it;
and a signal takes effect where progress is reported, so that no part is left in the middle of what it does.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
IMPATIENT = 1.0
"""Seconds after which a second Ctrl-C no longer waits for the next report."""


class Stopped(KeyboardInterrupt):
    """A signal has asked the run to stop."""


class Unbreakable:
    """A text stream that becomes silent, instead of raising, once its reader is gone."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.broken = stream, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write, or do nothing."""
        self._try(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, or do nothing."""
        self._try(self.stream.flush)

    def _try(self, action: Callable[[], object]) -> None:
        if self.broken:
            return
        try:
            action()
        except (OSError, ValueError):  # closed, full, or without the characters
            self.broken = True
            self._drop_what_is_stuck()

    def _drop_what_is_stuck(self) -> None:
        """Empty the buffer of the stream: what it holds would fail again whenever it is flushed, also before a fork."""
        try:
            descriptor = self.stream.fileno()
            kept, nowhere = os.dup(descriptor), os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            self.stream.flush()
            os.dup2(kept, descriptor)
            os.close(kept)
            os.close(nowhere)
        except (OSError, ValueError):
            return  # there is no file behind it


class Monitor:
    """Progress bar and signals of one run; a context manager, which may be entered again inside itself.

    Inside, SIGINT and SIGTERM set `stop`, and the next report raises `Stopped`; a second Ctrl-C does not wait for that
    and raises KeyboardInterrupt.

    Parameters
    ----------
    show : bool
        Show the progress bar.
    """

    def __init__(self, show: bool) -> None:
        self.stop = threading.Event()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=Unbreakable(sys.stdout)),  # type: ignore[arg-type]
            disable=not show,
        )
        self._depth, self._since = 0, 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            try:
                if self.bar.live.is_started:
                    self.bar.stop()
            finally:
                for number, handler in self._previous.items():
                    signal.signal(number, handler)
                self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.stop.is_set() and time.monotonic() > self._since + IMPATIENT:
            raise KeyboardInterrupt
        if not self.stop.is_set():
            self._since = time.monotonic()
        self.stop.set()

    def part(self, what: str, stopping: Callable[[], bool] | None = None) -> Callable[..., None]:
        """Show a part of the work; return what its progress is reported to.

        Parameters
        ----------
        what : str
            What is being done.
        stopping : callable, optional
            Returns whether to stop, where that is not for this process to decide by itself.

        Returns
        -------
        callable
            report(done, total, detail=""): show this; raises `Stopped` if a signal came.
        """
        stopping = stopping or self.stop.is_set
        task: TaskID | None = None

        def report(done: int, total: int, detail: str = "") -> None:
            nonlocal task
            if task is None:
                task = self.bar.add_task(what, total=total, completed=done, detail=detail)
                if self._depth:
                    self.bar.start()
            self.bar.update(task, completed=done, total=total, detail=detail)
            if stopping():
                raise Stopped

        return report

    @contextmanager
    def whole(self, what: str) -> Iterator[None]:
        """Show a part of the work that does not tell how far it is."""
        report = self.part(what)
        report(0, 1)
        yield
        report(1, 1)
