"""Relaxation times from impedance: spectra in, distributions of relaxation times out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from algebraformer.arrays import join_parts, kind_of, split_parts
from algebraformer.instruments.classical import Classical, fit_drt
from algebraformer.instruments.given import as_numbers, as_real, check_ascending, check_shapes
from algebraformer.instruments.inversion import Inversion, Model, interpolated
from algebraformer.linalg import FloatArray
from algebraformer.models.inference.inversion_reader import Inversions, Reading
from algebraformer.problems.instruments.base import Recorded

Array = NDArray[Any]
PARTS = ("both", "real", "imag")
"""Parts of an impedance that may be known."""
MOSTLY = 0.8
"""More points than this share with a positive imaginary part are no inductive loop, but another sign."""
UNSEEN = ("inductance", "series_capacitance")
"""Nuisance parameters that a real part alone says nothing of."""
AGREEING = 1.25
"""Factor to which the integral of x and that of the samples agree. For one simulated spectrum in 200 they do not, and
for resistors, inductors and capacitors without an arc the factor is above 1.3."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(16)
"""Of Gauss's rule for means over a normal distribution; weights add up to the root of 2 pi."""


@dataclasses.dataclass(frozen=True)
class DrtInversion(Inversion):
    """Relaxation times from a spectrum, or from B spectra at the same frequencies.

    x is gamma(ln tau) in ohm on `tau` (s); its integral over ln tau is the polarisation resistance. Nuisance parameters
    are R_inf (ohm), inductance (H) and series_capacitance (F, infinite where none is seen); the last two are NaN where
    the real part alone is known, which does not determine them. `abscissa` holds frequencies in ascending order, `data`
    the impedances. The other fields are those of `Inversion`.
    """

    grid_name: ClassVar[str] = "tau"
    units: ClassVar[Mapping[str, str]] = {"R_inf": "ohm", "inductance": "H", "series_capacitance": "F"}

    @property
    def tau(self) -> FloatArray:
        """Relaxation times in s, shape (n,)."""
        return self.grid


class DrtModel(Model):
    """A network that inverts impedance spectra."""

    result = DrtInversion

    def __call__(self, frequency_hz: ArrayLike, impedance: ArrayLike, part: str = "both") -> Inversion:
        """Invert spectra; see `instruments.drt`."""
        kind = kind_of(impedance=impedance)
        f, Z = as_spectra(frequency_hz, impedance, part)
        batched, Z = Z.ndim == 2, np.atleast_2d(Z)
        data = split_parts(Z, axis=1)
        present = np.ones(data.shape[1], dtype=bool)
        if part != "both":
            present[len(f) :] = part == "imag"
            present[: len(f)] = part == "real"
            data = np.where(present, data, 0.0)
        found = self.invert(Recorded(f, data, present), Z if batched else Z[0], batched)
        if part == "real":
            nothing = {name: np.full_like(found.nuisance[name], np.nan)[()] for name in UNSEEN}
            found = dataclasses.replace(
                found, nuisance=found.nuisance | nothing, nuisance_std=found.nuisance_std | nothing
            )
        return found.as_kind(kind)

    def outside(
        self, recorded: Recorded, reading: Reading, found: Inversions, nuisance: Mapping[str, FloatArray]
    ) -> dict[str, NDArray[np.bool_]]:
        """Say what is unlike the training; of the integral, whether x and the samples disagree about it."""
        x = found.x.mean(axis=1)
        samples = sum(w * interpolated(found.quantiles, z).mean(axis=1) for z, w in zip(NODES, WEIGHTS, strict=True))
        ratio = samples / WEIGHTS.sum() / np.maximum(x, np.finfo(float).tiny)
        return super().outside(recorded, reading, found, nuisance) | {
            "integral": np.abs(np.log(ratio)) > np.log(AGREEING)
        }

    def shown(self, data: FloatArray) -> Array:
        found: Array = join_parts(data)
        return found

    def classical(self, recorded: Recorded, data: Array, grid: FloatArray) -> Classical:
        found = fit_drt(recorded.abscissa, data, grid, recorded.present)
        if recorded.present[-1]:
            return found
        return dataclasses.replace(found, nuisance=found.nuisance | dict.fromkeys(UNSEEN, np.nan))


def as_spectra(frequency_hz: ArrayLike, impedance: ArrayLike, part: str) -> tuple[FloatArray, Array]:
    """Return ascending frequencies and impedances as arrays; `ValueError` says what is wrong with them."""
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, received {part!r}")
    f, Z = as_real(frequency_hz, "frequency_hz"), as_numbers(impedance, "impedance")
    if part == "both" and Z.dtype.kind != "c" and Z.size:
        raise ValueError(
            "impedance must be complex, received real numbers: say part='real' or part='imag' for one part"
        )
    if part == "imag" and Z.dtype.kind != "c":
        Z = 1j * Z
    Z = Z.astype(np.complex128)

    # 1. In ascending order; analysers begin at the highest frequency.
    check_shapes(f, Z, "frequency_hz", "impedance")
    if f[0] > f[-1]:
        f, Z = f[::-1], Z[..., ::-1]
    check_ascending(f, "frequency_hz")
    if f[0] <= 0:
        raise ValueError(f"frequency_hz must be positive, received {f[0]:g}")

    # 2. Parts that are not there, and signs: what relaxes has a positive real and a negative imaginary part.
    for row, z in enumerate(np.atleast_2d(Z)):
        where = f" in row {row}" if Z.ndim == 2 else ""
        if part != "imag" and np.mean(z.real < 0) > MOSTLY:
            raise ValueError(
                f"the real part is negative at {np.count_nonzero(z.real < 0)} of {len(f)} points{where}, but positive "
                "for whatever relaxes: is this -Z, or are the two parts exchanged?"
            )
        for kind, values in (("real", z.real), ("imag", z.imag)):
            if part in ("both", kind) and not values.any():
                raise ValueError(
                    f"impedance has a part {kind!r} that is zero throughout{where}: give the other as part="
                )
        if part != "real" and np.sum(z.imag) > 0 and np.mean(z.imag > 0) > MOSTLY:
            raise ValueError(
                f"the imaginary part is positive at {np.count_nonzero(z.imag > 0)} of {len(f)} points{where}, but "
                "negative for whatever relaxes: if this is -Im(Z), take the complex conjugate; if Im(Z) is that of an "
                "inductance, there is nothing that relaxes"
            )
    return np.ascontiguousarray(f), np.ascontiguousarray(Z)
