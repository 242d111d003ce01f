"""One network for many n: the shipped network of diffusion at sizes that it was not trained for.

`LearnedSolver.at_size` keeps the network and refits, linearly, what it reads and the operators of its inverses. Its
contraction is compared at every n with what no network trained for this n can fall below by much: the exact
coefficients of every system in a basis of the same rank that was fitted at this n. Where a size is to be trained, a
network with the recipe of the shipped one is compared as well. The way without any fit, to interpolate between the
Chebyshev grids (A to the trained size, M back, and the scaled mean inverse for what the coarse grid does not hold), and
the mean inverse alone are measured beside them.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.progress import Progress

from algebraformer import problems
from algebraformer.linalg import FloatArray
from algebraformer.models import OperatorConfig
from algebraformer.models.inference.stored_basis import as_dense
from algebraformer.numerics import gcr, operator_basis
from algebraformer.numerics.preconditioner import ApproximateInverse, Preconditioner
from algebraformer.problems.base import SCALER_SEED, TEST_SEED
from algebraformer.problems.chebyshev import interpolation_matrix, points
from algebraformer.reporting import Outcome, Report, Sentences, TableData, Verdict, conclusions, met, outcome
from algebraformer.solver import LearnedSolver
from algebraformer.training import RECIPES
from studies.harness.runs import computed_once, run_once

FACTOR = 3.0
"""Contractions of one network for all n may be so many times those of a network for one n."""
CONTRACTION_ENTRIES, MIN_CONTRACTIONS = 2**21, 16
"""Entries of the matrices whose eigenvalues are computed, and their least number."""
WAYS = {
    "resized": "one network, at_size",
    "exact": "own basis, exact coefficients",
    "trained": "own network",
    "interpolated": "interpolated",
    "mean": "mean inverse",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    sizes: tuple[int, ...]
    trained: tuple[int, ...] = ()
    """Sizes for which a network is trained, by the recipe of the shipped one."""
    systems: int = 500
    """Unseen systems."""
    contractions: int = 100
    """Systems whose eigenvalues are computed, fewer where n is large."""


PRESETS = {
    "quick": Plan(sizes=(16, 21), systems=60, contractions=20),
    "cpu": Plan(sizes=(16, 20, 24, 32, 48, 50, 64, 96, 100, 128, 192, 256), trained=(32,)),
    "paper": Plan(
        sizes=(16, 17, 20, 24, 32, 40, 48, 50, 64, 80, 96, 100, 128, 160, 192, 256, 384, 512),
        trained=(16, 32, 128, 256),
        systems=2000,
        contractions=300,
    ),
}


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Measure every size that has not been measured yet, then those that are trained."""
    task = bar.add_task("sizes", total=len(plan.sizes) + len(plan.trained))
    solver = LearnedSolver.from_pretrained("diffusion-64")
    about = {"model": solver.info.name, "systems": plan.systems, "contractions": plan.contractions}
    records = []
    for n in plan.sizes:
        compute = functools.partial(measured, solver, n, plan)
        records.append(computed_once(folder / f"n{n}.json", about | {"n": n}, compute))
        bar.advance(task)
    for record in records:
        n = record["n"]
        if n == solver.n:
            record["trained"] = record["resized"]
        elif n in plan.trained:
            own = trained(n, folder / f"trained-{n}")
            record["trained"] = radii(own.network.approximate_inverse, matrices(n, plan))
            bar.advance(task)
    return summary(records)


def trained(n: int, output: Path) -> LearnedSolver:
    """Return a network for n alone, by the recipe of diffusion-64."""
    recipe = RECIPES["diffusion-64-mlp"]
    return run_once(dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, n=n)), output).solver


def matrices(n: int, plan: Plan) -> FloatArray:
    """Return the unseen matrices (B, n, n) whose contractions are computed."""
    count = min(plan.contractions, max(MIN_CONTRACTIONS, CONTRACTION_ENTRIES // n**2))
    return problems.get("diffusion", n=n).assembled(range(count), TEST_SEED)[0]


def measured(solver: LearnedSolver, n: int, plan: Plan) -> dict[str, Any]:
    """Return contractions of every way at one size, and what certified solves take."""
    begin = time.perf_counter()
    resized = solver.at_size(n)
    seconds = time.perf_counter() - begin
    A = matrices(n, plan)
    rank, basis = OperatorConfig.of(solver.network.config).rank, as_dense(resized.model.operator_head.basis)
    systems = problems.get("diffusion", n=n).sample(plan.systems, TEST_SEED)
    result = resized.solve(systems.A, systems.b)
    by_network = result.method != "lapack"
    s = basis.read(A)[1]
    mean = ApproximateInverse(np.broadcast_to(np.eye(n, dtype=np.float32), A.shape), basis.inverse, s)
    return {
        "n": n,
        "systems": plan.systems,
        "radii": len(A),
        "fit_seconds": seconds,
        "resized": radii(resized.network.approximate_inverse, A),
        "exact": radii(functools.partial(exact_inverse, n, rank), A),
        "interpolated": radii(functools.partial(interpolated, solver, n, mean), A),
        "mean": radii(lambda _: mean, A),
        "trained": None,
        "certified": float(np.mean(result.certified)),
        "by_network": float(np.mean(by_network)),
        "refinements": float(np.median(result.refinements[by_network])),
        "refinements_max": int(result.refinements[by_network].max()),
    }


def radii(inverse_of: Any, A: FloatArray) -> dict[str, float]:
    """Return median and 95 % quantile of the spectral radii of I - M A."""
    found = gcr.contraction(A, inverse_of(A))
    return {"median": float(np.median(found)), "95": float(np.quantile(found, 0.95))}


def exact_inverse(n: int, rank: int, A: FloatArray) -> ApproximateInverse:
    """Return M of A (B, n, n) in a basis of size n, with the coefficients of their exact inverses."""
    family = problems.get("diffusion", n=n)
    basis = operator_basis.fit(
        lambda part: family.assembled(part, SCALER_SEED)[0], n, min(rank, n**2), min(16, n), min(16, n)
    )
    s = basis.read(A)[1]
    return basis.inverse_of(basis.projected(basis.preconditioned(A, s))[0].astype(np.float32), s)


@dataclasses.dataclass(frozen=True)
class DenseInverse:
    """M (B, n, n) as it is, for measurements."""

    M: FloatArray

    def left(self, r: FloatArray) -> FloatArray:
        """Return r."""
        return r

    def right(self, g: FloatArray) -> FloatArray:
        """Return M g."""
        return self.M @ g

    def __getitem__(self, chosen: Any) -> DenseInverse:
        """Return those of the chosen systems."""
        return DenseInverse(self.M[chosen])


def interpolated(solver: LearnedSolver, n: int, mean: ApproximateInverse, A: FloatArray) -> Preconditioner:
    """Return M of A (B, n, n) from the network at its own size m, without any fit: two levels.

    M = C + S - S A C with C = P M_m R. R takes right-hand sides from the interior Chebyshev points of size n to those
    of size m and P solutions back, which vanish at the ends; S is the mean inverse between scalings by the diagonals.
    The network is given the exact matrices of size m.
    """
    m = solver.n
    coarse = problems.get("diffusion", n=m).assembled(range(len(A)), TEST_SEED)[0]
    P = interpolation_matrix(m + 2, points(n + 2)[1:-1])[:, 1:-1]  # (n, m)
    R = interior_interpolation(n, points(m + 2)[1:-1])  # (m, n)
    C = P @ solver.network.approximate_inverse(coarse)(np.broadcast_to(R, (len(A), m, n)).copy())
    scale = np.sqrt(np.abs(np.diag(np.linalg.inv(mean.inverse)) / np.einsum("bii->bi", A)))
    S = scale[:, :, None] * mean.inverse * scale[:, None, :]
    return DenseInverse(C + S - S @ (A @ C))


def interior_interpolation(n: int, t: FloatArray) -> FloatArray:
    """Return the matrix (m, n) from values at the n interior points of `points(n + 2)` to the polynomial's at t (m,).

    Barycentric weights (-1)^j sin^2(pi j / (n + 1)), those of the zeros of U_n.
    """
    x, weights = points(n + 2)[1:-1], (-1.0) ** np.arange(n) * np.sin(np.pi * np.arange(1, n + 1) / (n + 1)) ** 2
    difference = t[:, None] - x
    hit = difference == 0
    quotient = weights / np.where(hit, 1.0, difference)
    matrix = quotient / quotient.sum(axis=1, keepdims=True)
    return np.where(hit.any(axis=1, keepdims=True), hit.astype(np.float64), matrix)


def summary(records: list[dict[str, Any]]) -> Report:
    """Put the measurements into a table and outcomes."""
    columns = (
        "n", *(f"contraction: {name}" for name in WAYS.values()), "95 %: one network", "95 %: exact coefficients",
        "certified", "without LAPACK", "refinements, median", "max", "fit, s",
    )  # fmt: skip
    rows = [
        [r["n"], *(r[way] and r[way]["median"] for way in WAYS), r["resized"]["95"], r["exact"]["95"], r["certified"],
         r["by_network"], r["refinements"], r["refinements_max"], r["fit_seconds"]]
        for r in records
    ]  # fmt: skip
    data = {"records": records}
    found = outcomes(data)
    return Report([TableData(columns, rows, "diffusion-64 at other sizes")], found, conclusions(found, SENTENCES), data)


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return whether contractions are within `FACTOR` of those at fixed n, and whether all systems are certified."""
    records, found = data["records"], {}
    for way in ("exact", "trained"):
        compared = [r for r in records if r[way]]
        for key in ("median", "95"):
            if compared:
                ratios = [r["resized"][key] / r[way][key] for r in compared]
                worst = int(np.argmax(ratios))
                within = sum(ratio <= FACTOR for ratio in ratios)
                found[f"sizes.within-{way}/{key}"] = outcome(
                    met(within == len(compared)), key=key, factor=FACTOR, within=within, sizes=len(compared),
                    worst=ratios[worst], n=compared[worst]["n"],
                )  # fmt: skip
    others = [r for r in records if r["n"] != 64]
    ratios = [r["interpolated"]["median"] / r["exact"]["median"] for r in others]
    least = int(np.argmin(ratios))
    found["sizes.interpolated"] = outcome(met(max(ratios) <= FACTOR), least=ratios[least], n=others[least]["n"])
    fewest = min(records, key=lambda r: r["by_network"])
    found["sizes.certified"] = outcome(
        Verdict.HOLDS if all(r["certified"] == 1 for r in records) else Verdict.FAILS,
        by_network=fewest["by_network"], n=fewest["n"], refinements=max(r["refinements_max"] for r in records),
    )  # fmt: skip
    return found


def _name(key: str) -> str:
    return "median" if key == "median" else f"{key} % quantile"


def _compared(with_what: str) -> Any:
    """Return the sentence of a comparison."""

    def sentence(found: Outcome) -> str:
        v = found.numbers
        return (
            f"Contraction within {v['factor']:g} times that of {with_what}, {_name(str(v['key']))}: {found.verdict}, "
            f"at {v['within']} of {v['sizes']} sizes; at most {v['worst']:.2g} times, n = {v['n']}."
        )

    return sentence


SENTENCES: Sentences = {
    "sizes.within-exact": _compared("a basis of its own with exact coefficients"),
    "sizes.within-trained": _compared("a network trained for this n"),
    "sizes.interpolated": "Interpolation between the grids without a fit: {verdict}, at least {least:.3g} times the "
    "contraction of exact coefficients (n = {n}).",
    "sizes.certified": "Every answer at every size is certified: {verdict}. At least {by_network:.1%} without LAPACK "
    "(n = {n}), after at most {refinements} refinements.",
}


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw the median contraction of every way against n, with the 95 % quantiles of the first two."""
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for number, (way, label) in enumerate(WAYS.items()):
        own = [r for r in data["records"] if r[way]]
        if own:
            sizes, style = [r["n"] for r in own], {"color": f"C{number}"}
            line = "s" if way == "trained" else "o-"
            axes.loglog(sizes, [r[way]["median"] for r in own], line, label=label, **style)
            if way in ("resized", "exact"):
                axes.loglog(sizes, [r[way]["95"] for r in own], ":", label=f"{label}, 95 %", **style)
    axes.set(
        xlabel="n",
        ylabel="spectral radius of I − M A",
        title="diffusion-64 at other sizes",
        xticks=[16, 32, 64, 128, 256],
        xticklabels=["16", "32", "64", "128", "256"],
    )
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure
