"""What a result says of itself in words."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from algebraformer.errors import SingularSystemError, Status
from algebraformer.result import SolveResult
from algebraformer.studies.wall.stand_ins import GOOD, WRONG, consistent, stand_in

N = 6
ONE = SolveResult(
    x=np.ones(N),
    status=Status.REFINED,
    method="learned+refined",
    refinements=3,
    backward_error=4e-15,
    relative_residual=2e-11,
    certified=True,
    forward_error_estimate=3e-9,
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
    certified = status in (Status.LEARNED, Status.REFINED, Status.FALLBACK, Status.UNSUPPORTED)
    if status is Status.SINGULAR:
        changes |= {"backward_error": np.inf, "relative_residual": np.inf, "forward_error_estimate": np.nan}
    return dataclasses.replace(ONE, status=status, certified=certified, **changes)


SAID = {
    Status.LEARNED: ("The network answered, without refinement.", "Certified: ", "nothing left to do"),
    Status.REFINED: ("The network answered, with 3 refinements.", "Certified: ", "nothing left to do"),
    Status.FALLBACK: (
        "did not reach the tolerance (3 refinements), so LAPACK answered.",
        "Certified: ",
        "inside the family",
    ),
    Status.UNSUPPORTED: ("does not cover", "Certified: ", "nothing left to do"),
    Status.UNCERTIFIED: ("did not reach the tolerance (3 refinements).", "Not certified: ", "fallback=True"),
    Status.INACCURATE: ("Neither the network nor LAPACK", "Not certified: ", "more digits"),
    Status.SINGULAR: ("A is exactly singular", "x holds NaN", "least-squares"),
}


@pytest.mark.parametrize("status", Status)
def test_one_system(status):
    said = of(status).explain()
    for words in SAID[status]:
        assert words in said
    if status is Status.SINGULAR:
        assert "residual" not in said
    else:
        for words in (
            "relative residual 2e-11",
            "backward error 4e-15",
            "cond(A)",
            "the last correction suggests 3e-09",
        ):
            assert words in said
    assert said[0].isupper()
    assert said.endswith(".")
    assert "inf" not in said.replace("inside", "")
    assert "nan" not in said.lower().replace("x holds nan", "")


def test_outside_the_family_there_is_advice():
    assert "outside the family of the model" in of(Status.REFINED, in_distribution=False).explain()
    assert "outside" not in of(Status.UNSUPPORTED, in_distribution=False).explain()


@pytest.mark.parametrize("status", [Status.FALLBACK, Status.UNSUPPORTED, Status.INACCURATE])
def test_without_a_certain_digit_there_is_other_advice(status):
    said = of(status, forward_error_estimate=40.0, in_distribution=False).explain()
    assert "no digit of x is certain: A is too ill-conditioned for float64; if b is measured, estimate it" in said
    for words in ("outside the family", "inside the family", "nothing left to do"):
        assert words not in said
    assert "no digit" not in of(status, forward_error_estimate=0.9).explain()
    many = together(of(Status.FALLBACK), of(status, forward_error_estimate=1.0, in_distribution=False)).explain()
    assert "system 1: no digit of x is certain" in many
    assert "system 0: inside the family" in many


def test_what_has_no_number_is_said_in_words():
    said = of(
        Status.INACCURATE, backward_error=np.inf, relative_residual=np.inf, forward_error_estimate=np.nan
    ).explain()
    assert "without a finite value" in said
    assert "cond(A)" not in said
    assert "no correction was computed" in of(Status.LEARNED, forward_error_estimate=np.nan).explain()


def test_a_batch():
    many = [of(Status.REFINED, refinements=k) for k in (1, 4, 2)]
    said = together(
        *many,
        of(Status.LEARNED, refinements=0),
        of(Status.FALLBACK, refinements=1, backward_error=7e-15, in_distribution=False),
        of(Status.SINGULAR),
        of(Status.REFINED, forward_error_estimate=5e-8),
    ).explain()
    assert said.startswith(
        "Of 7 systems, 1: the network answered, without refinement; 4: the network answered, with 1 to 4"
    )
    assert "Certified: 6 of 7; largest relative residual 2e-11, backward error 7e-15." in said
    assert "suggests at most 5e-08" in said
    assert re.search(r"Next: system 5: look at how A was made.*; system 4: outside the family", said)
    assert together(*[of(Status.SINGULAR)] * 7).explain().count("systems 0, 1, 2, 3, 4, ...") == 1
    nothing = stand_in(GOOD["exact"], N).solve(np.empty((0, N, N)), np.empty((0, N)))
    assert nothing.explain() == "There was no system to solve."


@pytest.mark.parametrize("network", [*GOOD, "zeros", "nan"])
def test_of_real_results(network):
    rng = np.random.default_rng(0)
    A, b = 3 * np.eye(N) + rng.uniform(-1, 1, (3, N, N)) / 2, rng.standard_normal((3, N))
    solver = stand_in((GOOD | WRONG)[network], N)
    for fallback in (True, False):
        result = solver.solve(A, b, fallback=fallback)
        said = result.explain()
        assert said.startswith("Of 3 systems, 3: ")
        assert f"Certified: {result.certified.sum()} of 3" in said
        assert f"{result.backward_error.max():.2g}" in said or not np.isfinite(result.backward_error).all()
    A[1], b[1] = 1.0, 1.0
    with pytest.raises(SingularSystemError) as caught:
        stand_in(consistent, N).solve(A, b)
    assert "1: A is exactly singular" in caught.value.result.explain()
