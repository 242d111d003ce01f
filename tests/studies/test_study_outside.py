"""The study of systems outside the family: its groups against closed forms, its counts by hand, its quick preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress

from algebraformer.linalg import FloatArray
from algebraformer.problems import BoundaryValueFamily, get
from algebraformer.problems.chebyshev import points
from algebraformer.reporting import Report, Verdict
from algebraformer.solver import LearnedSolver
from algebraformer.training import trainer
from algebraformer.training.data import TEST_SEED
from studies.harness import runs
from studies.harness.study import load_study, run_study
from studies.outside import measure as outside
from study_results import assert_tables_and_figure

ALPHA, OMEGA = np.array([0.7, 0.3]), np.array([1.3, 0.4])

# ---------------------------------------------------------------- the groups


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.5])
def test_boundary_conditions_against_a_manufactured_solution(gamma: float) -> None:
    """u = sin(x + 1) + c (x + 1)^2, c such that u'(1) + gamma u(1) = 0, solves with f = -(K u')' in closed form."""
    family = get("diffusion", n=40)
    assert isinstance(family, BoundaryValueFamily)
    x = points(42)[1:-1]
    c = -(np.cos(2) + gamma * np.sin(2)) / (4 + 4 * gamma)
    u, du, ddu = np.sin(x + 1) + c * (x + 1) ** 2, np.cos(x + 1) + 2 * c * (x + 1), -np.sin(x + 1) + 2 * c
    angle = 2 * np.pi * OMEGA[:, None]
    K = 1 + ALPHA[:, None] * np.cos(angle * x)
    dK = -ALPHA[:, None] * angle * np.sin(angle * x)
    f = -(dK * du + K * ddu)  # (2, 40)
    params = {"alpha": ALPHA, "omega": OMEGA, "c": np.zeros((2, 8)), "phi": np.zeros((2, 8))}
    A, _ = outside.with_condition(family, params, gamma)
    solution = np.linalg.solve(A, f[:, :, None])[:, :, 0]
    np.testing.assert_allclose(solution, np.broadcast_to(u, (2, 40)), rtol=0, atol=1e-9)


def test_right_hand_sides_with_other_boundary_conditions_are_the_familys() -> None:
    found = {group.name: group for group in outside.groups(12, 3)}
    own = get("diffusion", n=12).sample(3, TEST_SEED)
    np.testing.assert_array_equal(found["Neumann condition at x = 1"].b, own.b)
    difference = found["Neumann condition at x = 1"].A - own.A
    assert np.linalg.matrix_rank(difference).tolist() == [1, 1, 1]


def test_groups_are_what_they_are_called() -> None:
    n, count = 12, 5
    found = {group.name: group for group in outside.groups(n, count)}
    assert all(group.A.shape == (count, n, n) and group.b.shape == (count, n) for group in found.values())
    assert len(found) == 1 + 5 + 4 + 3 + 2 + 2 + 2
    inside = {name for name, group in found.items() if group.inside}
    assert inside == {outside.INSIDE, "alpha 0 to 0.3", "alpha 0.3 to 0.6", "alpha 0.6 to 0.9"}
    own = found[outside.INSIDE]
    x = np.linalg.solve(own.A, own.b[:, :, None])
    for name in ("rows permuted", "rows scaled"):  # they have the solutions of the family
        assert not np.allclose(found[name].A, own.A)
        np.testing.assert_allclose(np.linalg.solve(found[name].A, found[name].b[:, :, None]), x, rtol=1e-8, atol=1e-12)
    permuted = found["rows permuted"].A
    assert all(sorted(map(tuple, permuted[i])) == sorted(map(tuple, own.A[i])) for i in range(count))
    ratios = found["rows scaled"].A / own.A
    assert np.ptp(ratios, axis=2).max() < 1e-9 * ratios.max()
    assert 1e-3 <= ratios.min() < 1e-1
    assert 1e1 < ratios.max() <= 1e3


def test_parameters_lie_in_their_bins() -> None:
    """The systems of a bin are those of the family with these limits, and its parameters keep to them."""
    for name, key, low, high in (("alpha 0.95 to 0.99", "alpha", 0.95, 0.99), ("omega 6 to 8", "omega", 6.0, 8.0)):
        group = next(group for group in outside.groups(12, 8) if group.name == name)
        family = get("diffusion", n=12, **{key: (low, high)})
        params = family.parameters(range(8), TEST_SEED)
        assert ((params[key] >= low) & (params[key] <= high)).all()
        np.testing.assert_array_equal(group.A, family.assemble(params)[0])


def test_prescribed_singular_values() -> None:
    *_, last = outside.groups(10, 4)
    A = last.A
    assert last.name == "random matrices, condition 1e+05"
    assert not last.inside
    values = np.linalg.svd(A, compute_uv=False)
    np.testing.assert_allclose(values, np.broadcast_to(10 ** np.linspace(0, -5, 10), (4, 10)), rtol=1e-8)
    assert np.linalg.norm(A[0] - A[1]) > 0.1


# ---------------------------------------------------------------- counts and sentences


def record(**changes: Any) -> dict[str, Any]:
    return {
        "group": outside.INSIDE,
        "inside": True,
        "entries": [0.5, 0.5, 0.5, 0.5],
        "distance": [0.5, 0.6, 0.7, 0.8],
        "method": ["learned", "learned+refined", "learned+refined", "learned+refined"],
        "certified": [True] * 4,
        "refinements": [0, 1, 2, 3],
        "in_distribution": [True] * 4,
        "relative_error": [1e-12] * 4,
        "of_bound": [1e-3] * 4,
    } | changes


AWAY = record(
    group="far away",
    inside=False,
    entries=[0.5, 1.5, 0.5, 0.5],
    distance=[0.9, 1.5, 50.0, 5000.0],
    method=["lapack", "learned+refined", "lapack", "lapack"],
    refinements=[3, 9, 2, 0],
    in_distribution=[True, False, False, False],
)


def test_shares_and_detection_by_hand() -> None:
    result = outside.summary("toy", 4, [record(), AWAY])
    inside, away = result.data["groups"]
    assert (inside["learned"], inside["learned+refined"], inside["lapack"]) == (0.25, 0.75, 0.0)
    assert (inside["refinements_median"], inside["refinements_max"]) == (1.5, 3)
    assert (away["lapack"], away["refinements_median"], away["refinements_max"]) == (0.75, 9.0, 9)
    assert result.data["detection"] == {
        "fallback": pytest.approx(2 / 3),
        "by_entries": 0.0,
        "inside": 0.0,
        "outside_learned": 1.0,
    }
    bins = {entry["name"]: entry for entry in result.data["distances"]}
    assert {name: entry["systems"] for name, entry in bins.items()} == {
        "0.5 to 0.75": 3,
        "0.75 to 1": 2,
        "1 to 2": 1,
        "30 to 100": 1,
        "above 1000": 1,
    }
    assert bins["0.75 to 1"]["lapack"] == 0.5
    assert bins["above 1000"]["refinements_median"] is None
    found = result.outcomes
    assert found["outside.never-wrong"].verdict == Verdict.HOLDS
    assert found["outside.never-wrong"].numbers == {"answers": 8, "groups": 2, "uncertified": 0, "of_bound": 1e-3}
    assert found["outside.refinements"].numbers == {outside.INSIDE: 1.5, "far away": 9.0}
    assert found["outside.fallback"].numbers == {"far away": 0.75}
    assert found["outside.detection"].numbers == result.data["detection"]
    assert result.conclusions[1:3] == [
        "Inside the family the network's answers take 1.5 refinements (median); more in: far away (9).",
        "LAPACK answers in: far away (75 %).",
    ]
    assert "66.7 % of the systems that fell back to LAPACK" in result.conclusions[3]


@pytest.mark.parametrize(
    ("wrong", "uncertified", "of_bound"),
    [({"certified": [True, True, False, True]}, 1, 1e-3), ({"of_bound": [0.1, 0.1, 3.0, 0.1]}, 0, 3.0)],
    ids=["uncertified", "wrong"],
)
def test_a_wrong_answer_is_found(wrong: dict[str, Any], uncertified: int, of_bound: float) -> None:
    found = outside.summary("toy", 4, [record(), AWAY | wrong]).outcomes["outside.never-wrong"]
    assert found.verdict == Verdict.FAILS
    assert (found.numbers["uncertified"], found.numbers["of_bound"]) == (uncertified, of_bound)


# ---------------------------------------------------------------- the whole


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    folder = tmp_path_factory.mktemp("outside")
    return run_study(load_study("outside"), "quick", folder, Progress(disable=True)), folder


@pytest.fixture(scope="module")
def solver(quick: tuple[Report, Path]) -> LearnedSolver:
    return LearnedSolver.from_pretrained(quick[1] / "network")


def test_everything_is_certified_and_the_family_needs_no_lapack(quick: tuple[Report, Path]) -> None:
    groups = {row["group"]: row for row in quick[0].data["groups"]}
    assert all(row["certified"] == 1.0 and row["of_bound_max"] <= 1 for row in groups.values())
    assert all(sum(row[name] for name in outside.METHODS) == pytest.approx(1) for row in groups.values())
    assert groups[outside.INSIDE]["lapack"] <= 0.1
    assert groups["standard normal matrices"]["lapack"] == 1.0
    assert groups["rows permuted"]["lapack"] == 1.0
    never_wrong = quick[0].outcomes["outside.never-wrong"]
    assert (never_wrong.verdict, never_wrong.numbers["answers"]) == (Verdict.HOLDS, 24 * 19)


def test_answers_are_right_whoever_gave_them(solver: LearnedSolver) -> None:
    """Against the solution of the system as such, in 30 digits."""
    import mpmath

    groups = {group.name: group for group in outside.groups(16, 2)}
    for name in (outside.INSIDE, "omega 6 to 8", "Robin condition at x = 1", "rows scaled"):
        group = groups[name]
        found = outside.measure(solver, group)
        for i in range(2):
            with mpmath.workdps(30):
                exact = mpmath.lu_solve(mpmath.matrix(group.A[i].tolist()), mpmath.matrix(group.b[i].tolist()))
            x: FloatArray = np.array([float(value) for value in exact])
            lu = np.linalg.solve(group.A[i], group.b[i])
            answer = solver.solve(group.A[i], group.b[i]).x
            assert np.abs(answer - x).max() <= 1e-8 * np.abs(x).max()
            error = np.abs(answer - lu).max() / np.abs(lu).max()
            assert found["relative_error"][i] == pytest.approx(error, abs=1e-13)


def test_the_distance_is_what_in_distribution_compares(solver: LearnedSolver) -> None:
    seen = set()
    for group in outside.groups(16, 12):
        found = outside.measure(solver, group)
        assert [distance <= 1 for distance in found["distance"]] == found["in_distribution"]
        z = solver.model.operator_head.basis.sampler(group.A)[0]
        reach = float(solver.model.operator_head.get_buffer("max_distance"))
        np.testing.assert_allclose(found["entries"], np.sqrt(np.mean(z**2, axis=(1, 2))) / reach, rtol=1e-12)
        seen |= set(found["in_distribution"])
    assert seen == {True, False}


def test_a_wrong_solver_is_caught(solver: LearnedSolver, monkeypatch: pytest.MonkeyPatch) -> None:
    group = next(outside.groups(16, 4))
    result = solver.solve(group.A, group.b)
    result.x[2] *= 1.001
    monkeypatch.setattr(solver, "solve", lambda *_: result)
    found = outside.measure(solver, group)
    assert [value > 1 for value in found["of_bound"]] == [False, False, True, False]


def test_the_network_is_trained_once(quick: tuple[Report, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained again"))
    assert run_study(load_study("outside"), "quick", quick[1], Progress(disable=True)).data == quick[0].data


def test_a_finished_network_without_its_seconds_is_found(
    quick: tuple[Report, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = quick[1] / "network" / "seconds.json"
    kept = seconds.read_text()
    seconds.unlink()
    monkeypatch.setattr(trainer.Trainer, "train_step", lambda *_: pytest.fail("trained again"))
    assert run_study(load_study("outside"), "quick", quick[1], Progress(disable=True)).data == quick[0].data
    seconds.write_text(kept)


def test_figure_and_tables(quick: tuple[Report, Path], tmp_path: Path) -> None:
    assert_tables_and_figure("outside", quick[0], tmp_path)
