"""The study of condition numbers: its groups, its measures against closed forms, its outcomes, its quick preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.progress import Progress

from algebraformer.problems import get
from algebraformer.reporting import Outcome, Report, Verdict, conclusions
from algebraformer.solver import LearnedSolver
from algebraformer.training.data import SCALER_SEED, TEST_SEED
from studies.condition import measure as study
from studies.condition import report
from studies.harness.study import load_study, run_study
from study_results import assert_tables_and_figure

# ---------------------------------------------------------------- the plan


def test_the_groups_of_the_committed_results() -> None:
    plan = study.PRESETS["cpu"]
    assert len(plan.seeds) >= 3
    names = [subject.name for subject in plan.subjects]
    assert len(set(names)) == len(names)
    for subject in plan.subjects:
        assert list(subject.heads) == ["token head", "operator head"]
        for recipe in subject.heads.values():
            family = recipe.problem_family()
            inside = [group for group in subject.groups if group.inside]
            assert inside
            for group in subject.groups:
                key = "alpha" if recipe.family == "diffusion" else "kappa"
                (low, high), (first, last) = group.settings[key], getattr(family, key)
                assert group.inside == (first <= low * 1.001 and high <= last * 1.001), group
    by_kappa = [g.settings["kappa"][0] for g in plan.subjects[0].groups]
    np.testing.assert_allclose(by_kappa, 10 ** np.arange(1, 8.1, 0.5))
    assert [s.heads["token head"].model.n for s in plan.subjects if "diffusion" in s.name] == [16, 32, 64, 128]
    assert {"randsvd", "normal-equations", "diffusion"} == {s.heads["token head"].family for s in plan.subjects}


@pytest.mark.parametrize("preset", study.PRESETS)
def test_operator_heads_at_16_read_everything(preset: str) -> None:
    recipe = study.PRESETS[preset].subjects[0].heads["operator head"]
    assert (recipe.model.head.rank, recipe.model.head.n_column, recipe.model.head.n_row) == (256, 16, 16)


# ---------------------------------------------------------------- outcomes


def record(
    subject: str, head: str, kappa: float, inside: bool, mse: float, lapack: float, **more: Any
) -> dict[str, Any]:
    return {
        "subject": subject,
        "head": head,
        "seed": 0,
        "group": f"kappa {kappa:.1e}",
        "inside": inside,
        "kappa": kappa,
        "normalized_mse": mse,
        "contraction": 0.1,
        "distance": 0.5 if inside else 3.0,
        "lapack": lapack,
        "certified": 1.0,
        "refinements": None if lapack == 1 else 4.0,
    } | more


def series(
    subject: str, head: str, inside: tuple[float, float], far: tuple[float, float], **more: Any
) -> list[dict[str, Any]]:
    """Two groups inside the training, one near it and two far above."""
    kappas = (1e3, 1e4, 3e4, 1e5, 1e6)
    return [record(subject, head, k, k < 2e4, *(inside if k < 2e4 else far), **more) for k in kappas]


def outcomes(records: list[dict[str, Any]]) -> dict[str, Outcome]:
    rows = report.averaged(records)
    return report.outcomes({"rows": rows, "systems": 10, "runs": [{"seed": 0}]})


GOOD, LOST, NOTHING = (0.01, 0.0), (0.7, 1.0), (0.95, 1.0)


def test_what_is_expected() -> None:
    records = series("randsvd, Haar", "token head", NOTHING, NOTHING) + series("near", "operator head", GOOD, LOST)
    found = outcomes(records)
    haar = found["condition.haar/token head"]
    assert (haar.verdict, haar.numbers["normalized_mse"], haar.numbers["solved"]) == (Verdict.FAILS, 0.95, 0)
    assert (haar.numbers["kappa_min"], haar.numbers["kappa_max"]) == (1e3, 1e4)
    far = found["condition.far-above-training"]
    assert far.verdict == Verdict.SMALLER_SCALE
    assert far.numbers == {"worse": 1, "networks": 1, "ratio_min": pytest.approx(70), "ratio_max": pytest.approx(70)}
    assert found["condition.lost/near (operator head)"].numbers == {
        "network": "near (operator head)", "near": 0.01, "far": pytest.approx(0.7),
    }  # fmt: skip
    works, nowhere = (
        found[f"condition.works/{name}"] for name in ("near (operator head)", "randsvd, Haar (token head)")
    )
    assert (works.verdict, works.numbers["kappa"]) == (Verdict.HOLDS, "1.0e+03 to 1.0e+04")
    assert (nowhere.verdict, nowhere.numbers["kappa"], nowhere.numbers["solved_inside"]) == (Verdict.FAILS, "", 0)
    assert found["condition.distance"].numbers == {
        "networks": 1, "near_groups": 2, "near_solved": 1.0, "far_groups": 3, "far_solved": 0.0,
    }  # fmt: skip
    assert found["condition.certified"].numbers == {"answers": 100, "missing": 0}
    assert found["condition.certified"].verdict == Verdict.HOLDS


@pytest.mark.parametrize(
    ("inside", "far", "expected"),
    [
        (GOOD, (0.001, 0.0), Verdict.NOT_REPRODUCED),
        (NOTHING, NOTHING, Verdict.INCONCLUSIVE),
        (GOOD, (float("inf"), 1.0), Verdict.SMALLER_SCALE),
    ],
)
def test_lost_accuracy_either_way(inside: tuple[float, float], far: tuple[float, float], expected: Verdict) -> None:
    found = outcomes(series("a", "token head", inside, far))
    assert found["condition.far-above-training"].verdict == expected


def test_lost_accuracy_of_some() -> None:
    found = outcomes(series("a", "token head", GOOD, LOST) + series("b", "token head", GOOD, GOOD))
    whole = found["condition.far-above-training"]
    assert whole.verdict == Verdict.PARTLY_REPRODUCED
    assert (whole.numbers["worse"], whole.numbers["networks"]) == (1, 2)


def test_haar_matrices_either_way() -> None:
    for inside, verdict in ((GOOD, Verdict.HOLDS), ((0.2, 1.0), Verdict.PARTLY), (NOTHING, Verdict.FAILS)):
        found = outcomes(series("randsvd, Haar", "token head", inside, LOST))
        assert found["condition.haar/token head"].verdict == verdict


def test_around_and_far_above_1e5() -> None:
    none = outcomes([record("a", "h", 1e3, True, *GOOD)])
    assert none["condition.around-1e5"].verdict == none["condition.beyond-1e5"].verdict == Verdict.INCONCLUSIVE
    good = outcomes([record("a", "h", 3.5e5, True, *GOOD), record("a", "h", 5e6, True, *GOOD)])
    around, beyond = good["condition.around-1e5"], good["condition.beyond-1e5"]
    assert (around.verdict, beyond.verdict) == (Verdict.SMALLER_SCALE, Verdict.HOLDS)
    assert (around.numbers["learned"], around.numbers["networks"], around.numbers["solved_max"]) == (1, 1, 1.0)
    assert (beyond.numbers["works"], beyond.numbers["groups"]) == (1, 1)
    bad = outcomes([record("a", "h", 3.5e5, True, *NOTHING), record("a", "h", 5e6, True, 0.9, 0.75)])
    around, beyond = bad["condition.around-1e5"], bad["condition.beyond-1e5"]
    assert (around.verdict, beyond.verdict) == (Verdict.NOT_REPRODUCED, Verdict.FAILS)
    assert beyond.numbers == {"works": 0, "groups": 1, "best": "a (h)", "kappa": 5e6, "solved": 0.25}
    some = outcomes([record("a", "h", 5e6, True, *GOOD), record("a", "h", 6e6, False, *LOST)])
    assert some["condition.beyond-1e5"].verdict == Verdict.PARTLY


def test_every_outcome_has_a_sentence() -> None:
    records = series("randsvd, Haar", "token head", NOTHING, NOTHING) + series("b", "h", GOOD, LOST)
    found = outcomes([*records, record("c", "h", 3.5e5, True, *GOOD)])
    lines = conclusions(found, report.SENTENCES)
    assert len(lines) == len(found)
    assert lines[0].startswith("Haar-random matrices are not learned by a network of this size")
    assert "b (h): normalized_mse 0.01 in the training, 0.7 at kappa from 1e5 to 1e6." in lines
    assert (
        "b (h): works (99 % solved without LAPACK) for kappa 1.0e+03 to 1.0e+04; 100 % solved inside the family."
        in (lines)
    )
    assert conclusions(outcomes([record("a", "h", 1e3, True, *NOTHING)]), report.SENTENCES)[1].endswith("has them.")


def test_ranges_have_gaps() -> None:
    rows = [{"kappa": 10.0**k, "solved": solved} for k, solved in enumerate((1.0, 1.0, 0.5, 1.0, 0.0))]
    assert report.reach(rows[::-1]) == "1.0e+00 to 1.0e+01, 1.0e+03"
    assert report.reach(rows[2:3]) == ""


def test_averages_are_over_the_seeds() -> None:
    records = [
        record("a", "h", 10.0, False, mse, lapack, seed=seed, refinements=refinements)
        for seed, (mse, lapack, refinements) in enumerate(((0.1, 0.0, 2.0), (0.3, 1.0, None), ("inf", 0.5, 6.0)))
    ]
    (row,) = report.averaged(records)
    assert (row["normalized_mse"], row["normalized_mse_min"], row["normalized_mse_max"]) == ("inf", 0.1, "inf")
    assert (row["solved"], row["refinements"]) == (0.5, 4.0)
    (row,) = report.averaged(records[:2])
    assert row["normalized_mse"] == pytest.approx(0.2)


def test_missing_certificates_are_counted() -> None:
    records = series("a", "h", GOOD, LOST, certified=0.9)
    found = outcomes(records)["condition.certified"]
    assert (found.verdict, found.numbers) == (Verdict.FAILS, {"answers": 50, "missing": 5})


# ---------------------------------------------------------------- the whole


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    folder = tmp_path_factory.mktemp("condition")
    return run_study(load_study("condition"), "quick", folder, Progress(disable=True)), folder


def solver(quick: tuple[Report, Path], subject: str, head: str) -> LearnedSolver:
    return LearnedSolver.from_pretrained(quick[1] / study.folder_name(subject, head, 0))


def test_every_answer_is_certified_and_haar_is_not_learned(quick: tuple[Report, Path]) -> None:
    rows = quick[0].data["rows"]
    assert all(row["certified"] == 1 for row in rows)
    haar = [row for row in rows if row["subject"] == "randsvd, Haar"]
    assert len(haar) == 8
    assert all(float(row["normalized_mse"]) > 0.5 and row["solved"] == 0 for row in haar)
    assert quick[0].outcomes["condition.haar/token head"].verdict == Verdict.FAILS
    near = [row for row in rows if (row["subject"], row["head"]) == ("randsvd, spread 0.001", "operator head")]
    assert min(float(row["normalized_mse"]) for row in near if row["inside"]) < 0.5
    np.testing.assert_allclose([row["kappa"] for row in near], [1e2, 1e3, 1e4, 1e5], rtol=1e-6)


def test_measures_of_a_token_head_by_hand(quick: tuple[Report, Path]) -> None:
    token = solver(quick, "diffusion, n = 16", "token head")
    systems = get("diffusion", n=16).sample(12, TEST_SEED)
    found = study.measure(token, systems)
    x = token.predict(systems.A, systems.b)
    assert found["normalized_mse"] == pytest.approx(np.sum((x - systems.x) ** 2) / np.sum(systems.x**2))
    shares = []
    for i in range(12):
        again = x[i] + token.predict(systems.A[i], systems.b[i] - systems.A[i] @ x[i])
        shares.append(np.linalg.norm(again - systems.x[i]) / np.linalg.norm(x[i] - systems.x[i]))
    assert found["contraction"] == pytest.approx(np.median(shares), rel=1e-3)
    with torch.no_grad():
        farthest = token.model.token_head.scaler.distance(
            torch.from_numpy(get("diffusion", n=16).sample(256, SCALER_SEED).A)
        ).max()
    assert (
        study.distance(token, systems).max() < float(farthest) / float(token.model.token_head.scaler.max_distance) * 1.3
    )


def test_measures_of_an_operator_head_by_hand(quick: tuple[Report, Path]) -> None:
    operator = solver(quick, "diffusion, n = 16", "operator head")
    systems = get("diffusion", n=16).sample(6, TEST_SEED)
    found = study.measure(operator, systems)
    radii = []
    for A in systems.A:
        M = operator.operator(A) @ np.eye(16)
        radii.append(np.abs(np.linalg.eigvals(np.eye(16) - M @ A)).max())
    assert found["contraction"] == pytest.approx(np.median(radii), rel=1e-3)
    for samples in (systems, get("randsvd", n=16).sample(6), get("diffusion", n=16, alpha=(0.99, 0.99)).sample(6)):
        result = operator.solve(samples.A, samples.b)
        np.testing.assert_array_equal(study.distance(operator, samples) <= 1, result.in_distribution)
        assert study.measure(operator, samples)["lapack"] == np.mean(result.method == "lapack")


def test_networks_are_trained_once(quick: tuple[Report, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studies.harness.runs.train", lambda *_, **__: pytest.fail("trained again"))
    again = run_study(load_study("condition"), "quick", quick[1], Progress(disable=True))
    assert again.data["rows"] == quick[0].data["rows"]


def test_figure_and_tables(quick: tuple[Report, Path], tmp_path: Path) -> None:
    assert_tables_and_figure("condition", quick[0], tmp_path)
    figure = load_study("condition").figure(quick[0].data)
    assert "Limits" in figure.get_suptitle()
