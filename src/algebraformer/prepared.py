"""Matrices that a network has read once, solved for any number of right-hand sides, with certificate and fallback."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgWarning

from algebraformer.arrays import NUMPY, Kind, check_kind, host, is_complex, namespace, needs_gradient
from algebraformer.batch import Batch, solve_block
from algebraformer.errors import FallbackWarning, SingularSystemError, Status, warn_caller
from algebraformer.linalg import EPS, FloatArray
from algebraformer.models.config import ModelConfig
from algebraformer.models.inference.answers import AnyNetwork
from algebraformer.models.inference.reader import not_linear
from algebraformer.models.inference.reading import MatrixReading
from algebraformer.numerics import lapack
from algebraformer.numerics.lapack import LogDeterminant
from algebraformer.numerics.preconditioner import ArrayOperator, LinearInverse, as_linear_operator
from algebraformer.passes import all_finite, has_zero_line
from algebraformer.result import SolveResult, scalar
from algebraformer.threads import run, split
from algebraformer.validation import CheckedSystem, check_count, check_finite, check_tolerance, match_right_hand_sides

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

    from algebraformer.models.device import DeviceNetwork

Array = NDArray[Any]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]
Result = TypeVar("Result")

FALLBACK_WARNING_SHARE = 0.1
"""Share of a batch answered by LAPACK from which a caller is warned that the network costs time."""


KINDS = {"f": "real", "c": "complex"}
"""Kinds of numbers by NumPy's letters."""


def kind_of_numbers(A: Array) -> str:
    """Return "c" for complex arrays, "f" for real ones."""
    return "c" if is_complex(A) else "f"


def check_supported(A: Array, config: ModelConfig) -> None:
    """Raise `ValueError` unless a network of this configuration reads matrices like A (B, n, n)."""
    kind, n = config.head.kind, config.n
    if kind_of_numbers(A) != kind:
        received = KINDS[kind_of_numbers(A)]
        raise ValueError(f"the network reads {KINDS[kind]} systems, received {received} numbers: use solve")
    if A.shape[-1] != n:
        raise ValueError(f"the model supports n = {n}, received n = {A.shape[-1]}: use solve, which falls back")


class Prepared:
    """A matrix A (n, n), or a batch (B, n, n), that a network has read; made by `LearnedSolver.prepare`.

    It holds a copy of A, which every certificate is computed from, so that changes of the caller's array have no
    effect, and one of A^T if transposed systems were solved; with an operator head the approximate inverses, in float32
    (half the memory of A, less where they are compressed); and LAPACK's factors of those matrices that needed them for
    an earlier right-hand side.
    """

    def __init__(
        self,
        network: AnyNetwork | DeviceNetwork,
        A: Array,
        batched: bool,
        kind: Kind = NUMPY,
        keep: bool = True,
        assume_a: str = "gen",
    ) -> None:
        """`kind` is that of the caller's arrays; `keep` is False for one solve, for which nothing is copied or kept.

        Entries of A may be NaN or infinite: this or the first method that is called raises `ValueError` then.
        """
        self._network, self._batched, self._keep, self._assume_a = network, batched, keep, assume_a
        self._kind = kind
        self._A = namespace(A).asarray(A, copy=True) if keep else A
        self._readings: dict[tuple[int, bool], MatrixReading] = {}  # by first system, and whether of A^T
        self._factors: dict[tuple[str, int], lapack.Factors | None] = {}  # by kind of numbers, and position in A
        self._zero_lines: Flags | None = None
        self._blocks = network.blocks(len(A))  # what one thread works on at a time
        if not self._supports(A):
            self._check_finite()
        elif keep:
            self._run(self._reading)

    def __repr__(self) -> str:
        return f"Prepared(shape={self._A.shape if self._batched else self._A.shape[1:]})"

    @property
    def in_distribution(self) -> Any:
        """Whether A looks like the family the network was trained on: bool, or an array (B,) for a batch.

        By A alone: with an operator head `SolveResult.in_distribution` also depends on how well M A gives back b. False
        where the model does not cover such matrices.
        """
        flags = np.zeros(len(self._A), dtype=bool)
        if self._supports(self._A):
            for rows in self._blocks:
                flags[rows] = self._reading(rows).in_distribution
        return flags if self._batched else bool(flags[0])

    @property
    def operator(self) -> LinearOperator | ArrayOperator | list[LinearOperator] | list[ArrayOperator]:
        """A linear head's approximation M of inv(A), a SciPy LinearOperator, or a list of B of them for a batch.

        Of arrays of another library an `ArrayOperator`, which has the same methods for vectors of that library.

        See `LearnedSolver.operator`.

        Raises
        ------
        ValueError
            A is not of the model's size or kind of numbers.
        ConfigurationError
            The model has a head that is not linear in b.
        """
        check_supported(self._A, self._network.config)
        if not self._keep:
            self._check_finite()
        operators: list[Any] = []
        for rows in self._blocks:
            A = self._A[rows]
            # For one call the inverse alone: what solving measures of it, a product with A, is not needed.
            inverse = self._reading(rows).inverse if self._keep else self._network.approximate_inverse(A)
            if inverse is None:
                raise not_linear(self._network)
            operators += [self._as_operator(inverse[i : i + 1]) for i in range(len(A))]
        return operators if self._batched else operators[0]

    def solve(
        self,
        b: ArrayLike,
        rtol: float | None = None,
        max_refinements: int = 10,
        fallback: bool = True,
        transpose: bool = False,
    ) -> SolveResult:
        """Solve A x = b, or A^T x = b; arguments, result, errors and warnings are those of `LearnedSolver.solve`.

        Parameters
        ----------
        b : array_like, shape (n,), (n, k), (B, n) or (B, n, k)
            (B, n) for a batch A is one right-hand side per system.
        rtol, max_refinements, fallback, transpose
            See `LearnedSolver.solve`.

        Returns
        -------
        SolveResult
        """
        rtol = None if rtol is None else check_tolerance(rtol, "rtol")
        max_refinements = check_count(max_refinements, "max_refinements")
        check_kind(self._kind, "A", b=b)
        if needs_gradient(b):
            from algebraformer.autograd.solve import Matrices, solve  # which needs torch

            A = self._kind.array(self._A if self._batched else self._A[0])
            return solve(Matrices(lambda _: self, self), A, b, rtol, max_refinements, fallback, transpose)
        system = match_right_hand_sides(self._A, self._batched, self._right_hand_sides(b))
        supported = self._supports(system.A)
        if transpose and supported and not self._network.config.head.is_linear:
            if not fallback:
                raise not_linear(self._network)
            supported = False
        if not (supported or fallback):
            config = self._network.config
            raise ValueError(
                f"the model supports {KINDS[config.head.kind]} systems with n = {config.n}, received "
                f"{KINDS[kind_of_numbers(system.A)]} ones with n = {system.n}"
            )

        # 1. The network answers what looks like its family; without a fallback, everything.
        if supported:
            answers = self._solve_blocks(system.b, rtol, max_refinements, not fallback, transpose)
        else:
            answers = Batch.unanswered(system.b)
        singular = self._has_zero_line() if math.prod(system.b.shape) else np.zeros(len(system.b), dtype=bool)
        # A small backward error does not show that A is singular or nearly so. For matrices like those of the family
        # training and probe do; every other A has to be factorised, which LAPACK's errors and warnings come from.
        answers.certified &= answers.in_distribution & ~singular
        status = np.full(len(system.b), Status.UNCERTIFIED, dtype=object)
        status[answers.certified] = Status.LEARNED
        status[answers.certified & (answers.refinements > 0)] = Status.REFINED
        method = np.where(answers.refinements > 0, "learned+refined", "learned").astype(object)

        # 2. LAPACK answers the rest.
        rcond = np.full(len(system.b), np.nan)
        if (left := np.flatnonzero(~answers.certified if fallback else singular)).size:
            method[left] = "lapack"
            status[left] = Status.UNSUPPORTED
            if supported:
                known = answers.in_distribution[left]
                status[left[known]], status[left[~known]] = Status.FALLBACK, Status.OUT_OF_DISTRIBUTION
            solution = self._factorised(left, system, rtol, singular[left], transpose)
            answers.assign(left, solution)
            status[left[~solution.certified]] = Status.INACCURATE
            rcond[left], singular[left] = solution.rcond, solution.singular
            status[singular] = Status.SINGULAR

        # 3. Warnings, and the result in the caller's shapes.
        _warn_ill_conditioned(rcond, singular, system.batched)
        if supported:
            _warn_of_fallbacks(status, system.batched)
        fields = {"status": status, "method": method, "rcond": rcond} | vars(answers)
        x = self._kind.array(system.reshape_like_b(fields.pop("x")))
        shaped = {name: value if system.batched else scalar(value[0]) for name, value in fields.items()}
        result = SolveResult(x, **shaped)
        if singular.any():
            raise SingularSystemError(np.flatnonzero(singular).tolist(), system.batched, result)
        return result

    def logdet(self) -> LogDeterminant:
        """Return sign and logarithm of the determinant of A, as numpy.linalg.slogdet does, by LAPACK's factors.

        What has not been factorised yet is factorised, and the factors are kept for `solve`.

        Returns
        -------
        LogDeterminant
            sign and logabsdet, with arrays of shape (B,) for a batch.

        Examples
        --------
        >>> import algebraformer as af
        >>> system = af.problems.get("kernel", n=64).sample(1, seed=1)
        >>> prepared = af.LearnedSolver.from_pretrained("diffusion-64").prepare(system.A[0], assume_a="pos")
        >>> bool(np.isclose(prepared.logdet().logabsdet, np.linalg.slogdet(system.A[0]).logabsdet))
        True
        """
        matrices = host(self._A)
        sign, size = np.ones(len(matrices), dtype=matrices.dtype), np.zeros(len(matrices))

        def measure(systems: slice) -> None:
            for i, A in enumerate(matrices[systems], systems.start):
                key = (A.dtype.kind, i)
                factors = self._factors.get(key) or lapack.Factors.of(A, self._assume_a)
                self._factors[key] = factors
                sign[i], size[i] = factors.logdet()

        if matrices.size:  # the determinant of no entries is 1
            run(measure, split(len(sign), matrices[0].size, len(sign)))
        return LogDeterminant(sign, size) if self._batched else LogDeterminant(scalar(sign[0]), scalar(size[0]))

    def _as_operator(self, inverse: LinearInverse) -> LinearOperator | ArrayOperator:
        """Return an approximate inverse of one matrix as an operator on the caller's kind of vectors."""
        n = self._A.shape[-1]
        if self._kind == NUMPY:
            return as_linear_operator(inverse, n, self._A.dtype)
        return ArrayOperator((n, n), inverse, is_complex(self._A), self._kind, self._right_hand_sides)

    def _right_hand_sides(self, b: Any) -> Any:
        """Return the caller's b where A is: as a NumPy array, or as a tensor on a GPU."""
        if isinstance(self._A, np.ndarray):
            return self._kind.numpy(b)
        from algebraformer.models.device import as_tensor  # loads torch

        return as_tensor(b)

    def _supports(self, A: Array) -> bool:
        """Say whether the network reads such matrices."""
        return A.shape[-1] == self._network.config.n and kind_of_numbers(A) == self._network.config.head.kind

    def _run(self, task: Callable[[slice], Result]) -> list[Result]:
        """Return task(rows) for all blocks: by several threads on the host, one after the other on a GPU."""
        return run(task, self._blocks) if isinstance(self._A, np.ndarray) else [task(rows) for rows in self._blocks]

    def _reading(self, rows: slice, transpose: bool = False) -> MatrixReading:
        """Return what the network knows of a block, or of its transposes."""
        reading = self._readings.get((rows.start, transpose))
        if reading is None:
            reading = self._reading(rows).transposed() if transpose else self._read(rows)
            if self._keep:
                self._readings[rows.start, transpose] = reading
        return reading

    def _read(self, rows: slice) -> MatrixReading:
        """Return what the network knows of a block; `ValueError` if an entry of A is NaN or infinite."""
        A = self._A[rows]
        with np.errstate(all="ignore"):
            reading = self._network.read(A)
        # The probe is multiplied by all of A, and what is left of it is less than one only if every product is finite:
        # the matrices of a family need no other pass to be checked.
        if (reading.defect is None or not (reading.defect < 1).all()) and not all_finite(A):
            self._check_finite()
        return reading

    def _check_finite(self) -> None:
        """Raise `ValueError` if an entry of A is NaN or infinite."""
        check_finite(self._A if self._batched else self._A[0], "A")

    def _has_zero_line(self) -> Flags:
        """Return which matrices (B,) have a row or a column of zeros: an array that the caller may change."""
        if self._zero_lines is None:
            self._zero_lines = has_zero_line(self._A)
        return self._zero_lines.copy()

    def _solve_blocks(
        self, b: FloatArray, rtol: float | None, maxiter: int, everything: bool, transpose: bool
    ) -> Batch:
        """Return the network's refined answers to systems that look like the family, or to everything.

        Certified by their measures alone, whether in distribution or not.
        """
        if 0 in b.shape:
            self._check_finite()
            return Batch.empty(b)

        def solve(rows: slice) -> Batch:
            return solve_block(self._reading(rows, transpose), b[rows], rtol, maxiter, everything)

        return Batch.concatenate(self._run(solve))

    def _factorised(
        self, where: Indices, system: CheckedSystem, rtol: float | None, singular: Flags, transpose: bool
    ) -> lapack.DirectSolution:
        """Return LAPACK's answers to the systems `where`, with their factors from earlier calls."""
        whole = where.size == len(system.b)
        A, b = (part if whole else part[where] for part in (system.A, system.b))
        # What no network reads has been checked already; a head of one's own may say of its probe what is not so.
        if self._supports(A) and not all_finite(A):
            self._check_finite()
        if (factorised := getattr(self._network, "factorised", None)) is not None:
            return cast(lapack.DirectSolution, factorised(A, b, rtol, singular, transpose))
        if not self._keep:
            return lapack.solve(A, b, rtol, singular, None, self._assume_a, transpose)
        keys = [(A.dtype.kind, int(i)) for i in where]
        factors = [self._factors.get(key) for key in keys]
        solution = lapack.solve(A, b, rtol, singular, factors, self._assume_a, transpose)
        self._factors.update(zip(keys, factors, strict=True))
        return solution


def _warn_of_fallbacks(status: Array, batched: bool) -> None:
    """Warn once per call where LAPACK answered a large share of a batch, with the remedy."""
    outside = sum(s is Status.OUT_OF_DISTRIBUTION for s in status)
    count = outside + sum(s in (Status.FALLBACK, Status.INACCURATE) for s in status)
    if batched and len(status) > 1 and count >= FALLBACK_WARNING_SHARE * len(status):
        warn_caller(
            f"LAPACK answered {count} of {len(status)} systems ({count / len(status):.0%}), {outside} of them out of "
            "distribution, which takes longer than scipy.linalg.solve alone: train or finetune a model on such systems",
            FallbackWarning,
        )


def _warn_ill_conditioned(rcond: Array, singular: Array, batched: bool) -> None:
    """Warn as scipy.linalg.solve does, in words that start as its own, naming the systems."""
    poor = np.flatnonzero((rcond < EPS) & ~singular)
    if poor.size:
        named = ", ".join(f"system {i} of the batch has rcond = {rcond[i]:.3g}" for i in poor[:5])
        named = (named if batched else f"rcond = {rcond[0]:.3g}") + (", ..." if poor.size > 5 else "")
        warn_caller(f"An ill-conditioned matrix detected: {named}; x may not be accurate.", LinAlgWarning)
