"""How an operator head answers: coefficients of the inverse in a basis of the family, and how far to trust it."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from algebraformer.arrays import namespace
from algebraformer.linalg import FloatArray
from algebraformer.models.config import ModelConfig
from algebraformer.models.inference.reader import BATCH_SIZE, Arrays, Forward, Reader, max_batch_size
from algebraformer.models.inference.reading import MatrixReading
from algebraformer.models.inference.stored_basis import Layout, from_arrays, layout
from algebraformer.models.scaling import DISTANCE_MARGIN
from algebraformer.numerics import gcr, sine_tiles
from algebraformer.numerics.entry_sampler import Entries
from algebraformer.numerics.forward_error import MAX_DEFECT
from algebraformer.numerics.operator_basis import OperatorBasis
from algebraformer.numerics.preconditioner import LinearInverse
from algebraformer.progress import ProgressCallback, batches, silent

DEFECT_MARGIN = 4.0
"""Vectors unlike the family's right-hand sides leave a larger share than these: 2 to 5 times, random ones and A x with
random x, on the shipped families (LOG.md, 2026-11-26)."""
TYPICAL_QUANTILE = 0.999
"""Share of a sample whose first residuals count as typical of the family: the largest of thousands is several times
larger, enough to take matrices from elsewhere for the family's own."""


class InverseForm(Protocol):
    """A form of the learned inverse: the basis itself, or what takes fewer operations."""

    def inverse_of(self, c: NDArray[np.floating], scaling: FloatArray, /) -> LinearInverse:
        """Return the approximate inverses of B matrices from coefficients c (B, R) and their sizes or scalings."""


def distance_of(z: FloatArray) -> FloatArray:
    """Return the root mean square (B,) of z-scored entries z (B, q, m): how far a matrix is from the family's mean."""
    xp = namespace(z)
    return xp.sqrt(xp.mean(z**2, axis=(1, 2)))


class OperatorReader(Reader):
    """Reads entries of A, asks the network for coefficients, and makes approximate inverses of them.

    Attributes
    ----------
    basis : OperatorBasis or LowRankBasis
        Without its metric, which training alone needs.
    typical : ndarray, shape (R,), float32
        Typical size of each coefficient: the network gives multiples of these.
    max_distance : float
        How far from the family's mean a matrix may be.
    max_first_residual : float
        Largest share of L b that the approximate inverses leave of systems of the family.
    """

    def __init__(self, config: ModelConfig, buffers: Arrays) -> None:
        super().__init__(config, buffers)
        self.is_complex = config.head.kind == "c"
        self.basis = from_arrays(buffers)
        typical = (self.basis.coefficient_rms * self.basis.scale).astype(np.float32)
        self.typical = np.repeat(typical, 2) if self.is_complex else typical  # of real and imaginary part
        self.max_distance = float(buffers["max_distance"])
        self.max_first_residual = float(buffers["max_first_residual"])

    @staticmethod
    def buffers(config: ModelConfig) -> Layout:
        """Return shape and dtype of every buffer: a basis, and limits."""
        limits: Layout = {"max_distance": ((), np.float64), "max_first_residual": ((), np.float64)}
        return layout(config) | limits

    @functools.cached_property
    def form(self) -> InverseForm:
        """What `inverse_of` goes by; chosen at the first use."""
        tiled = sine_tiles.compress(self.basis) if isinstance(self.basis, OperatorBasis) else None
        return tiled or self.basis

    def distance(self, A: FloatArray) -> FloatArray:
        """Return the root mean square (B,) of the z-scores of the entries that are read of A (B, n, n)."""
        return distance_of(self.basis.sampler(A)[0])

    def max_defect(self) -> float:
        """Return the largest share of L b, or of a random vector, that M A may leave of a matrix in distribution."""
        typical = DEFECT_MARGIN * self.max_first_residual
        return min(MAX_DEFECT, typical) if np.isfinite(typical) else 0.0

    def inverse_of(self, c: NDArray[np.floating], scaling: FloatArray) -> LinearInverse:
        """Return the approximate inverses of B matrices from coefficients c (B, R) and what `basis.read` returns."""
        return self.form.inverse_of(c, scaling)

    def coefficients(self, forward: Forward, z: FloatArray) -> NDArray[np.floating]:
        """Return the coefficients (B, R) from what is read (B, q, m)."""
        tokens = z.reshape(len(z), self.config.n_token, -1).astype(np.float32)
        parts = [forward(tokens[i : i + BATCH_SIZE])[0] * self.typical for i in range(0, len(z), BATCH_SIZE)]
        c = parts[0] if len(parts) == 1 else np.concatenate([np.empty((0, self.typical.size), np.float32), *parts])
        return c.view(np.complex64) if self.is_complex else c

    def inverse_and_distance(self, forward: Forward, A: Entries) -> tuple[LinearInverse, FloatArray]:
        """Return the approximate inverses of A (B, n, n) and how far (B,) each matrix is from the family's mean."""
        with np.errstate(over="ignore", invalid="ignore"):  # of matrices beyond float64
            z, scaling = self.basis.read(A)
            return self.inverse_of(self.coefficients(forward, z), scaling), distance_of(z)

    def read_inverse(self, forward: Forward, A: Entries) -> LinearInverse:
        return self.inverse_and_distance(forward, A)[0]

    def predict(self, forward: Forward, A: FloatArray, b: FloatArray) -> FloatArray:
        """Return x (B, n, k); every matrix is read once for all its right-hand sides."""
        step, parts = max_batch_size(A.shape[2]), []
        with np.errstate(over="ignore", invalid="ignore"):  # of answers beyond float64
            for i in range(0, len(b), step):
                parts.append(self.read_inverse(forward, A[i : i + step])(b[i : i + step]))
        return np.concatenate(parts) if parts else np.empty(b.shape)

    def read_matrices(self, forward: Forward, A: FloatArray) -> MatrixReading:
        """Read matrices; in distribution are those near the mean on which the approximate inverse is good."""
        inverse, distance = self.inverse_and_distance(forward, A)
        defect, max_defect = gcr.probe_defect(A, inverse), self.max_defect()
        near = (distance <= self.max_distance) & (defect <= max_defect)
        return MatrixReading(A, near, lambda A, b: self.predict(forward, A, b), inverse, defect, max_defect)


class Assembled(Protocol):
    """A family of systems, see `problems.ProblemFamily`."""

    @property
    def n(self) -> int:
        """Number of unknowns."""

    def assembled(self, indices: range, seed: int = 0) -> tuple[FloatArray, FloatArray, Any]:
        """Return A, b and the parameters of the systems at these indices, without solving them."""


class Limits(NamedTuple):
    """What tells matrices of the family from others, see `OperatorReader`."""

    max_distance: float
    max_first_residual: float


def limits(
    reader: OperatorReader,
    forward: Forward,
    family: Assembled,
    count: int,
    seed: int,
    report: ProgressCallback = silent,
) -> Limits:
    """Measure the largest distance in a sample of a family, and the first residuals that are typical of it.

    A random vector counts as a first residual too: see `OperatorReader.max_defect`.

    Parameters
    ----------
    reader, forward
        The head, and the network's pass.
    family, count, seed
        The sample.
    report : callable
        Called with the number of systems that are done and the number in all.
    """
    distance, first, defect = [], [], []
    for part in batches(count, max(1, min(256, 2**24 // family.n**2))):
        A, b, _ = family.assembled(part, seed)
        distance.append(reader.distance(A).max())
        inverse = reader.read_inverse(forward, A)
        first.append(gcr.solve(A, b[:, :, None], inverse, rtol=0.0, maxiter=1).first_residual_ratio)
        defect.append(gcr.probe_defect(A, inverse))
        report(part.stop, count)
    typical, random = (float(np.quantile(np.concatenate(s), TYPICAL_QUANTILE)) for s in (first, defect))
    return Limits(DISTANCE_MARGIN * float(max(distance)), DISTANCE_MARGIN * max(typical, random / DEFECT_MARGIN))
