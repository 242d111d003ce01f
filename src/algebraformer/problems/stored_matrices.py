"""Families of stored matrices, which were measured or computed by another program."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from algebraformer.errors import ConfigurationError
from algebraformer.problems.base import (
    CALIBRATION_SEED,
    TEST_SEED,
    VALIDATION_SEED,
    Parameters,
    ProblemFamily,
    real,
    register,
)
from algebraformer.problems.sampling import FloatArray

HELD_OUT = 0.2
"""Share of the matrices that are held out: half of them for tests, half for validation and calibration."""
MIN_MATRICES = 10
"""Least number of different matrices: one for tests, one for validation and calibration, eight to learn from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredFamily(ProblemFamily):
    """Systems whose matrices are stored, with standard normal right-hand sides; `stored` makes such a family.

    A tenth of the matrices is drawn for the test set alone, a tenth for the validation set and the calibration, the
    other eight tenths for everything else, in particular for training. The split depends on the bytes of the matrices,
    not on their order. Duplicates count once.
    """

    sha256: str = ""
    """Hash of all matrices. It is stored in checkpoints, so that a network is not tested on its training matrices after
    the matrices have changed."""

    stored: ClassVar[FloatArray]
    """The different matrices, shape (N, n, n), in the order of their hashes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        expected: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(self)}
        if self.n != expected["n"]:
            raise ConfigurationError(f"the matrices of {self.name} have n = {expected['n']}, received n = {self.n}")
        if self.sha256 != expected["sha256"]:
            raise ConfigurationError(
                f"the matrices of {self.name} have changed: their hash is {expected['sha256']:.12}..., "
                f"expected {self.sha256!r:.14}...; train a new model, in a new folder"
            )

    def part(self, seed: int) -> FloatArray:
        """Return the matrices that systems of this seed are drawn from: held out for the frozen sets."""
        size = max(1, round(HELD_OUT / 2 * len(self.stored)))
        if seed == TEST_SEED:
            return self.stored[:size]
        if seed in (VALIDATION_SEED, CALIBRATION_SEED):
            return self.stored[size : 2 * size]
        return self.stored[2 * size :]

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw the position of the matrix, as a fraction of the number of matrices, and b."""
        return {"share": rng.random(), "b": rng.standard_normal(self.n)}

    def parameters(self, indices: Sequence[int] | NDArray[np.int64], seed: int = 0) -> Parameters:
        """Draw matrices and right-hand sides of the systems at these indices."""
        drawn, matrices = super().parameters(indices, seed), self.part(seed)
        chosen = (drawn["share"] * len(matrices)).astype(np.int64)
        return {"A": matrices[chosen], "b": drawn["b"]}

    def assemble(self, params: Parameters) -> tuple[FloatArray, FloatArray]:
        return params["A"], params["b"]


def stored(matrices: ArrayLike, name: str) -> ProblemFamily:
    """Return a family of stored matrices, registered under a name.

    Training draws from eight tenths of the matrices. The others are held out for the scores, the calibration and the
    report on whether the network is worth it.

    Parameters
    ----------
    matrices : array_like, shape (N, n, n)
        At least ten different ones.
    name : str
        Name of the family in checkpoints. To sample the family in another process, call `stored` with the same matrices
        first.

    Returns
    -------
    ProblemFamily

    Raises
    ------
    ConfigurationError
        Wrong shape, too few different matrices, entries that are complex or not finite, or a name that is taken.

    Examples
    --------
    >>> import numpy as np
    >>> from algebraformer.problems import stored
    >>> rng = np.random.default_rng(0)
    >>> pipes = stored([np.eye(4) + 0.1 * rng.standard_normal((4, 4)) for _ in range(50)], "pipes")
    >>> pipes.n, pipes.sample(3, seed=0).A.shape
    (4, (3, 4, 4))
    """
    A = real(matrices, "matrices")
    if A.ndim != 3 or A.shape[1] != A.shape[2] or not A.size:
        raise ConfigurationError(f"matrices must have shape (N, n, n), received {A.shape}")
    if not (finite := np.isfinite(A).all(axis=(1, 2))).all():
        raise ConfigurationError(f"matrices must be finite, received NaN or infinity in number {int(finite.argmin())}")
    by_hash = {hashlib.sha256(matrix.tobytes()).hexdigest(): matrix for matrix in A}
    if len(by_hash) < MIN_MATRICES:
        raise ConfigurationError(f"expected at least {MIN_MATRICES} different matrices, received {len(by_hash)}")
    hashes = sorted(by_hash)
    body: dict[str, Any] = {
        "__doc__": f"{len(hashes)} stored matrices of size {A.shape[1]}.",
        "__module__": __name__,
        "__annotations__": {"n": "int", "sha256": "str"},
        "n": A.shape[1],
        "sha256": hashlib.sha256("".join(hashes).encode()).hexdigest(),
        "stored": np.stack([by_hash[key] for key in hashes]),
    }
    cls: type[ProblemFamily] = type(name, (StoredFamily,), body)
    return register(name)(dataclasses.dataclass(frozen=True, kw_only=True)(cls))()
