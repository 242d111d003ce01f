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
"""Tried in this order; None is any white space. Where commas do not separate, they are decimal points."""


class Table(NamedTuple):
    """Columns of a file."""

    names: tuple[str, ...]
    """Those of the last line with letters before the numbers; empty if there is no such line."""
    values: FloatArray
    """(m, columns)"""


def read_table(path: FilePath) -> Table:
    """Read a table: the longest run of lines with the same number of numbers, at least two.

    Whatever stands before it is a header. The last line there that has letters names the columns. Lines behind it that
    hold no number are a footer.

    Parameters
    ----------
    path : str or path-like
        A text file in UTF-8, UTF-16 with a mark, or Latin-1.

    Raises
    ------
    Refused
        The file is no text, too large, or holds no table, or several; a line interrupts the table; or the line before
        it has not one name for each column. Inside `io.limits.naming` an `InputFormatError`.
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


class _Run(NamedTuple):
    """Successive lines with the same number of numbers."""

    rows: list[list[float]]
    start: int
    """Place of the first line."""
    end: int
    """Place of the last line."""

    @property
    def columns(self) -> int:
        return len(self.rows[0])


def _table(lines: list[str]) -> Table:
    """Return the table that lines hold, with the separator that gives the longest one."""
    found = [(separator, _runs(lines, separator)) for separator in SEPARATORS]
    longest = [(separator, runs, max(runs, key=lambda run: len(run.rows))) for separator, runs in found if runs]
    if not longest:
        raise Refused("expected a text file with at least two columns of numbers, received none")
    separator, runs, table = max(longest, key=lambda each: (len(each[2].rows), each[2].columns))
    place = _header(lines[: table.start], separator)

    # Rows that a damaged line has cut off are never dropped.
    behind = [i for i in range(table.end + 1, len(lines)) if not _is_empty(lines[i], separator)]
    before = [i for i in range(table.start) if not _is_empty(lines[i], separator)]
    if any(_has_number(lines[i], separator) for i in behind):
        raise _interrupted(lines, behind[0])
    cut_off = any(run.columns == table.columns for run in runs if run.start < table.start)
    if cut_off or any(_has_number(lines[i], separator) for i in before if place is None or i > place):
        raise _interrupted(lines, before[-1])
    names = () if place is None else _names(lines[place], table.columns, separator, place)
    return Table(names, np.array(table.rows))


def _runs(lines: list[str], separator: str | None) -> list[_Run]:
    """Return the runs of lines with the same number of numbers. Empty lines and comments do not end a run."""
    runs: list[_Run] = []
    open_run = False
    for place, line in enumerate(lines):
        if not line.strip() or (open_run and _is_empty(line, separator)):
            continue
        row = _numbers(line, separator)
        if row is not None and open_run and runs[-1].columns == len(row):
            runs[-1].rows.append(row)
            runs[-1] = runs[-1]._replace(end=place)
        elif row is not None:
            runs.append(_Run([row], place, place))
        open_run = row is not None
    return runs


def _is_empty(line: str, separator: str | None) -> bool:
    """Return whether a line is white or a comment; one that begins with the separator lacks its first cell."""
    words = line.strip()
    return not words or words.startswith(tuple(comment for comment in COMMENTS if comment != separator))


def _has_number(line: str, separator: str | None) -> bool:
    """Return whether any word of a line is a number."""
    for word in line.split(separator):
        try:
            float(_with_point(_unquoted(word), separator))
        except ValueError:
            continue
        return True
    return False


def _interrupted(lines: list[str], place: int) -> Refused:
    """Return the error of a table with a line that is not like the others."""
    return Refused(f"expected one table, received one that line {place + 1} interrupts: {lines[place].strip()[:80]!r}")


def _header(lines: list[str], separator: str | None) -> int | None:
    """Return the place of the last line with letters, which is not one of numbers."""
    for place in range(len(lines) - 1, -1, -1):
        if any(letter.isalpha() for letter in lines[place]) and _numbers(lines[place], separator) is None:
            return place
    return None


def _names(header: str, columns: int, separator: str | None, place: int) -> tuple[str, ...]:
    """Return the names in a line: separated as the numbers are or, if that gives another count, in another way."""
    said = re.sub(r"^\s*(?:#+|%+|!+|;|//)", "", header).strip()
    stripped = (said, header.strip())
    whole = (said, header, header.strip(), said.rstrip(separator))  # with a separator at either end, as before an index
    for pattern in (separator or "\t", "\t", ";", ",", r"\s{2,}|\t", r"\s+"):
        for text in whole if pattern in SEPARATORS else stripped:
            words = re.split(pattern, text)
            if len(words) == columns:
                return tuple(_unquoted(word) for word in words)
    raise Refused(
        f"expected one name for each of {columns} columns, or no line with letters before the numbers, received in "
        f"line {place + 1} {header.strip()[:80]!r}"
    )


def _numbers(line: str, separator: str | None) -> list[float] | None:
    """Return the numbers of a line, at least two, or None."""
    words = [_unquoted(word) for word in line.strip().rstrip(separator).split(separator)]
    if not any("." in word for word in words):
        words = [_with_point(word, separator) for word in words]
    if len(words) < 2:
        return None
    try:
        return [float(word) for word in words]
    except ValueError:
        return None


def _with_point(word: str, separator: str | None) -> str:
    """Return a number with a point in place of a decimal comma, where commas do not separate."""
    return word if separator == "," else re.sub(r"^([-+]?\d*),(\d+)", r"\1.\2", word)


def _unquoted(word: str) -> str:
    """Return a word without the white space and the pair of quotation marks around it."""
    word = word.strip()
    return word[1:-1].strip() if len(word) > 1 and word[0] == word[-1] == '"' else word
