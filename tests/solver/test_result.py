"""What a result says of itself in words."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import scipy.linalg
from scipy.linalg import LinAlgWarning

from algebraformer.errors import SingularSystemError, Status
from algebraformer.result import SolveResult
from tests.fakes import GOOD, WRONG, consistent, fake_solver

N = 6
EPS = np.finfo(float).eps
ONE = SolveResult(
    x=np.ones(N),
    status=Status.REFINED,
    method="learned+refined",
    refinements=3,
    backward_error=4e-15,
    relative_residual=2e-11,
    certified=True,
    forward_error=3e-9,
    rcond=np.nan,
    in_distribution=True,
)


def together(*results: SolveResult) -> SolveResult:
    """One result for a batch."""
    fields = [field.name for field in dataclasses.fields(SolveResult)]
    columns = {name: [getattr(result, name) for result in results] for name in fields}
    return SolveResult(
        **{k: np.array(v, dtype=object if k in ("status", "method") else None) for k, v in columns.items()}
    )


def of(status: Status, **changes: object) -> SolveResult:
    """The result of one system with this status."""
    certified = status not in (Status.UNCERTIFIED, Status.INACCURATE, Status.SINGULAR)
    if status is Status.SINGULAR:
        changes |= {"backward_error": np.inf, "relative_residual": np.inf, "forward_error": np.nan}
    return dataclasses.replace(ONE, status=status, certified=certified, **changes)


SAID = {
    Status.LEARNED: ("without refinement", "Certified: ", "No action"),
    Status.REFINED: ("3 refinements", "Certified: ", "No action"),
    Status.FALLBACK: ("3 refinements", "LAPACK answered", "Certified: ", "in distribution"),
    Status.OUT_OF_DISTRIBUTION: ("LAPACK answered", "Certified: ", "out of distribution", "finetune"),
    Status.UNSUPPORTED: ("does not cover", "Certified: ", "No action"),
    Status.UNCERTIFIED: ("3 refinements", "Not certified: ", "fallback=True"),
    Status.INACCURATE: ("LAPACK", "Not certified: ", "more digits"),
    Status.SINGULAR: ("exactly singular", "x holds NaN", "least-squares"),
}


@pytest.mark.parametrize("status", Status)
def test_one_system(status):
    """The key words of each status, the figures, and neither NaN nor infinity spelled out."""
    said = of(status).explain()
    for words in SAID[status]:
        assert words in said
    for figure in ("2e-11", "4e-15", "3e-09"):
        assert (figure in said) == (status is not Status.SINGULAR)
    assert said[0].isupper()
    assert said.endswith(".")
    assert not re.search(r"\binf\b", said)
    assert not re.search(r"\bnan\b", said.replace("x holds NaN", ""), re.IGNORECASE)


LAPACKS = (Status.FALLBACK, Status.OUT_OF_DISTRIBUTION, Status.UNSUPPORTED, Status.INACCURATE)
NO_DIGITS = "no correct digits"


@pytest.mark.parametrize("change", [{"forward_error": 40.0}, {"rcond": 1e-17}, {"forward_error": np.inf}])
@pytest.mark.parametrize("status", LAPACKS)
def test_without_a_certain_digit_there_is_other_advice(status, change):
    said = of(status, **change).explain()
    assert NO_DIGITS in said
    for words in ("finetune", "in distribution", "No action"):
        assert words not in said
    assert NO_DIGITS not in of(status, forward_error=0.9, rcond=1e-15).explain()
    many = together(of(Status.FALLBACK), of(status, **change)).explain()
    assert f"system 1: x may have {NO_DIGITS}" in many
    assert "system 0: in distribution" in many


GALLERY = {
    "pascal(20)": scipy.linalg.pascal(20).astype(float),
    "magic(4)": np.array([[16.0, 2, 3, 13], [5, 11, 10, 8], [9, 7, 6, 12], [4, 14, 15, 1]]),
    "frank(64)": np.array([[64.0 - max(i, j) if j >= i - 1 else 0.0 for j in range(64)] for i in range(64)]),
    "hilbert(16)": scipy.linalg.hilbert(16),
}


@pytest.mark.parametrize("name", GALLERY)
def test_matrices_that_float64_does_not_resolve(name):
    """LAPACK's residual is nothing, its error anything (the solution is x = 1): nobody is told that all is well."""
    A = GALLERY[name]
    with pytest.warns(LinAlgWarning, match="rcond"):
        result = fake_solver(WRONG["zeros"], len(A)).solve(A, A @ np.ones(len(A)))
    error = np.linalg.norm(result.x - 1) / np.sqrt(len(A))
    assert result.forward_error >= error
    assert result.record()["rcond"] == result.rcond < EPS
    assert NO_DIGITS in result.explain()


def test_what_has_no_number_is_said_in_words():
    said = of(Status.INACCURATE, backward_error=np.inf, relative_residual=np.inf, forward_error=np.nan).explain()
    assert "without a finite value" in said
    assert "Estimated" not in said
    assert "not estimated" in of(Status.LEARNED, forward_error=np.nan).explain()
    assert "no finite estimate" in of(Status.LEARNED, forward_error=np.inf).explain()


def test_a_batch():
    many = [of(Status.REFINED, refinements=k) for k in (1, 4, 2)]
    said = together(
        *many,
        of(Status.LEARNED, refinements=0),
        of(Status.OUT_OF_DISTRIBUTION, refinements=0, backward_error=7e-15, in_distribution=False),
        of(Status.SINGULAR),
        of(Status.REFINED, forward_error=5e-8),
    ).explain()
    assert said.startswith(
        "1 of 7 systems: the network answered, without refinement; 4 of 7 systems: the network answered, with 1 to 4"
    )
    assert "Certified: 6 of 7; largest relative residual 2e-11, backward error 7e-15." in said
    assert "at most 5e-08" in said
    assert re.search(r"Next: system 5: look at how A was made.*; system 4: out of distribution", said)
    assert together(*[of(Status.SINGULAR)] * 7).explain().count("systems 0, 1, 2, 3, 4, ...") == 1
    nothing = fake_solver(GOOD["exact"], N).solve(np.empty((0, N, N)), np.empty((0, N)))
    assert nothing.explain() == "There was no system to solve."


@pytest.mark.parametrize("network", [*GOOD, "zeros", "nan"])
def test_of_real_results(network):
    rng = np.random.default_rng(0)
    A, b = 3 * np.eye(N) + rng.uniform(-1, 1, (3, N, N)) / 2, rng.standard_normal((3, N))
    solver = fake_solver((GOOD | WRONG)[network], N)
    for fallback in (True, False):
        result = solver.solve(A, b, fallback=fallback)
        said = result.explain()
        assert said.startswith("3 of 3 systems: ")
        assert f"Certified: {result.certified.sum()} of 3" in said
        assert f"{result.backward_error.max():.2g}" in said or not np.isfinite(result.backward_error).all()
    A[1], b[1] = 1.0, 1.0
    with pytest.raises(SingularSystemError) as caught:
        fake_solver(consistent, N, reach=0).solve(A, b)
    assert "1 of 3 systems: A is exactly singular" in caught.value.result.explain()
