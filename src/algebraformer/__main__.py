"""`python -m algebraformer` is the command `algebraformer`.

Here is what belongs to a process of its own: its streams and its signals. What is not yet imported when Python has
started is imported where Ctrl-C is looked after.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys

TYPE_CHECKING = False  # importing typing takes long enough for a Ctrl-C
if TYPE_CHECKING:
    from typing import Any

NOT_WRITTEN, INTERRUPTED = 2, 130


class Output(io.FileIO):
    """File descriptor of standard output or error: what cannot be written is dropped, and the first error kept.

    A reader that went away, as in `algebraformer families | head -1`, or a full disk does not stop the command: its
    exit code and its files may be what matters.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write bytes; return how many were written, or all of them if they are dropped."""
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return len(data)


def open_streams() -> Output:
    """Give this process three streams that never raise; return what is below standard output.

    Closed descriptors (`>&-`) become the null device: otherwise the next file that is opened would take their place.
    Characters that the terminal's encoding lacks are replaced.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    output = Output(1)
    for below, name, errors in ((output, "stdout", "replace"), (Output(2), "stderr", "backslashreplace")):
        before = getattr(sys, name)
        if os.name == "nt" and below.isatty():
            continue  # the console of Windows is not a file
        encoding = getattr(before, "encoding", None) or "utf-8"
        lines = name == "stderr" or below.isatty()
        stream = io.TextIOWrapper(io.BufferedWriter(below), encoding, errors, line_buffering=lines)
        setattr(sys, name, stream)
    return output


def main() -> int:
    """Run the command line as a process of its own; return its exit code."""
    # The imports of a command make half a million objects that live to its end. Python's collector would look through
    # them again and again while they are made, and once more at the exit: a quarter of the seconds that `solve` takes.
    gc.set_threshold(100_000)
    code = 0

    def leave() -> None:
        """End with this code where Python would kill itself with SIGINT: after Ctrl-C inside of `exec`."""
        if code == INTERRUPTED:
            sys.stderr.flush()
            os._exit(code)

    atexit.register(leave)  # the first one is called last, when workers and temporary files are cleared away
    try:
        output = open_streams()
        code = run()
        sys.stdout.flush()
        if output.error is not None and not isinstance(output.error, BrokenPipeError):
            print(f"algebraformer: standard output: {output.error.strerror}", file=sys.stderr)
            code = NOT_WRITTEN
    except KeyboardInterrupt as interrupt:
        code = INTERRUPTED
        print(f"algebraformer: {str(interrupt) or 'interrupted'}", file=sys.stderr)
    ignore_interrupts()
    gc.freeze()
    return code


def run() -> int:
    """Run the command line; return its exit code."""
    from algebraformer.cli import main as command_line

    try:
        return command_line()
    except SystemExit as stop:  # after --help, or a word that no command knows
        return int(stop.code or 0)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C from now on: all that is left is the end of the interpreter."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
