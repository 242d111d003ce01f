"""LAPACK's own test matrices: DLATMS and DLATM1 of the library libtmglib3, by ctypes.

`python tests/dlatms.py > tests/dlatms.json` made the frozen vectors, with Debian's libtmglib3 3.11.0-2.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import json
from typing import Any

import numpy as np

SIZES, MODES, KAPPAS = (1, 2, 5, 8), (1, 2, 3, 4), (1.0, 37.0, 1e4, 1e8)
CASES = list(itertools.product(SIZES, MODES, KAPPAS, (False, True)))


def library() -> ctypes.CDLL | None:
    """Return the library, or None where it is not installed."""
    name = ctypes.util.find_library("tmglib")
    return None if name is None else ctypes.CDLL(name)


def dlatms(n: int, mode: int, kappa: float, spd: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix (n, n) and the singular values (n,) that DLATMS makes, the largest one 1."""
    tmglib = library()
    if tmglib is None:
        raise OSError("libtmglib is not installed")
    integer, real = ctypes.c_int, ctypes.c_double
    A, d, work = np.zeros((n, n), order="F"), np.zeros(n), np.zeros(3 * n)
    seed, info = np.array([1, 2, 3, 5], dtype=np.intc), integer(-99)

    def at(array: np.ndarray) -> ctypes.c_void_p:
        return ctypes.c_void_p(array.ctypes.data)

    def by(value: Any) -> Any:
        return ctypes.byref(value)

    size, band = integer(n), integer(n - 1)
    letters = [ctypes.c_char_p(letter) for letter in (b"N", b"P" if spd else b"N", b"N")]  # DIST, SYM, PACK
    tmglib.dlatms_(
        by(size), by(size), letters[0], at(seed), letters[1], at(d), by(integer(mode)), by(real(kappa)), by(real(1.0)),
        by(band), by(band), letters[2], at(A), by(size), at(work), by(info), *(ctypes.c_size_t(1) for _ in letters),
    )  # fmt: skip
    if info.value:
        raise ValueError(f"DLATMS: INFO = {info.value}")
    return A, d


def frozen() -> list[dict[str, Any]]:
    """Return all cases; the matrix of one size alone."""
    found = []
    for n, mode, kappa, spd in CASES:
        A, d = dlatms(n, mode, kappa, spd)
        case = {"n": n, "mode": mode, "kappa": kappa, "spd": spd, "d": d.tolist()}
        found.append(case | ({"A": A.tolist()} if n == 5 else {}))
    return found


if __name__ == "__main__":
    print("[", ",\n".join(json.dumps(case) for case in frozen()), "]", sep="\n")
