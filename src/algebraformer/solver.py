"""Solve with a network, and certify every answer: predict, refine, check in float64, fall back to LAPACK."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgWarning
from scipy.sparse.linalg import LinearOperator

from algebraformer import checkpoint, estimation, learned_answers
from algebraformer.checkpoint import CheckpointInfo
from algebraformer.errors import ConfigurationError, FallbackWarning, SingularSystemError, Status, warn_caller
from algebraformer.estimation import Estimate
from algebraformer.learned_answers import Answers, as_linear_operator
from algebraformer.linalg import EPS, has_zero_line
from algebraformer.models import Algebraformer, predict
from algebraformer.numerics import lapack
from algebraformer.result import SolveResult, scalar
from algebraformer.validation import CheckedSystem, check_count, check_system, check_tolerance, numbers, refuse_sparse

Array = NDArray[Any]
WORTH_A_WARNING = 0.1
"""Share of a batch answered by LAPACK from which a caller is warned that the network costs time."""


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
        return system.reshape_like_b(x)

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

    def operator(self, A: ArrayLike) -> LinearOperator | list[LinearOperator]:
        """Return the operator head's approximation M of inv(A), for instance as `M=` of scipy.sparse.linalg.gmres.

        Parameters
        ----------
        A : array_like, shape (n, n) or (B, n, n)
            Real.

        Returns
        -------
        scipy.sparse.linalg.LinearOperator, or list of B of them for a batch
            Shape (n, n), float64: linear, and the same map every time, with its adjoint (`rmatvec`, `.T`, `.H`), for
            real and complex vectors (n,) and blocks (n, k). One forward pass when it is made, O(n^2) per product.

        Raises
        ------
        ValueError
            A is not a square real matrix of the model's size or a batch of them, sparse, or not finite.
        ConfigurationError
            The model has another head, which is not linear in b.

        Notes
        -----
        The products carry float32's rounding, relative to their largest entry. Methods that keep the true residual
        b - A x, such as SciPy's gmres, bicgstab and gcrotmk or pyamg's fgmres, are not limited by it. A method that
        forms its residual in the preconditioned norm, M (b - A x), as pyamg.krylov.gmres does, stalls near 1e-5: start
        it again from its own answer, or use a flexible method.

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
        matrices = numbers(A, "A")
        if matrices.ndim not in (2, 3):
            raise ValueError(f"A must have shape (n, n) or (B, n, n), received {matrices.shape}")
        system = self._supported(check_system(matrices, np.zeros(matrices.shape[:-1])))
        inverse = self.model.approximate_inverse(system.A)
        operators = [as_linear_operator(inverse.take(np.array([i])), self.n) for i in range(len(system.A))]
        return operators if system.batched else operators[0]

    def solve(
        self,
        A: ArrayLike,
        b: ArrayLike,
        rtol: float | None = None,
        max_refinements: int = 10,
        fallback: bool = True,
    ) -> SolveResult:
        """Solve A x = b: the network's answer, refined until certified, or LAPACK's.

        The network answers systems that look like its family. With a token head, refinement is
        x <- x + network(A, b - A x) with the residual in float64; it stops when the certificate holds, when the
        backward error no longer falls, or after `max_refinements`. With an operator head, which is linear in b, the
        same products give the iterates of generalised conjugate residuals (`classical.conjugate_residuals`), and it
        stops likewise.

        Parameters
        ----------
        A : array_like, shape (n, n) or (B, n, n)
            Real or complex; never modified. Complex systems and sizes the model does not support go to LAPACK.
        b : array_like, shape (n,), (n, k), (B, n) or (B, n, k)
            (B, n) beside a batch A is one right-hand side per system.
        rtol : float, optional
            A caller who needs less than the certificate of `linalg.is_certified` gives a tolerance on
            ||b - A x|| / ||b||: then a residual of that size is enough.
        max_refinements : int
            Largest number of refinements of the learned answer.
        fallback : bool
            Give systems that do not look like the family, or that the network cannot solve, to LAPACK. If False,
            nothing is factorised and the network's best answer is returned; it is not certified then.

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
            of the others. LAPACK's elimination decides; a row or column of zeros always counts.
        ConfigurationError
            The model estimates from noisy systems, or its family has no systems: use `estimate`, or `predict`.

        Warns
        -----
        LinAlgWarning
            LAPACK factorised A and it is ill-conditioned to working precision, as in scipy.linalg.solve.
        FallbackWarning
            LAPACK answered a tenth of a batch or more that the model should cover: slower than LAPACK alone.
        """
        self._refuse_others()
        rtol = None if rtol is None else check_tolerance(rtol, "rtol")
        max_refinements = check_count(max_refinements, "max_refinements")
        system = check_system(A, b)
        supported = system.n == self.n and system.b.dtype.kind == "f"
        if not (supported or fallback):
            kind = "real" if system.b.dtype.kind == "f" else "complex"
            raise ValueError(
                f"the model supports real systems with n = {self.n}, received {kind} ones with n = {system.n}"
            )

        # 1. The network answers what looks like its family; without a fallback, everything.
        answers = Answers.unanswered(system.b)
        if supported:
            answers = learned_answers.answer(
                self.model, system.A, system.b, rtol, max_refinements, everything=not fallback
            )
        singular = has_zero_line(system.A) if system.b.size else np.zeros(len(system.b), dtype=bool)
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
            whole = left.size == len(system.b)
            solution = lapack.solve(*((system.A, system.b) if whole else (system.A[left], system.b[left])), rtol)
            answers.assign(left, solution)
            status[left[~solution.certified]] = Status.INACCURATE
            rcond[left], singular[left] = solution.rcond, solution.singular
            status[singular] = Status.SINGULAR

        # 3. What has to be said.
        _warn_ill_conditioned(rcond, singular, system.batched)
        if supported:
            _warn_of_fallbacks(status, system.batched)
        fields = {
            "status": status,
            "method": method,
            "refinements": answers.refinements,
            "backward_error": answers.omega,
            "relative_residual": answers.relative,
            "certified": answers.certified,
            "forward_error": answers.forward_error,
            "rcond": rcond,
            "in_distribution": answers.in_distribution,
        }
        shaped = {name: value if system.batched else scalar(value[0]) for name, value in fields.items()}
        result = SolveResult(system.reshape_like_b(answers.x), **shaped)
        if singular.any():
            raise SingularSystemError(np.flatnonzero(singular).tolist(), system.batched, result)
        return result


def _warn_of_fallbacks(status: Array, batched: bool) -> None:
    """Warn once per call where LAPACK answered a large share of a batch, with the remedy."""
    outside = sum(s is Status.OUT_OF_DISTRIBUTION for s in status)
    count = outside + sum(s in (Status.FALLBACK, Status.INACCURATE) for s in status)
    if batched and len(status) > 1 and count >= WORTH_A_WARNING * len(status):
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
    rtol: float | None = None,
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
    rtol : float, optional
        As in `LearnedSolver.solve`.

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
    for array in (a, b):
        refuse_sparse(array)
    A, B = np.asarray(a), np.asarray(b)
    masked = np.ma.isMaskedArray(a) or np.ma.isMaskedArray(b)  # SciPy refuses these
    real = A.dtype.kind in "biuf" and B.dtype.kind in "biuf" and not masked
    solver = loaded(model)
    solver._refuse_others()
    square = A.ndim >= 2 and A.shape[-2:] == (solver.n, solver.n) and A.size > 0
    rows = B.ndim >= 1 and B.size > 0 and B.shape[-min(B.ndim, 2)] == solver.n
    if not (real and square and rows and assume_a in (None, "gen", "general")) or transposed:
        return scipy.linalg.solve(a, b, lower, overwrite_a, overwrite_b, check_finite, assume_a, transposed)
    x = _solve_stacked(solver, A, B[:, None] if B.ndim == 1 else B, rtol)
    single = np.result_type(A, B).kind == "f" and np.result_type(A, B).itemsize <= 4
    return (x[..., 0] if B.ndim == 1 else x).astype(np.float32 if single else np.float64, copy=False)


def _solve_stacked(solver: LearnedSolver, A: Array, b: Array, rtol: float | None) -> Array:
    """Return x (..., n, k) for stacks of matrices and right-hand sides that broadcast; no matrix is copied for them.

    Axes along which A has one matrix for many right-hand sides become columns of b.
    """
    n, k = b.shape[-2:]
    stack = np.broadcast_shapes(A.shape[:-2], b.shape[:-2])
    matrices = (1,) * (len(stack) - A.ndim + 2) + A.shape[:-2]
    shared = [axis for axis, length in enumerate(matrices) if length == 1]
    own = [axis for axis, length in enumerate(matrices) if length > 1]
    if 0 in matrices:
        return np.empty((*stack, n, k))
    order = (*own, len(stack), *shared, len(stack) + 1)  # systems, rows, columns
    columns = np.broadcast_to(b, (*stack, n, k)).transpose(order)
    right = columns.reshape(*(stack[axis] for axis in own), n, -1)
    if own:
        x = solver.solve(A.reshape(-1, n, n), right.reshape(-1, n, right.shape[-1]), rtol).x
    else:
        x = solver.solve(A.reshape(n, n), right, rtol).x
    return np.ascontiguousarray(x.reshape(columns.shape).transpose(np.argsort(order)))
