"""The file arguments of the commands: FILE, FILE:NAME for a variable of another name, and - for standard input."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Literal

from algebraformer.errors import ConfigurationError

if TYPE_CHECKING:
    from algebraformer.io.limits import Array

FormatName = Literal["npy", "npz", "mtx", "mtx.gz", "mat"]
STDIN = "-"


def split_name(argument: str) -> tuple[str, str | None]:
    """Return path and name of a variable from FILE or FILE:NAME; a file whose own name has a colon goes first.

    Examples
    --------
    >>> split_name("system.npz:K")
    ('system.npz', 'K')
    >>> split_name("system.npz")
    ('system.npz', None)
    """
    from algebraformer.io import FORMATS

    if not os.path.exists(argument):
        for at in (k for k, letter in enumerate(argument) if letter == ":"):
            path = argument[:at]
            if path == STDIN or path.lower().endswith(tuple(f".{name}" for name in FORMATS)):
                return path, argument[at + 1 :]
    return argument, None


def read_system(command: Any) -> tuple[Array, Array]:
    """Read A and b as the arguments `A`, `b`, `format` and `max_bytes` of a command say.

    Raises
    ------
    ConfigurationError
        If standard input has no format, or there is a format without standard input.
    InputFormatError
        As `algebraformer.io.read_system`.
    """
    from algebraformer import io

    A_path, A_key = split_name(command.A)
    b_path, b_key = (None, None) if command.b is None else split_name(command.b)
    piped = STDIN in (A_path, b_path)
    if piped and command.format is None:
        raise ConfigurationError(f"standard input (-) needs --format, one of {', '.join(io.FORMATS)}")
    if piped and sys.stdin is None:
        raise ConfigurationError("standard input (-) is closed")
    if not piped and command.format is not None:
        raise ConfigurationError(f"--format is for standard input (-), received {command.format} with files alone")
    A_file = sys.stdin.buffer if A_path == STDIN else A_path
    b_file = sys.stdin.buffer if b_path == STDIN else b_path
    keys = {"A_key": A_key, "b_key": b_key}
    return io.read_system(A_file, b_file, **keys, format=command.format, max_bytes=command.max_bytes)
