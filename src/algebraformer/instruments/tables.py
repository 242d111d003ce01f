"""Tables of numbers in text files: any of the usual separators, with or without a line of names."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from algebraformer.io.limits import FilePath, Refused, open_file
from algebraformer.linalg import FloatArray

MAX_BYTES = 2**24
"""Largest text file that is read: two thousand points take 0.1 MB."""
COMMENTS = ("#", "%", "!", ";", "//")
"""What lines that hold no numbers may begin with."""
SEPARATORS = ("\t", ";", ",", None)
"""Tried in this order; None is any white space. Where tabs or semicolons separate, commas are decimal points."""

REPEATED = 3
"""As many further lines with as many numbers are a part of the table behind a damaged line, or another table."""


class Table(NamedTuple):
    """Columns of a file."""

    names: tuple[str, ...]
    """Those of the last line before the numbers, if it has as many words as there are columns; else empty."""
    values: FloatArray
    """(m, columns)"""


def read_table(path: FilePath) -> Table:
    """Read a table: the longest run of lines with the same number of numbers, at least two.

    Whatever stands before it is a header, and its last line names the columns if it has as many entries as they.

    Parameters
    ----------
    path : str or path-like
        A text file in UTF-8, UTF-16 with a mark, or Latin-1.

    Raises
    ------
    Refused
        The file is no text, too large, or holds no table, or several; inside `io.limits.naming` an `InputFormatError`.
    OSError
        There is no such file.
    """
    with open_file(path, "text file with columns of numbers") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Refused(f"expected a text file of at most {MAX_BYTES} bytes, received more")
    if not data.strip():
        raise Refused("expected a text file with columns of numbers, received an empty file")
    return _table(_text(data).splitlines())


def _text(data: bytes) -> str:
    """Return text from bytes of one of the encodings that instruments write."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    if b"\0" in data:
        raise Refused("expected a text file with columns of numbers, received binary data")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _table(lines: list[str]) -> Table:
    """Return the table that lines hold, with the separator that gives the longest one."""
    best, start, other, chosen = np.empty((0, 0)), 0, None, None
    for separator in SEPARATORS:
        values, first, second = _longest(lines, separator)
        if values.shape[0] > best.shape[0] or (values.shape[0] == best.shape[0] and values.shape[1] > best.shape[1]):
            best, start, other, chosen = values, first, second, separator
    if best.shape[0] == 0:
        raise Refused("expected a text file with at least two columns of numbers, received none")
    if other is not None:
        raise Refused(f"expected one table, received one from line {start + 1} on and one from line {other + 1} on")
    header = next((line for line in reversed(lines[:start]) if line.strip()), "")
    for comment in COMMENTS:
        header = header.strip().removeprefix(comment)
    names = tuple(_unquoted(word) for word in header.strip().split(chosen))
    return Table(names if len(names) == best.shape[1] else (), best)


def _longest(lines: list[str], separator: str | None) -> tuple[FloatArray, int, int | None]:
    """Return the longest run of lines with the same number of numbers, at least two, and where it starts.

    Empty lines and comments do not end a run. The third value is where another run as wide starts, if one does.
    """
    runs: list[tuple[int, list[list[float]]]] = []
    open_run = False
    for place, line in enumerate(lines):
        words = line.strip()
        if not words or (open_run and words.startswith(COMMENTS)):
            continue
        row = _numbers(words, separator)
        if row is None:
            open_run = False
        elif open_run and len(runs[-1][1][0]) == len(row):
            runs[-1][1].append(row)
        else:
            runs.append((place, [row]))
            open_run = True
    start, rows = max(runs, key=lambda run: len(run[1]), default=(0, []))
    others = [place for place, run in runs if len(run) >= REPEATED and len(run[0]) == len(rows[0]) and place != start]
    return (np.array(rows) if rows else np.empty((0, 0))), start, next(iter(others), None)


def _numbers(line: str, separator: str | None) -> list[float] | None:
    """Return the numbers of a line, at least two, or None."""
    words = [_unquoted(word) for word in line.strip().rstrip(separator).split(separator)]
    if separator != "," and (separator is not None or not any("." in word for word in words)):
        words = [re.sub(r"^([-+]?\d*),(\d+)", r"\1.\2", word) for word in words]
    if len(words) < 2:
        return None
    try:
        return [float(word) for word in words]
    except ValueError:
        return None


def _unquoted(word: str) -> str:
    """Return a word without the white space and the pair of quotation marks around it."""
    word = word.strip()
    return word[1:-1].strip() if len(word) > 1 and word[0] == word[-1] == '"' else word
