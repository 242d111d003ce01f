"""The study of perturbations: directions against closed forms, the rule kappa eps, outcomes either way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress

from algebraformer.problems import get
from algebraformer.reporting import Report, Verdict, conclusions
from algebraformer.training.data import TEST_SEED
from studies import perturbation as study
from studies.harness.study import load_study, run_study
from study_results import assert_tables_and_figure

SYSTEMS = get("randsvd", n=10, kappa=(1e5, 1e5)).sample(4, TEST_SEED)


@pytest.mark.parametrize("what", study.WHAT)
@pytest.mark.parametrize("direction", study.DIRECTIONS)
def test_perturbations_have_the_size_they_are_said_to_have(what: str, direction: str) -> None:
    A, b = SYSTEMS.A, SYSTEMS.b[:, :, None]
    unit = study.directions(A, SYSTEMS.x, what, direction)
    changed = study.perturbed(A, b, what, 1e-3, unit)
    for i in range(4):
        sizes = np.linalg.norm(changed[0][i] - A[i], 2), np.linalg.norm(changed[1][i] - b[i])
        expected = (1e-3 * np.linalg.norm(A[i], 2), 0) if what == "A" else (0, 1e-3 * np.linalg.norm(b[i]))
        np.testing.assert_allclose(sizes, expected, rtol=1e-10)


def test_the_worst_directions_do_what_perturbation_theory_says() -> None:
    """A: kappa eps for every x. b: eps ||b|| / (sigma_n ||x||). Random ones: less."""
    A, b, eps = SYSTEMS.A, SYSTEMS.b[:, :, None], 1e-9
    x = np.linalg.solve(A, b)
    expected = {"A": np.full(4, 1e5 * eps)}
    expected["b"] = eps * np.linalg.norm(SYSTEMS.b, axis=1) * 1e5 / np.linalg.norm(SYSTEMS.x, axis=1)
    for what, size in expected.items():
        moved = {}
        for direction in study.DIRECTIONS:
            changed = study.perturbed(A, b, what, eps, study.directions(A, SYSTEMS.x, what, direction))
            moved[direction] = np.linalg.norm(np.linalg.solve(*changed) - x, axis=(1, 2)) / np.linalg.norm(
                x, axis=(1, 2)
            )
        np.testing.assert_allclose(moved["worst"], size, rtol=1e-3)
        assert (moved["random"] < moved["worst"]).all()


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_study(
        load_study("perturbation"), "quick", tmp_path_factory.mktemp("perturbation"), Progress(disable=True)
    )


def found(result: Report, case: str, what: str, direction: str, level: float, method: str) -> float:
    return study.change(result.data["records"], case, what, direction, level, method)


def test_the_summarys_question(quick: Report) -> None:
    """Condition number 1e5 and an error of 1e-8 make 1e-3."""
    name = study.RANDSVD.name
    assert found(quick, name, "A", "worst", 1e-8, "LU") == pytest.approx(1e-3, rel=1e-2)
    assert found(quick, name, "A", "random", 1e-8, "LU") < 1e-3
    rule = quick.outcomes[f"perturbation.kappa-eps/{name}"]
    assert rule.verdict == Verdict.HOLDS
    assert (rule.numbers["expected"], rule.numbers["A_worst"]) == pytest.approx((1e-3, 1e-3), rel=1e-2)


def test_networks_beside_lu(quick: Report) -> None:
    """The refined solve answers the perturbed system as LU does; a bare network may not."""
    for what in study.WHAT:
        lu, refined = (found(quick, "diffusion", what, "worst", 1e-8, name) for name in ("LU", study.REFINED))
        assert refined == pytest.approx(lu, rel=1e-2)
    assert {name for one in quick.data["records"] for name in one["change"]} == {
        "LU", "operator head, bare", "token head, bare", study.REFINED,
    }  # fmt: skip
    operator = found(quick, "diffusion", "b", "worst", 1e-4, "operator head, bare")
    A, b = (systems := get("diffusion", n=64).sample(6, TEST_SEED)).A, systems.b[:, :, None]
    solver = study.LearnedSolver.from_pretrained("diffusion-64")
    moved = []
    for i in range(6):
        U, _, _ = np.linalg.svd(A[i])
        x, y = solver.predict(A[i], b[i]), solver.predict(A[i], b[i] + 1e-4 * np.linalg.norm(b[i]) * U[:, -1:])
        moved.append(np.linalg.norm(y - x) / np.linalg.norm(x))
    assert operator == pytest.approx(np.median(moved), rel=1e-3)


def made_up(lu: dict[tuple[str, str], float], network: float) -> list[dict[str, Any]]:
    return [
        {
            "case": "c",
            "what": key[0],
            "direction": key[1],
            "level": study.CHECKED_EPS,
            "change": {"LU": value, "net": network},
        }
        for key, value in lu.items()
    ]


@pytest.mark.parametrize(
    ("worst", "verdict", "words"),
    [
        (1e-3, Verdict.HOLDS, "the rule kappa eps is reached."),
        (5e-4, Verdict.PARTLY, "an upper bound, of which 50 % is reached"),
        (4e-3, Verdict.FAILS, "is exceeded 4 times"),
    ],
)
def test_the_rule_either_way(worst: float, verdict: Verdict, words: str) -> None:
    changes = {("A", "random"): 1e-5, ("A", "worst"): worst, ("b", "random"): 1e-5, ("b", "worst"): 2e-5}
    data = {"cases": [{"case": "c", "n": 4, "kappa": 1e5}], "records": made_up(changes, 2e-5)}
    rule, network = study.outcomes(data).values()
    assert rule.verdict == verdict
    assert (rule.numbers["reached"], rule.numbers["b_worst"]) == (pytest.approx(worst / 1e-3), 2e-5)
    assert network.verdict == Verdict.FAILS
    assert [network.numbers[key] for key in ("perturbations", "same", "less", "more")] == [4, 1, 1, 2]
    assert words in conclusions(study.outcomes(data), study.SENTENCES)[0]


def test_figure_and_tables(quick: Report, tmp_path: Path) -> None:
    assert_tables_and_figure("perturbation", quick, tmp_path)
