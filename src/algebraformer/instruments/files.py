"""Files of measurements: traces of DEER and impedance spectra, as spectrometers and analysers write them.

Units are never guessed: they stand in the names of the columns, or the caller says them. Frequencies without a unit are
in Hz, impedances in ohm, as the readers say.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from algebraformer.instruments import bes3t
from algebraformer.instruments.columns import EXPONENTS, Heading, headings, only, unit_among, unit_of
from algebraformer.instruments.drt import PARTS
from algebraformer.instruments.tables import Table, read_table
from algebraformer.io.limits import FilePath, Refused, naming
from algebraformer.linalg import FloatArray

TIME_UNITS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
"""Microseconds in each."""
RE, IM = r"re(?:al)?(?: part)?", r"im(?:ag(?:inary)?)?(?: part)?"
Z, V = r"(?:z|impedance)", r"(?:v|echo|signal|intensity|amplitude|trace)(?: ?\([tv]\))?"
OF = r"(?:{0}(?: of)?(?: ?[(\[{{]?{1}[)\]}}]?)?|{1} ?[(\[{{]?{0}[)\]}}]?)"
"""A part, of something or not: Re, Re(Z), Z_re, Z (real)."""
OF_A_TRACE = {
    "time": r"t|(?:dipolar )?(?:evolution )?time",
    "real part": rf"{OF.format(RE, V)}|{V}",
    "imaginary part": OF.format(IM, V),
}
"""What columns of traces are called, without sign and unit."""
OF_A_SPECTRUM = {
    "frequency": r"f|freq|frequency|frequencies|hz",
    "angular frequency": r"omega|ω|(?:angular|circular|radial) freq(?:uency)?|rad/s",
    "real part": rf"{OF.format(RE, Z)}|z'(?: ?\(a\))?",
    "imaginary part": rf"{OF.format(IM, Z)}|z''(?: ?\(b\))?",
    "modulus": rf"\|z\||{OF.format('(?:mod(?:ulus)?|mag(?:nitude)?|abs)', Z)}",
    "phase": OF.format(r"(?:phase|phi|theta|arg|phz|[φϕθ])(?: angle)?", Z),
}
"""What columns of spectra are called, without sign and unit."""
UNITS = {
    "frequency": ("Hz",),
    "angular frequency": ("rad/s",),
    "real part": ("ohm",),
    "imaginary part": ("ohm",),
    "modulus": ("ohm",),
    "phase": ("deg", "rad"),
}


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
    impedance: NDArray[Any]
    """(m,), in ohm: complex128, or float64 if the file holds one part alone, and that part was asked for."""


def read_trace(path: FilePath, *, time_unit: str | None = None) -> Trace:
    """Read a trace: Bruker's BES3T (.DTA beside .DSC), or a text file with columns.

    Parameters
    ----------
    path : str or path-like
        A text file has the columns time, real part and, if there is one, imaginary part: in this order without names,
        or in any order under names such as t or time; re, real, V or echo; im or imag.
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
    """Return times, their unit ("" if the file does not say it) and the echo of a table."""
    names, values = table
    if not names:
        if values.shape[1] > 3:
            raise Refused(
                "expected names of columns, or time, real and, if there is one, imaginary part; "
                f"received {values.shape[1]} columns without names"
            )
        return values[:, 0], "", values[:, 1] if values.shape[1] == 2 else values[:, 1] + 1j * values[:, 2]
    found = headings(names, OF_A_TRACE)
    if not {"time", "real part"} <= set(found):
        raise Refused(f"expected columns time, real and, if there is one, imag; received {', '.join(names)}")
    column = {}
    for quantity, those in found.items():
        heading = only(those, quantity)
        column[quantity] = heading.sign * values[:, heading.place]
    echo = column["real part"] + (1j * column["imaginary part"] if "imaginary part" in column else 0)
    unit = found["time"][0].unit
    return column["time"], "".join(unit_of(unit) or (unit,)), echo


def read_spectrum(path: FilePath, *, part: str = "both") -> Spectrum:
    """Read an impedance spectrum from a text file with columns.

    Without names the columns are frequency in Hz, real part and imaginary part in ohm. Names may be in any order: a
    frequency (f, freq) in Hz or an angular one (omega) in rad/s; Z' or Re(Z), Z" or Im(Z), also with a minus sign in
    front of it, as analysers write -Im(Z)/Ohm; or |Z| with a phase in deg or rad, which its name must say. Prefixes of
    units are n, u, m, k, M and G. Where a name has no unit, frequencies are in Hz and impedances in ohm. Other columns
    are passed over.

    The files of instruments that have more than a table in text are read by the package impedance:
    `impedance.preprocessing.readFile`.

    Parameters
    ----------
    path : str or path-like
    part : {"both", "real", "imag"}
        What has to be there. If the file holds this part alone, the impedance is an array of real numbers.

    Raises
    ------
    InputFormatError
        The file is damaged or missing, its columns are not these, or two of them hold the same, or have a unit that is
        unknown, or in which m cannot be told from M, as in mhz.
    """
    with naming(path, "impedance spectrum with frequency, real and imaginary part"):
        if part not in PARTS:
            raise Refused(f"expected part to be one of {', '.join(PARTS)}, received {part!r}")
        names, values = read_table(path)
        if names:
            return _spectrum_columns(names, values, part)
        if part != "both" and values.shape[1] == 2:
            return Spectrum(values[:, 0], values[:, 1])
        if values.shape[1] != 3:
            raise Refused(
                "expected names of columns, or three columns: frequency in Hz, real and imaginary part in ohm; "
                f"received {values.shape[1]} columns without names"
            )
        return Spectrum(values[:, 0], values[:, 1] + 1j * values[:, 2])


def _spectrum_columns(names: tuple[str, ...], values: FloatArray, part: str) -> Spectrum:
    """Return the spectrum of a table with names."""
    found = headings(names, OF_A_SPECTRUM)
    for heading in found.get("frequency", [])[:]:
        if (unit_of(heading.unit) or ("", ""))[1] == "rad/s":
            found["frequency"].remove(heading)
            found.setdefault("angular frequency", []).append(heading)

    def column(quantity: str) -> FloatArray:
        heading = only(found[quantity], quantity)
        return heading.sign * _factor(heading, quantity) * values[:, heading.place]

    if found.get("frequency"):
        frequency = column("frequency")
    elif "angular frequency" in found:
        frequency = column("angular frequency") / (2 * np.pi)
    else:
        raise Refused(f"expected a column with the frequency, for instance freq_Hz; received {', '.join(names)}")
    if {"real part", "imaginary part"} <= set(found):
        return Spectrum(frequency, column("real part") + 1j * column("imaginary part"))
    if {"modulus", "phase"} <= set(found):
        modulus, angle = column("modulus"), column("phase")
        return Spectrum(frequency, modulus * (np.cos(angle) + 1j * np.sin(angle)))
    for name, quantity in (("real", "real part"), ("imag", "imaginary part")):
        if quantity in found and part == name:
            return Spectrum(frequency, column(quantity))
        if quantity in found and part == "both":
            raise Refused(
                f"expected both parts, or part={name!r}, --part {name}, for the {quantity} alone; "
                f"received {', '.join(names)}"
            )
    raise Refused(
        "expected columns frequency, Z' and Z\", or frequency, |Z| and phase, not their logarithms, errors or "
        f"admittances; received {', '.join(names)}"
    )


def _factor(heading: Heading, quantity: str) -> float:
    """Return what a column has to be multiplied by: Hz, rad/s, ohm and radians come out."""
    prefix, base = unit_among(heading, UNITS[quantity])
    if quantity == "phase" and not base:
        raise Refused(f"expected the unit of column {heading.name} in its name, deg or rad; received none")
    return 10.0 ** EXPONENTS[prefix] * (np.pi / 180 if base == "deg" else 1.0)
