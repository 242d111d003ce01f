"""Bruker's format BES3T: a text file .DSC that describes, and a binary file .DTA that holds one-dimensional data.

Reference
---------
Bruker BioSpin, "Xepr User's Manual", 2011, appendix "BES3T". Keys: XPTS, XMIN, XWID and XUNI (number of points, first
one, width and unit of the axis), XTYP (IDX: equally spaced, IGD: the points are in a file .XGF), IKKF (REAL or CPLX),
IRFMT (format of the numbers: D float64, F float32, I int32, S int16, C int8) and BSEQ (BIG or LIT).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algebraformer.io.limits import FilePath, Refused, open_file
from algebraformer.linalg import FloatArray

FORMATS = {"D": "f8", "F": "f4", "I": "i4", "S": "i2", "C": "i1"}
ORDERS = {"BIG": ">", "LIT": "<"}
MAX_POINTS = 2**20
MAX_DESCRIPTION = 2**20
"""Largest description in bytes: those of spectrometers have some ten thousand."""


def read(path: FilePath) -> tuple[FloatArray, str, NDArray[Any]]:
    """Return the axis (m,), its unit and the data (m,), float64 or complex128, of one-dimensional data.

    Parameters
    ----------
    path : str or path-like
        The .DSC or the .DTA file; the other one lies beside it.

    Raises
    ------
    Refused
        A key is missing or has a value that is not supported, or the data are not as long as it says.
    OSError
        A file is missing.
    """
    path = Path(path)
    settings = _description(_beside(path, ".DSC"))
    for key in ("YTYP", "ZTYP"):
        if settings.get(key, "NODATA") != "NODATA":
            raise Refused(f"expected data with one axis, received {key} {settings[key]}")
    try:
        points = int(_value(settings, "XPTS"))
        start, width = float(_value(settings, "XMIN")), float(_value(settings, "XWID"))
    except ValueError:
        raise Refused("expected numbers for XPTS, XMIN and XWID") from None
    if not 2 <= points <= MAX_POINTS:
        raise Refused(f"expected from 2 to {MAX_POINTS} points, received XPTS {points}")
    order = ORDERS[_choice(settings, "BSEQ", ORDERS)]
    kind = _choice(settings, "IKKF", ("REAL", "CPLX"))
    data = _numbers(_beside(path, ".DTA"), order + FORMATS[_choice(settings, "IRFMT", FORMATS)], points, kind == "CPLX")
    if _choice(settings, "XTYP", ("IDX", "IGD")) == "IDX":
        axis = np.linspace(start, start + width, points)
    else:
        form = FORMATS[_choice(settings, "XFMT", FORMATS)]
        axis = _numbers(_beside(path, ".XGF"), order + form, points, False)
    return axis, settings.get("XUNI", "").strip("'\" ").lower(), data


def _description(path: Path) -> dict[str, str]:
    """Return the keys of a description and their values."""
    with open_file(path, "description (.DSC)") as stream:
        text = stream.read(MAX_DESCRIPTION).decode("latin-1")
    settings: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition("\t") if "\t" in line else line.strip().partition(" ")
        if key.isupper() and not key.startswith(("*", "#", ".")):
            settings.setdefault(key, value.strip())
    return settings


def _value(settings: dict[str, str], key: str) -> str:
    """Return the value of a key that has to be there."""
    if key not in settings:
        raise Refused(f"expected the key {key} in the description, received none")
    return settings[key]


def _choice(settings: dict[str, str], key: str, choices: Any) -> str:
    """Return the value of a key that has to be one of the choices."""
    value = _value(settings, key).split(",")[0].strip().upper()
    if value not in choices:
        raise Refused(f"expected {key} to be one of {', '.join(choices)}, received {value}")
    return value


def _beside(path: Path, suffix: str) -> Path:
    """Return the file of that name with another suffix, whatever the case of its letters."""
    wanted = path.stem.lower() + suffix.lower()
    found = (other for other in path.parent.iterdir() if other.name.lower() == wanted) if path.parent.is_dir() else ()
    other = next(iter(sorted(found)), None)
    if other is None:
        raise Refused(f"expected the file {path.stem}{suffix} beside it, found none")
    return other


def _numbers(path: Path, dtype: str, points: int, is_complex: bool) -> NDArray[Any]:
    """Return that many numbers of a binary file, as float64 or complex128."""
    size = points * (1 + is_complex) * np.dtype(dtype).itemsize
    with open_file(path, "file of binary numbers") as stream:
        data = stream.read(size + 1)
    if len(data) != size:
        received = "more" if len(data) > size else str(len(data))
        raise Refused(f"expected {size} bytes of {dtype} in {path.name}, received {received}")
    values = np.frombuffer(data, dtype).astype(np.float64)
    return values.view(np.complex128) if is_complex else values
