"""Files of measurements: traces of DEER and impedance spectra, as spectrometers and analysers write them.

Units are never guessed: they stand in the names of the columns, or the caller says them.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from algebraformer.instruments import bes3t
from algebraformer.instruments.tables import Table, read_table
from algebraformer.io.limits import FilePath, Refused, naming
from algebraformer.linalg import FloatArray

TIME_UNITS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
"""Microseconds in each."""
WORD = r"(?:^|[^a-z])(?:{})(?:$|[^a-z])"
"""A pattern that stands alone in a name: not inside a word."""


class Trace(NamedTuple):
    """A measured trace."""

    time_us: FloatArray
    """(m,), in microseconds, as recorded."""
    echo: NDArray[Any]
    """(m,), float64 or complex128: complex if the file has two channels."""


class Spectrum(NamedTuple):
    """A measured impedance spectrum."""

    frequency_hz: FloatArray
    """(m,), in Hz, in the order of the file."""
    impedance: NDArray[np.complex128]
    """(m,), in ohm."""


def read_trace(path: FilePath, *, time_unit: str | None = None) -> Trace:
    """Read a trace: Bruker's BES3T (.DTA beside .DSC), or a text file with columns.

    Parameters
    ----------
    path : str or path-like
        A text file has the columns time, real part and, if there is one, imaginary part: in this order, or under names
        that contain time or t, re or real, im or imag.
    time_unit : {"s", "ms", "us", "ns"}, optional
        Unit of the times, where the file does not say it.

    Raises
    ------
    InputFormatError
        The file is damaged or missing, its columns are not these, or nothing says what the unit of time is.
    """
    expected = "trace with a time and one or two channels"
    with naming(path, expected):
        if time_unit is not None and time_unit not in TIME_UNITS:
            raise Refused(f"expected time_unit to be one of {', '.join(TIME_UNITS)}, received {time_unit!r}")
        if str(path).lower().endswith((".dta", ".dsc")):
            axis, unit, echo = bes3t.read(path)
        else:
            axis, unit, echo = _trace_columns(read_table(path))
        unit = time_unit or unit
        if unit not in TIME_UNITS:
            raise Refused(
                "expected the unit of time in the name of its column, for instance time_ns or t/us, or time_unit=; "
                f"received {unit!r}"
            )
        return Trace(axis * TIME_UNITS[unit], echo)


def _trace_columns(table: Table) -> tuple[FloatArray, str, NDArray[Any]]:
    """Return times, their unit ("" if unknown) and the echo of a table."""
    names, values = [plain(name) for name in table.names], table.values
    time = column(names, "time|t", 0)
    real = column(names, "real|re|signal|intensity|echo|v", 1)
    imag = column(names, "imag|imaginary|im", 2 if values.shape[1] > 2 else None)
    if time is None or real is None or len({time, real, imag}) < 3:
        raise Refused(f"expected columns time, real and, if there is one, imag; received {', '.join(table.names)}")
    unit = next((unit for unit in TIME_UNITS if names and re.search(WORD.format(unit), names[time])), "")
    echo = values[:, real] if imag is None else values[:, real] + 1j * values[:, imag]
    return values[:, time], unit, echo


def read_spectrum(path: FilePath) -> Spectrum:
    """Read an impedance spectrum from a text file with columns.

    Without names the columns are frequency in Hz, real part and imaginary part in ohm. Names may be in any order: a
    frequency (f, freq) in Hz or an angular one (omega) in rad/s; Z' or Re(Z), Z" or Im(Z), also with a minus sign in
    front of it, as analysers write -Im(Z)/Ohm; or |Z| with a phase in degrees. Prefixes of units are m, k and M.

    The files of instruments that have more than a table in text are read by the package impedance:
    `impedance.preprocessing.readFile`.

    Parameters
    ----------
    path : str or path-like

    Raises
    ------
    InputFormatError
        The file is damaged or missing, or its columns are not these.
    """
    with naming(path, "impedance spectrum with frequency, real and imaginary part"):
        table = read_table(path)
        values = table.values
        if not table.names:
            if values.shape[1] != 3:
                raise Refused(
                    "expected names of columns, or three columns: frequency in Hz, real and imaginary part in ohm; "
                    f"received {values.shape[1]} columns without names"
                )
            return Spectrum(values[:, 0], values[:, 1] + 1j * values[:, 2])
        return _spectrum_columns(table)


def _spectrum_columns(table: Table) -> Spectrum:
    """Return the spectrum of a table with names."""
    values = table.values
    found: dict[str, NDArray[Any]] = {}
    for place, name in enumerate(table.names):
        role = _role(name)
        if role and role not in found:
            found[role] = _prefix(name) * values[:, place]
    if "frequency" not in found and "omega" in found:
        found["frequency"] = found["omega"] / (2 * np.pi)
    if "minus imag" in found:
        found.setdefault("imag", -found["minus imag"])
    if {"frequency", "real", "imag"} <= set(found):
        return Spectrum(found["frequency"], found["real"] + 1j * found["imag"])
    if {"frequency", "modulus", "phase"} <= set(found):
        angle = np.radians(found["phase"])
        return Spectrum(found["frequency"], found["modulus"] * (np.cos(angle) + 1j * np.sin(angle)))
    raise Refused(
        "expected columns frequency, Z' and Z\", or frequency, |Z| and phase; received " + ", ".join(table.names)
    )


ROLES = (
    ("phase", r"phase|phi(?:$|[^a-z])|theta|^arg"),
    ("modulus", r"\|z\||zmod|^mod|magnitude|^abs"),
    ("minus imag", r"^\W*[-−–]\s*(?:im|z\s*_?(?:''|\"|″|im|i\b))|^\W*neg|^minus"),
    ("imag", r"im(?:ag)?(?:inary)?(?:$|[^a-z])|z\s*_?(?:''|\"|″)|^z?_?im|zimag"),
    ("real", r"re(?:al)?(?:$|[^a-z])|z\s*_?(?:'|′)|^z?_?re|zreal"),
    ("omega", r"omega|ω|rad\s*/\s*s|rad_s"),
    ("frequency", r"freq|hz|^f(?:$|[^a-z])"),
)
"""What names of columns are, in the order in which they are tried."""


def _role(name: str) -> str:
    """Return what a column holds, by its name; "" if nothing of a spectrum."""
    word = name.strip().lower()
    if re.search(r"\(y\)|admitt", word):  # admittances
        return ""
    return next((role for role, pattern in ROLES if re.search(pattern, word)), "")


def _prefix(name: str) -> float:
    """Return what the unit in a name has to be multiplied by: 1000 for kHz or kOhm, 1 where there is none."""
    unit = re.search(r"([mkM])(?:Hz|[Oo]hm|Ω|Ω)", name)
    return {"m": 1e-3, "k": 1e3, "M": 1e6}[unit.group(1)] if unit else 1.0


def plain(name: str) -> str:
    """Return a name in small letters, with u for the sign of a millionth."""
    return name.strip().lower().replace("µ", "u").replace("μ", "u").replace("_", " ")


def column(names: list[str], words: str, default: int | None) -> int | None:
    """Return the first column whose name contains one of the words, or `default` where there are no names."""
    if not names:
        return default
    return next((place for place, name in enumerate(names) if re.search(WORD.format(words), name)), None)
