"""Which form of the inverse a family's systems are solved fastest with: dense operators, tiles of them, or low rank.

Every form is computed from a sample of the family, and other systems are solved with it and their exact coefficients:
that counts the steps until the answers are certified. What a step and the making of an inverse cost follows from the
operations and the memory that they take, at rates that are measured once: unlike seconds on a machine that does other
work as well, these are the same every time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.models.config import Form
from algebraformer.numerics import gcr, low_rank_fit, operator_basis, sine_tiles
from algebraformer.numerics.operator_basis import OperatorBasis
from algebraformer.numerics.preconditioner import Preconditioner
from algebraformer.numerics.sine_tiles import TiledOperators
from algebraformer.problems import ProblemFamily
from algebraformer.problems.base import SPECTRUM_SEED
from algebraformer.progress import ProgressCallback, silent

BYTES_PER_SECOND = 15e9
"""One thread reads matrices of a batch from memory at this rate (LOG.md, 2026-11-27, as the next four)."""
DOUBLE_FLOPS, SINGLE_FLOPS = 45e9, 80e9
"""Operations per second of one thread in products with shared matrices, in float64 and in float32."""
STEP_SECONDS, STEP_SECONDS_PER_ROW = 4e-6, 4.5e-8
"""What a step of the iteration takes beside its products: calls, and operations with vectors."""
RANKS = (16, 32, 64, 96, 128, 192, 256)
"""Numbers of components that are tried."""
SHAPES = ((32, 1), (32, 2), (64, 1), (64, 2), (64, 4), (128, 1))
"""Ranks p and numbers J of row terms that are tried."""
FORMS_MIN_N = 96
"""Below this n the operators are dense: forming and applying them costs no more than the calls of a step."""
DENSE_SAMPLES_PER_COMPONENT = 2
"""Samples per component, at least, that dense operators are computed from for the choice."""
LOW_RANK_SAMPLES, MIN_LOW_RANK_SAMPLES = 512, 128
"""Samples that the low-rank form is computed from for the choice, and least number of them for n above 724."""
MAX_DENSE_BYTES = 2**26
"""Dense operators that take more than this in a checkpoint are not tried; training takes about thirty times as much."""
MAX_LOW_RANK_BYTES = 10 * 2**20
"""The same of the low-rank form: with the network, a checkpoint is below 12 MB at n = 1024."""
HELD_OUT, FIRST_HELD_OUT = 16, 2**20
"""Systems that steps are counted on: the mean over so many is within half a step. They come behind all that a form is
computed from."""
MAX_REFINEMENTS = 10
"""A system that needs more is factorised: the default of `LearnedSolver.solve`."""
EQUAL = 1.02
"""Forms whose time differs by less than this factor are equal, and the one with fewer coefficients is taken."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A form of the inverse and what solving with it takes.

    Attributes
    ----------
    form, rank, p, row_terms
        As in `models.OperatorConfig`.
    tiled : bool
        Whether tiles stand for the dense operators.
    steps : float
        Mean number of products with A until an answer is certified, with exact coefficients.
    certified : float
        Share of the systems that need no factorisation.
    seconds : float
        Estimated time per system in a large batch, on one thread: inverse, steps, and factorisations where needed.
    """

    form: Form
    rank: int
    p: int = 0
    row_terms: int = 0
    tiled: bool = False
    steps: float = 0.0
    certified: float = 0.0
    seconds: float = 0.0

    def settings(self) -> dict[str, Any]:
        """Return the settings of an operator head of this form."""
        return {"form": self.form, "rank": self.rank, "p": self.p, "row_terms": self.row_terms}


def fastest(candidates: Sequence[Candidate]) -> Candidate:
    """Return the fastest form, the one with the fewest coefficients of those that are equal.

    Examples
    --------
    >>> slow, fast = (Candidate(form="dense", rank=r, seconds=t) for r, t in ((64, 2e-3), (128, 1e-3)))
    >>> similar = Candidate(form="dense", rank=96, seconds=1.01e-3)
    >>> fastest([slow, fast, similar]).rank
    96
    """
    limit = EQUAL * min(candidate.seconds for candidate in candidates)
    return min((found for found in candidates if found.seconds <= limit), key=lambda found: (found.rank, found.seconds))


def candidates(family: ProblemFamily, most: int, n_read: int, report: ProgressCallback = silent) -> list[Candidate]:
    """Return the forms that are possible, and what they take.

    Parameters
    ----------
    family : ProblemFamily
    most : int
        Largest number of components.
    n_read : int
        Number of rows and columns of A that are read.
    report : callable
        Called with the number of samples drawn so far and the number in all, once for each kind of form.

    Examples
    --------
    >>> from algebraformer import problems
    >>> dense = candidates(problems.get("diffusion", n=24), 32, 8)
    >>> [(found.form, found.rank, found.certified) for found in dense]
    [('dense', 16, 1.0), ('dense', 32, 1.0)]
    """
    n = family.n
    A, b, _ = family.assembled(range(FIRST_HELD_OUT, FIRST_HELD_OUT + HELD_OUT), SPECTRUM_SEED)
    ranks = sorted({min(rank, most) for rank in RANKS})
    fitting = [rank for rank in ranks if dense_bytes(n, rank) <= MAX_DENSE_BYTES]
    found = list(_dense(family, A, b, fitting, n_read, report)) if fitting else []
    if n >= FORMS_MIN_N:
        try:
            found += _low_rank(family, A, b, ranks, n_read, report)
        except ConfigurationError:  # scaled by their diagonals, the matrices have a singular mean
            if not found:
                raise
    return found


def dense_bytes(n: int, rank: int) -> int:
    """Return the size of dense operators in a checkpoint."""
    lead = min(rank, operator_basis.LEADING)
    return n**2 * (8 + 4 + 4 * lead + 2 * (rank - lead))


def low_rank_bytes(n: int, rank: int, p: int, row_terms: int) -> int:
    """Return the size of the low-rank form in a checkpoint."""
    return 4 * n**2 + row_terms * n**2 + 8 * n * p + (2 * rank + 4) * (p**2 + row_terms * n)


def _dense(
    family: ProblemFamily, A: FloatArray, b: FloatArray, ranks: list[int], n_read: int, report: ProgressCallback
) -> Iterator[Candidate]:
    """Yield dense operators of several ranks, or tiles of them where `sine_tiles` finds some."""
    n, most = family.n, ranks[-1]
    count = max(DENSE_SAMPLES_PER_COMPONENT * most, min(1024, 2**26 // n**2))
    basis = operator_basis.fit(_sampled(family), n, most, n_read, n_read, count=count, report=report)
    _, c, _ = basis.coefficients(A)
    _, s = basis.read(A)
    for rank in ranks:
        part = dataclasses.replace(
            basis, operators=basis.operators[: 1 + rank], coefficient_rms=basis.coefficient_rms[:rank]
        )
        form: OperatorBasis | TiledOperators = sine_tiles.compress(part) or part
        entries, transform = n**2, 0.0
        if isinstance(form, TiledOperators):
            entries, transform = form.operators.shape[1], 2 * n**2 / SINGLE_FLOPS
        making = 2 * (1 + rank) * entries / SINGLE_FLOPS + 4 * entries / BYTES_PER_SECOND
        step = 4 * entries / BYTES_PER_SECOND + transform
        found = Candidate(form="dense", rank=rank, tiled=form is not part)
        yield _measured(found, A, b, form.inverse_of(c[:, :rank], s), making, step)


def _low_rank(
    family: ProblemFamily, A: FloatArray, b: FloatArray, ranks: list[int], n_read: int, report: ProgressCallback
) -> Iterator[Candidate]:
    """Yield the best shape of the low-rank form, with as many components as there can be, and fewer of them."""
    n = family.n
    count = max(MIN_LOW_RANK_SAMPLES, min(LOW_RANK_SAMPLES, 2**28 // n**2))
    ranks = [rank for rank in ranks if rank < count] or [count // 2]
    possible = [shape for shape in SHAPES if shape[0] < n]
    largest_p, most_rows = (max(part) for part in zip(*possible, strict=True))
    taken = low_rank_fit.snapshots(_sampled(family), n, largest_p, most_rows, n_read, n_read, count, report=report)
    first = taken.basis(1, 1, 0)
    _, g = first.read(A)
    T = first.preconditioned(A, g)

    def tried(rank: int, p: int, row_terms: int) -> Candidate:
        basis = taken.basis(rank, p, row_terms)
        c, _ = basis.projected(T)
        making = 2 * (1 + rank) * (p**2 + row_terms * n) / SINGLE_FLOPS
        step = (4 * n * p + 2 * row_terms * n**2) / SINGLE_FLOPS + 4 * p**2 / BYTES_PER_SECOND
        found = Candidate(form="low-rank", rank=rank, p=p, row_terms=row_terms)
        return _measured(found, A, b, basis.inverse_of(c, g), making, step)

    largest = {
        shape: max((rank for rank in ranks if low_rank_bytes(n, rank, *shape) <= MAX_LOW_RANK_BYTES), default=ranks[0])
        for shape in possible
    }
    shapes = [tried(rank, *shape) for shape, rank in largest.items()]
    yield from shapes
    best = fastest(shapes)
    for rank in ranks[: ranks.index(best.rank)]:
        yield tried(rank, best.p, best.row_terms)


def _sampled(family: ProblemFamily) -> Callable[[range], FloatArray]:
    """Return the matrices of the family that choices are made on."""
    return lambda indices: family.assembled(indices, SPECTRUM_SEED)[0]


def _measured(
    found: Candidate, A: FloatArray, b: FloatArray, M: Preconditioner, making: float, step: float
) -> Candidate:
    """Return a candidate with its steps and its time.

    Parameters
    ----------
    found : Candidate
    A : ndarray, shape (B, n, n)
    b : ndarray, shape (B, n)
    M : Preconditioner
    making, step : float
        Seconds per system that making M takes, and M.right per step.
    """
    n = A.shape[-1]
    solution = gcr.gcr_restarted(A, b[:, :, None], M, None, MAX_REFINEMENTS)
    steps = float(np.mean(solution.refinements + 1))
    every_step = 8 * n**2 / BYTES_PER_SECOND + 2 * n**2 / DOUBLE_FLOPS + STEP_SECONDS + STEP_SECONDS_PER_ROW * n + step
    share = float(np.mean(solution.certified))
    factorisation = (1 - share) * 2 / 3 * n**3 / DOUBLE_FLOPS
    seconds = making + steps * every_step + factorisation
    return dataclasses.replace(found, steps=steps, certified=share, seconds=seconds)
