"""Solve with a network, and certify every answer: predict, refine, check in float64, fall back to LAPACK."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgWarning
from scipy.sparse.linalg import LinearOperator

from algebraformer import checkpoint, estimation
from algebraformer.checked_input import CheckedSystem, check_count, check_system, check_tolerance
from algebraformer.checkpoint import CheckpointInfo
from algebraformer.classical import conjugate_residuals, direct
from algebraformer.classical.refinement import RESTARTS
from algebraformer.errors import ConfigurationError, SingularSystemError, Status
from algebraformer.estimation import Estimate
from algebraformer.linalg import EPS, has_zero_line, is_certified, measures
from algebraformer.models import Algebraformer, predict, systems_at_once
from algebraformer.result import SolveResult, scalar

Array = NDArray[Any]
RTOL = 1e-10
UNDERSTOOD = 0.5
"""An operator head understands A if M A leaves at most this share of a random vector: singular matrices leave more."""


@dataclasses.dataclass
class _Answers:
    """Working state for B systems with k right-hand sides."""

    x: Array  # (B, n, k)
    relative: NDArray[np.float64]  # (B,)
    omega: NDArray[np.float64]  # (B,)
    certified: NDArray[np.bool_]  # (B,)
    r: Array  # (B, n, k)

    @classmethod
    def measured(cls, A: Array, b: Array, x: Array, rtol: float) -> _Answers:
        relative, omega, r = measures(A, b, x)
        certified = np.all(is_certified(relative, omega, A.shape[-1], rtol), axis=-1)
        return cls(x, relative.max(axis=-1, initial=0.0), omega.max(axis=-1, initial=0.0), certified, r)

    @classmethod
    def joined(cls, parts: list[_Answers]) -> _Answers:
        """Put the systems of several batches into one."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(cls)))

    def put(self, where: Array, other: _Answers, chosen: Array) -> None:
        """Replace the systems where[chosen] by other[chosen]."""
        for field in dataclasses.fields(self):
            getattr(self, field.name)[where[chosen]] = getattr(other, field.name)[chosen]


class LearnedSolver:
    """A network that solves one family of systems, and the certificate around it.

    Parameters
    ----------
    model : Algebraformer
        In evaluation mode.
    info : CheckpointInfo
        Name, family and scores of the model.

    Examples
    --------
    >>> import algebraformer as af
    >>> solver = af.LearnedSolver.from_pretrained("diffusion-64")
    >>> systems = af.problems.get("diffusion", n=64).sample(3, seed=1)
    >>> result = solver.solve(systems.A, systems.b)
    >>> result.x.shape, bool(result.certified.all())
    ((3, 64), True)
    """

    def __init__(self, model: Algebraformer, info: CheckpointInfo) -> None:
        self.model, self.info = model, info

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, device: str = "cpu") -> LearnedSolver:
        """Load a shipped model by name (`pretrained_names()`), a checkpoint folder, or a training run's folder.

        The network answers once before it is returned: the first call in a process takes several times as long as the
        later ones, since torch and BLAS prepare what they need when they are first asked.

        Raises
        ------
        UnknownNameError
            Neither a shipped name nor a folder.
        CheckpointError
            The checkpoint is damaged, altered or not one of ours.
        """
        model, info = checkpoint.load(checkpoint.resolve(name_or_folder))
        solver = cls(model.to(device), info)
        with np.errstate(all="ignore"):  # the answer does not matter
            solver.predict(np.eye(solver.model.config.n_equation, solver.n), np.ones(solver.model.config.n_equation))
        return solver

    @property
    def n(self) -> int:
        """Number of unknowns of the systems the model supports."""
        return self.model.config.n

    def __repr__(self) -> str:
        return f"LearnedSolver({self.info.name!r}, n={self.n}, parameters={self.model.parameter_count()})"

    def predict(self, A: ArrayLike, b: ArrayLike) -> Array:
        """Return the bare network's answer, neither refined nor certified; of an estimate head the mean.

        Parameters
        ----------
        A : array_like, shape (n, n) or (B, n, n)
        b : array_like, shape (n,), (n, k), (B, n) or (B, n, k)
            (B, n) beside a batch A is one right-hand side per system. For an estimate head A may have m rows; b then
            has as many.

        Returns
        -------
        ndarray, float64, in the shape of b

        Raises
        ------
        ValueError
            Shapes do not match, entries are not finite or not real, or the model does not support this n.
        """
        if self.model.config.head == "estimate":
            return estimation.mean(self.model, A, b)
        system = self._supported(check_system(A, b))
        x = predict(self.model, system.A, system.b)
        if x.shape != system.b.shape:
            raise ConfigurationError("the model's output does not have the shape of b")
        return system.restored(x)

    def estimate(self, A: ArrayLike, b: ArrayLike) -> Estimate:
        """Estimate x from noisy b = A x + e, with a standard deviation for every entry.

        Parameters
        ----------
        A : array_like, shape (m, n) or (B, m, n)
            Real, of the size the model was trained for; never modified.
        b : array_like, shape (m,), (m, k), (B, m) or (B, m, k)
            Every right-hand side is a system of its own.

        Returns
        -------
        Estimate

        Raises
        ------
        ValueError
            Shapes do not match or are not the model's, entries are NaN, infinite, complex or not numbers.
        ConfigurationError
            The model has no estimate head.

        Warns
        -----
        InconsistentWarning
            An estimate does not fit b to the noise level that the network sees; Tikhonov's answer stands beside it.

        Examples
        --------
        >>> import algebraformer as af
        >>> systems = af.problems.get("deblur", n=64).sample(3, seed=7)
        >>> found = af.LearnedSolver.from_pretrained("deblur-64").estimate(systems.A, systems.b)
        >>> found.x.shape, found.std.shape, found.noise.shape
        ((3, 64), (3, 64), (3,))
        """
        return estimation.estimate(self.model, A, b)

    def _refuse_others(self) -> None:
        """Raise `ConfigurationError` if the model does not solve systems."""
        if purpose := self.info.instead_of_solving(self.model.config.head):
            raise ConfigurationError(f"the model {self.info.name} {purpose}")

    def _supported(self, system: CheckedSystem) -> CheckedSystem:
        """Return the system if the network reads such systems, else raise ValueError."""
        if system.b.dtype.kind == "c":
            raise ValueError("the network reads real systems, received complex numbers: use solve")
        if system.n != self.n:
            raise ValueError(f"the model supports n = {self.n}, received n = {system.n}: use solve, which falls back")
        return system

    def operator(self, A: ArrayLike) -> LinearOperator:
        """Return the operator head's approximation of inv(A), for instance as `M=` of scipy.sparse.linalg.gmres.

        Parameters
        ----------
        A : array_like, shape (n, n)

        Returns
        -------
        scipy.sparse.linalg.LinearOperator
            Shape (n, n), float64: linear, and the same map every time. One forward pass when it is made, O(n^2) per
            product. Its products carry float32's rounding, relative to their largest entry.

        Raises
        ------
        ValueError
            A is not one square real matrix of the model's size, or not finite.
        ConfigurationError
            The model has another head, which is not linear in b.

        Examples
        --------
        >>> import algebraformer as af
        >>> from scipy.sparse.linalg import gmres
        >>> system = af.problems.get("diffusion", n=64).sample(1, seed=1)
        >>> solver = af.LearnedSolver.from_pretrained("diffusion-64")
        >>> x, info = gmres(system.A[0], system.b[0], M=solver.operator(system.A[0]), rtol=1e-8)
        >>> info
        0
        """
        self._refuse_others()
        matrix = np.asarray(A)
        if matrix.ndim != 2:
            raise ValueError(f"operator needs one matrix of shape (n, n), received {matrix.shape}")
        system = self._supported(check_system(matrix, np.zeros(matrix.shape[-1])))
        inverse = self.model.approximate_inverse(system.A)

        def matmat(b: Array) -> Array:
            return inverse(np.asarray(b, dtype=np.float64).reshape(1, self.n, -1))[0]

        return LinearOperator(
            system.A.shape[1:], matvec=lambda b: matmat(b).reshape(np.shape(b)), matmat=matmat, dtype=np.float64
        )

    def solve(
        self, A: ArrayLike, b: ArrayLike, rtol: float = RTOL, max_refinements: int = 10, fallback: bool = True
    ) -> SolveResult:
        """Solve A x = b: the network's answer, refined until certified, or LAPACK's.

        With a token head, refinement is x <- x + network(A, b - A x) with the residual in float64; it stops when the
        certificate holds, when the backward error no longer falls, or after `max_refinements`. With an operator head,
        which is linear in b, the same products give the iterates of generalised conjugate residuals
        (`classical.conjugate_residuals`), and it stops likewise.

        Parameters
        ----------
        A : array_like, shape (n, n) or (B, n, n)
            Real or complex; never modified. Complex systems and sizes the model does not support go to LAPACK.
        b : array_like, shape (n,), (n, k), (B, n) or (B, n, k)
            (B, n) beside a batch A is one right-hand side per system.
        rtol : float
            Tolerance on ||b - A x|| / ||b||.
        max_refinements : int
            Largest number of refinements of the learned answer.
        fallback : bool
            Give systems that the network cannot solve to LAPACK. If False, its best answer is returned uncertified.

        Returns
        -------
        SolveResult

        Raises
        ------
        ValueError
            Shapes do not match, entries are NaN, infinite or not numbers; the message names A or b. Also for a
            size that the model does not support when fallback is False.
        SingularSystemError
            A `LinAlgError`: one or more systems are exactly singular; it names their indices and carries the result
            of the others. LAPACK's elimination decides, also for what the network solved outside its family; a row or
            column of zeros always counts.
        ConfigurationError
            The model estimates from noisy systems, or its family has no systems: use `estimate`, or `predict`.

        Warns
        -----
        LinAlgWarning
            LAPACK factorised A and it is ill-conditioned to working precision, as in scipy.linalg.solve.
        """
        self._refuse_others()
        rtol, max_refinements = check_tolerance(rtol, "rtol"), check_count(max_refinements, "max_refinements")
        system = check_system(A, b)
        supported = system.n == self.n and system.b.dtype.kind == "f"
        if not (supported or fallback):
            kind = "real" if system.b.dtype.kind == "f" else "complex"
            raise ValueError(
                f"the model supports real systems with n = {self.n}, received {kind} ones with n = {system.n}"
            )
        answers, refinements, correction, familiar = self._learned(system, rtol, max_refinements if supported else -1)
        singular, rcond = _checked_for_singularity(system, answers.certified & ~familiar)
        answers.certified[singular] = False
        method = np.where(refinements > 0, "learned+refined", "learned").astype(object)
        status = np.full(len(system.b), Status.UNCERTIFIED if supported else Status.UNSUPPORTED, dtype=object)
        status[answers.certified] = Status.LEARNED
        status[answers.certified & (refinements > 0)] = Status.REFINED
        if (left := np.flatnonzero(~answers.certified if fallback else singular)).size:
            method[left] = "lapack"
            status[left] = Status.FALLBACK if supported else Status.UNSUPPORTED
            solution = direct.solve(system.A[left], system.b[left], rtol)
            answers.put(left, _Answers.measured(system.A[left], system.b[left], solution.x, rtol), np.arange(left.size))
            correction[left] = solution.correction
            status[left[~answers.certified[left]]] = Status.INACCURATE
            rcond[left], singular[left] = solution.rcond, solution.singular
            status[singular] = Status.SINGULAR
        _warn_ill_conditioned(rcond, system.batched)
        fields = (
            status, method, refinements, answers.omega, answers.relative, answers.certified, correction, familiar,
        )  # fmt: skip
        result = SolveResult(system.restored(answers.x), *(f if system.batched else scalar(f[0]) for f in fields))
        if singular.any():
            raise SingularSystemError(np.flatnonzero(singular).tolist(), system.batched, result)
        return result

    def _learned(self, system: CheckedSystem, rtol: float, limit: int) -> tuple[_Answers, Array, Array, Array]:
        """Predict, and refine up to `limit` times; limit -1 does not ask the network.

        Returns the answers, refinements (B,), the size of the last correction (B,) and whether a system looks like the
        family (B,).
        """
        A, b = system.A, system.b
        if limit < 0 or b.size == 0:
            answers = _Answers.measured(A, b, np.full_like(b, np.nan), rtol)
            answers.certified &= limit >= 0  # nothing was learned, even where there is nothing to solve
            return answers, np.zeros(len(b), dtype=int), np.full(len(b), np.nan), np.zeros(len(b), dtype=bool)
        if self.model.config.head == "operator":
            step = systems_at_once(system.n)
            parts = [self._accelerated(A[i : i + step], b[i : i + step], rtol, limit) for i in range(0, len(b), step)]
            return _Answers.joined([part[0] for part in parts]), *(
                np.concatenate(column) for column in list(zip(*parts, strict=True))[1:]
            )  # type: ignore[return-value]
        return self._repeated(A, b, rtol, limit)

    def _repeated(self, A: Array, b: Array, rtol: float, limit: int) -> tuple[_Answers, Array, Array, Array]:
        """Refine a token head's answers by asking it again about the residual, while the backward error falls."""
        refinements, correction = np.zeros(len(b), dtype=int), np.full(len(b), np.nan)
        x = predict(self.model, A, b)
        misshapen = x.shape != b.shape
        answers = _Answers.measured(A, b, np.full_like(b, np.nan) if misshapen else x, rtol)
        if misshapen:
            answers.certified[:] = False
        active = np.flatnonzero(~answers.certified & np.isfinite(answers.x).all(axis=(1, 2)))
        for count in range(1, limit + 1):
            if not active.size:
                break
            step = predict(self.model, A[active], answers.r[active])
            if step.shape != answers.r[active].shape:
                break
            with np.errstate(over="ignore", invalid="ignore"):
                new = _Answers.measured(A[active], b[active], answers.x[active] + step, rtol)
            better = new.certified | (new.omega < answers.omega[active])
            for i in np.flatnonzero(np.isfinite(step).all(axis=(1, 2))):
                correction[active[i]] = direct.relative_size(step[i], answers.x[active[i]])
            answers.put(active, new, better)
            refinements[active[better]] = count
            active = active[better & ~new.certified]
        return answers, refinements, correction, self._familiar(A)

    def _familiar(self, A: Array) -> Array:
        """Say which systems are no further from the middle of a token head's family than its sample was."""
        scaler = self.model.scaler
        step, found = systems_at_once(A.shape[-1]), []
        for i in range(0, len(A), step):
            part = torch.from_numpy(A[i : i + step].copy()).to(scaler.reach.device)
            found.append((scaler.distance(part) <= scaler.reach).numpy(force=True))
        return np.concatenate(found)

    def _accelerated(self, A: Array, b: Array, rtol: float, limit: int) -> tuple[_Answers, Array, Array, Array]:
        """Refine an operator head's answers by generalised conjugate residuals, again from the true residual if needed.

        Right-hand sides are divided by a power of two near their size, which rounds nothing.
        """
        head = self.model.operator_head
        largest = np.abs(b).max(axis=1, keepdims=True, initial=0.0)
        unit = np.exp2(np.floor(np.log2(np.where(largest > 0, largest, 1.0))))
        inverse = self.model.approximate_inverse(A)
        found = conjugate_residuals.solve(A, b / unit, inverse, rtol, limit + 1)  # its first step is the bare answer
        refinements, correction = np.maximum(found.steps - 1, 0), found.last
        with np.errstate(over="ignore"):
            answers = _Answers.measured(A, b, found.x * unit, rtol)
        familiar = head.is_familiar(A, found.first)
        going = ~answers.certified & (found.steps > 1) & (refinements < limit)
        for _ in range(RESTARTS):  # the updated residual drifts from the true one: go on from the latter
            left = np.flatnonzero(going)
            if not left.size:
                break
            again = conjugate_residuals.solve(
                A[left], b[left] / unit[left], inverse.take(left), rtol, limit, answers.x[left] / unit[left]
            )
            with np.errstate(over="ignore"):
                new = _Answers.measured(A[left], b[left], again.x * unit[left], rtol)
            better = new.certified | (new.omega < answers.omega[left])
            answers.put(left, new, better)
            refinements[left] = np.minimum(refinements[left] + again.steps, limit)
            correction[left[better]] = again.last[better]
            going[left] = better & ~new.certified & (refinements[left] < limit)
        familiar &= conjugate_residuals.share_left(A, inverse) <= UNDERSTOOD
        return answers, refinements, correction, familiar


def _checked_for_singularity(system: CheckedSystem, unfamiliar: Array) -> tuple[Array, Array]:
    """Return which systems (B,) are exactly singular, as far as it was looked at, and rcond (B,), NaN where it was not.

    A row or column of zeros is looked for in all of them. LAPACK factorises those that the network solved and that do
    not look like its family: where b lies in the range of a singular A, no residual tells.
    """
    rcond = np.full(len(system.b), np.nan)
    if system.b.size == 0:
        return np.zeros(len(system.b), dtype=bool), rcond
    singular = has_zero_line(system.A)
    where = np.flatnonzero(unfamiliar & ~singular)
    rcond[where], singular[where] = direct.conditions(system.A, where)
    return singular, rcond


def _warn_ill_conditioned(rcond: Array, batched: bool) -> None:
    """Warn as scipy.linalg.solve does, in words that start as its own, naming the systems."""
    poor = np.flatnonzero((rcond > 0) & (rcond < EPS))
    if poor.size:
        named = ", ".join(f"system {i} of the batch has rcond = {rcond[i]:.3g}" for i in poor[:5])
        named = (named if batched else f"rcond = {rcond[0]:.3g}") + (", ..." if poor.size > 5 else "")
        text = f"An ill-conditioned matrix detected: {named}; x may not be accurate."
        warnings.warn(text, LinAlgWarning, stacklevel=3)


_loaded = functools.lru_cache(maxsize=8)(LearnedSolver.from_pretrained)


def loaded(model: str | Path | LearnedSolver) -> LearnedSolver:
    """Return a solver as it is, or the one of that name or folder, loaded once per process."""
    return _loaded(model) if isinstance(model, (str, Path)) else model


def solve(
    a: ArrayLike,
    b: ArrayLike,
    lower: bool = False,
    overwrite_a: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
    assume_a: str | None = None,
    transposed: bool = False,
    *,
    model: str | Path | LearnedSolver = "diffusion-64",
    rtol: float = RTOL,
) -> Array:
    """Solve a x = b like `scipy.linalg.solve`, with a learned solver where it applies.

    General real systems of the model's size go through `LearnedSolver.solve`: the network's answer where it can be
    certified, LAPACK's where not. Everything else (other sizes, complex numbers, `assume_a` other than None and
    "general", `transposed`) goes to `scipy.linalg.solve` unchanged.

    Parameters
    ----------
    a : array_like, shape (..., n, n)
    b : array_like, shape (n,) or (..., n, k)
    lower, overwrite_a, overwrite_b, check_finite, assume_a, transposed
        As in `scipy.linalg.solve`. The learned path never overwrites its input and always checks that it is finite.
    model : str, Path or LearnedSolver
        Name of a shipped model, folder of a checkpoint, or a solver. Loaded once per process.
    rtol : float
        Tolerance of the certificate, on ||b - a x|| / ||b||.

    Returns
    -------
    ndarray
        x, in the shape and dtype that `scipy.linalg.solve` returns.

    Raises
    ------
    ValueError
        Shapes do not match, or NaN or infinity in the input.
    LinAlgError
        A system is singular; in a batch the message names which.

    Examples
    --------
    >>> import algebraformer as af
    >>> import numpy as np
    >>> af.solve(np.array([[2.0, 0.0], [0.0, 4.0]]), np.ones(2))
    array([0.5 , 0.25])
    """
    A, B = np.asarray(a), np.asarray(b)
    masked = np.ma.isMaskedArray(a) or np.ma.isMaskedArray(b)  # SciPy refuses these
    real = A.dtype.kind in "biuf" and B.dtype.kind in "biuf" and not masked
    solver = loaded(model)
    solver._refuse_others()
    square = A.ndim >= 2 and A.shape[-2:] == (solver.n, solver.n) and A.size > 0
    rows = B.ndim >= 1 and B.size > 0 and B.shape[-min(B.ndim, 2)] == solver.n
    if not (real and square and rows and assume_a in (None, "gen", "general")) or transposed:
        return scipy.linalg.solve(a, b, lower, overwrite_a, overwrite_b, check_finite, assume_a, transposed)
    columns = B[:, None] if B.ndim == 1 else B
    batch = np.broadcast_shapes(A.shape[:-2], columns.shape[:-2])
    stacked_A = np.broadcast_to(A, batch + A.shape[-2:]).reshape(-1, *A.shape[-2:])
    stacked_b = np.broadcast_to(columns, batch + columns.shape[-2:]).reshape(-1, *columns.shape[-2:])
    if batch:
        x = solver.solve(stacked_A, stacked_b, rtol).x.reshape(batch + columns.shape[-2:])
    else:
        x = solver.solve(stacked_A[0], stacked_b[0], rtol).x
    single = np.result_type(A, B).kind == "f" and np.result_type(A, B).itemsize <= 4
    return (x[..., 0] if B.ndim == 1 else x).astype(np.float32 if single else np.float64, copy=False)
