"""The study of condition numbers: its groups, its measures against closed forms, its sentences, its quick preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.progress import Progress

from algebraformer.problems import get
from algebraformer.reporting import Report
from algebraformer.solver import LearnedSolver
from algebraformer.training.data import SCALER_SEED, TEST_SEED
from studies.condition import measure as study
from studies.condition import report as words
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


# ---------------------------------------------------------------- sentences


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


def sentences(records: list[dict[str, Any]]) -> list[str]:
    return words.verdict(words.averaged(records), 10, records)


GOOD, LOST, NOTHING = (0.01, 0.0), (0.7, 1.0), (0.95, 1.0)


def test_what_is_expected() -> None:
    records = series("randsvd, Haar", "token head", NOTHING, NOTHING) + series("near", "operator head", GOOD, LOST)
    lines = sentences(records)
    assert "does not learn to invert them" in lines[0]
    assert "normalized_mse is 0.95" in lines[0]
    assert '"Less accurate where' in lines[1]
    assert "reproduced at smaller scale" in lines[1]
    assert "0.01 to 0.7 for near (operator head)" in lines[1]
    text = " ".join(lines)
    assert "near (operator head): 1.0e+03 to 1.0e+04." in text
    assert "It works nowhere, with the share solved inside the family: randsvd, Haar (token head), 0 %." in text
    assert "solve 100 % in 2 groups whose median distance is at most 1 and 0 % in 3 groups" in text
    assert lines[-1].startswith("All 100 answers of solve are certified")


@pytest.mark.parametrize(
    ("inside", "far", "expected"),
    [
        (GOOD, (0.001, 0.0), "not reproduced"),
        (NOTHING, NOTHING, "not decided"),
        (GOOD, (float("inf"), 1.0), "reproduced at smaller scale"),
    ],
)
def test_lost_accuracy_either_way(inside: tuple[float, float], far: tuple[float, float], expected: str) -> None:
    assert f": {expected}" in words.lost_verdict(words.averaged(series("a", "token head", inside, far)))


def test_lost_accuracy_of_some() -> None:
    records = series("a", "token head", GOOD, LOST) + series("b", "token head", GOOD, GOOD)
    assert "holds for 1 of 2 networks" in words.lost_verdict(words.averaged(records))


def test_haar_matrices_either_way() -> None:
    for inside, expected in ((GOOD, "inverts them"), ((0.2, 1.0), "learns something"), (NOTHING, "does not learn")):
        (line,) = words.haar_verdict(words.averaged(series("randsvd, Haar", "token head", inside, LOST)))
        assert expected in line


def test_around_and_far_above_1e5() -> None:
    none = words.averaged([record("a", "h", 1e3, True, *GOOD)])
    assert "no family of this study has them" in words.around_verdict(none)
    assert "none of this study's groups" in words.beyond_verdict(none)
    good = words.averaged([record("a", "h", 3.5e5, True, *GOOD), record("a", "h", 5e6, True, *GOOD)])
    assert "reproduced at smaller scale, 1 of 1" in words.around_verdict(good)
    assert "1 of 1 groups and networks work: a (h): 5.0e+06" in words.beyond_verdict(good)
    bad = words.averaged([record("a", "h", 3.5e5, True, *NOTHING), record("a", "h", 5e6, True, 0.9, 0.75)])
    assert "not reproduced, 0 of 1" in words.around_verdict(bad)
    assert "the largest share solved without LAPACK is 25 %, a (h) at kappa 5.0e+06" in words.beyond_verdict(bad)


def test_ranges_have_gaps() -> None:
    rows = [{"kappa": 10.0**k, "solved": solved} for k, solved in enumerate((1.0, 1.0, 0.5, 1.0, 0.0))]
    assert words.reach(rows[::-1]) == "1.0e+00 to 1.0e+01, 1.0e+03"
    assert words.reach(rows[2:3]) == ""


def test_averages_are_over_the_seeds() -> None:
    records = [
        record("a", "h", 10.0, False, mse, lapack, seed=seed, refinements=refinements)
        for seed, (mse, lapack, refinements) in enumerate(((0.1, 0.0, 2.0), (0.3, 1.0, None), ("inf", 0.5, 6.0)))
    ]
    (row,) = words.averaged(records)
    assert (row["normalized_mse"], row["normalized_mse_min"], row["normalized_mse_max"]) == ("inf", 0.1, "inf")
    assert (row["solved"], row["refinements"]) == (0.5, 4.0)
    (row,) = words.averaged(records[:2])
    assert row["normalized_mse"] == pytest.approx(0.2)


def test_missing_certificates_are_said() -> None:
    records = series("a", "h", GOOD, LOST, certified=0.9)
    assert "Of 50 answers of solve 5 are not certified" in words.certified_verdict(10, records)


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
    assert "does not learn to invert them" in quick[0].verdict[0]
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
    assert "Where it works and where it does not" in figure.get_suptitle()
