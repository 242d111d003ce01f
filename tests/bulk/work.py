"""What the processes of `test_pool.py` do: they import it by its name."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def square(number: int) -> int:
    if number < 0:
        raise ValueError(number)
    return number**2


class KilledOnce:
    """Squares; the first process that gets 3 is killed, as by a system without memory."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "killed"

    def __call__(self, number: int) -> tuple[int, int]:
        if number == 3 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number**2, os.getpid()


def die(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(number: int) -> None:
    raise PermissionError(13, "Permission denied", "x.npy")


def wait(number: int) -> None:
    time.sleep(600)


def nap(number: int) -> None:
    time.sleep(0.5)


def interrupt(number: int) -> int:
    """Press Ctrl-C, as far as this process is concerned."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)
    return number


def main() -> None:
    """Start two workers that are busy for a minute, and show their process ids."""
    from algebraformer.bulk.pool import Pool

    with Pool(nap, 2) as pool:
        for _ in pool.run(range(240)):
            print(*(worker.process.pid for worker in pool._workers), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
