"""Work in pieces: a command that stops by itself after some time, where it can resume."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from algebraformer.errors import ConfigurationError


@contextmanager
def time_limit(minutes: float | None) -> Iterator[None]:
    """Interrupt what is done inside after this time, as Ctrl-C does: a training writes a checkpoint and stops.

    Parameters
    ----------
    minutes : float or None
        No limit if None.

    Raises
    ------
    ConfigurationError
        The time is not positive.
    """
    if minutes is None:
        yield
        return
    if not 0 < minutes * 60 <= threading.TIMEOUT_MAX:
        raise ConfigurationError(f"the time limit must be positive, in minutes, received {minutes!r}")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore Ctrl-C
    timer = threading.Timer(minutes * 60, _thread.interrupt_main)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
