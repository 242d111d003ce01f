"""Complex families end to end: training, checkpoints, solving, transposes, and what is refused."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
from scipy.sparse.linalg import gmres
from threadpoolctl import threadpool_limits

import algebraformer as af
from algebraformer import problems
from algebraformer.checkpoint import save
from algebraformer.errors import ConfigurationError, FallbackWarning, Status
from algebraformer.models import Algebraformer, EstimateConfig, ModelConfig, OperatorConfig, TokenConfig
from algebraformer.numerics.lapack import Factors
from algebraformer.solver import LearnedSolver
from algebraformer.training import Recipe, RunOptions, train

N = 16
EPS = np.finfo(float).eps
SETTINGS = {"wave_number": [2.0, 5.0], "sigma": 0.05}
FAMILY = problems.get("helmholtz", n=N, wave_number=(2.0, 5.0), sigma=0.05)
HEAD = OperatorConfig(rank=40, n_column=8, n_row=8, whiten=True, numbers="complex")


def recipe(**changes: object) -> Recipe:
    model = ModelConfig(n=N, architecture="mlp", head=HEAD, n_layer=3, n_embd=64)
    settings = {"samples": 8_192, "steps": 500, "batch_size": 64, "lr": 3e-3, "model": model} | changes
    return Recipe(family="helmholtz", family_settings=SETTINGS, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "waves"
    with threadpool_limits(1, "blas"):
        assert train(recipe(), folder, RunOptions(progress=False, workers=0)).finished
    return folder


@pytest.fixture(scope="module")
def solver(run: Path) -> LearnedSolver:
    return LearnedSolver.from_pretrained(run)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        yield


def test_most_systems_are_solved_by_the_network(solver: LearnedSolver) -> None:
    systems = FAMILY.sample(300, seed=1)
    result = solver.solve(systems.A, systems.b)
    assert result.x.dtype == complex
    assert result.certified.all()
    assert np.mean(result.method == "lapack") <= 0.05
    r = systems.b - np.einsum("bij,bj->bi", systems.A.astype(np.clongdouble), result.x)
    size = np.einsum("bij,bj->bi", np.abs(systems.A), np.abs(result.x)) + np.abs(systems.b)
    assert (np.abs(r) / size).max() <= 1.1 * N * EPS
    error = np.linalg.norm(result.x - systems.x, axis=1) / np.linalg.norm(systems.x, axis=1)
    assert (error <= result.forward_error + 4 * EPS * np.linalg.cond(systems.A)).all()
    assert 0 < solver.info.scores["normalized_mse"] < 1e-2
    bare = solver.predict(systems.A, systems.b)
    wrong = np.sum(np.abs(bare - systems.x) ** 2) / np.sum(np.abs(systems.x) ** 2)
    assert wrong < 10 * solver.info.scores["normalized_mse"]


def test_real_right_hand_sides_and_several(solver: LearnedSolver) -> None:
    systems = FAMILY.sample(4, seed=2)
    b = np.random.default_rng(0).standard_normal((4, N, 3))
    np.testing.assert_allclose(solver.solve(systems.A, b).x, np.linalg.solve(systems.A, b), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("factor", [2.0, -1.0, 1j, 1e-3 * np.exp(1j), 1e100])
def test_multiples_of_a_matrix_have_multiples_of_its_inverse(solver: LearnedSolver, factor: complex) -> None:
    systems = FAMILY.sample(5, seed=3)
    x, scaled = solver.predict(systems.A, systems.b), solver.predict(factor * systems.A, systems.b)
    np.testing.assert_allclose(scaled * factor, x, atol=1e-3 * np.abs(x).max())
    assert solver.prepare(factor * systems.A).in_distribution.tolist() == [True] * 5


def test_transposes(solver: LearnedSolver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A^T, not the adjoint; without any factorisation."""
    systems = FAMILY.sample(5, seed=1)
    chosen = solver.prepare(systems.A).in_distribution
    A, b = systems.A[chosen], systems.b[chosen]
    monkeypatch.setattr(Factors, "of", None)
    result = solver.solve(A, b, transpose=True)
    exact = np.linalg.solve(A.swapaxes(1, 2), b[..., None])[..., 0]
    assert result.certified.all()
    np.testing.assert_allclose(result.x, exact, atol=1e-9 * np.abs(exact).max())


def test_prepare_and_operator(solver: LearnedSolver) -> None:
    systems = FAMILY.sample(3, seed=1)
    prepared = solver.prepare(systems.A)
    np.testing.assert_array_equal(prepared.solve(systems.b).x, solver.solve(systems.A, systems.b).x)
    expected, found = np.linalg.slogdet(systems.A), prepared.logdet()
    np.testing.assert_allclose(found.sign, expected.sign, atol=1e-10)
    np.testing.assert_allclose(found.logabsdet, expected.logabsdet, rtol=1e-12)
    operator, steps = solver.operator(systems.A[0]), []
    assert operator.dtype == complex
    x, info = gmres(
        systems.A[0], systems.b[0], M=operator, rtol=1e-8, callback=steps.append, callback_type="pr_norm", restart=N
    )
    assert info == 0
    assert len(steps) <= 8
    np.testing.assert_allclose(x, systems.x[0], rtol=1e-4, atol=1e-5 * np.abs(systems.x).max())


def test_scipys_solve(solver: LearnedSolver) -> None:
    systems = FAMILY.sample(3, seed=1)
    for A, b in ((systems.A, systems.b[0]), (systems.A[0], systems.b[0].real), (systems.A[0], systems.A[1])):
        found = af.solve(A, b, model=solver)
        assert found.dtype == complex
        np.testing.assert_allclose(found, scipy.linalg.solve(A, b), rtol=1e-7, atol=1e-9)
    single = af.solve(systems.A[0].astype(np.complex64), systems.b[0].astype(np.complex64), model=solver)
    assert single.dtype == np.complex64
    H = systems.A[0] + systems.A[0].conj().T + 1e4 * np.eye(N)
    for assume_a in ("her", "sym", "pos"):
        for lower in (False, True):
            options = {"assume_a": assume_a, "lower": lower}
            np.testing.assert_allclose(
                af.solve(systems.A[0] if assume_a == "sym" else H, systems.b[0], model=solver, **options),
                scipy.linalg.solve(systems.A[0] if assume_a == "sym" else H, systems.b[0], **options),
                rtol=1e-6,
                atol=1e-9,
            )
    with pytest.raises(NotImplementedError):
        af.solve(systems.A[0], systems.b[0], transposed=True, model=solver)
    real = np.eye(N) + 0.1 * np.ones((N, N))
    np.testing.assert_allclose(af.solve(real, np.ones(N), model=solver), scipy.linalg.solve(real, np.ones(N)))


def test_real_systems_are_left_to_lapack(solver: LearnedSolver) -> None:
    A, b = np.eye(N) + 0.1 * np.ones((2, N, N)), np.ones((2, N))
    result = solver.solve(A, b)
    assert result.x.dtype == float
    assert set(result.status) == {Status.UNSUPPORTED}
    for call in (lambda: solver.predict(A, b), lambda: solver.operator(A)):
        with pytest.raises(ValueError, match="the network reads complex systems, received real numbers"):
            call()
    with pytest.raises(ValueError, match="the model supports complex systems with n = 16, received real ones"):
        solver.solve(A, b, fallback=False)


def test_other_complex_matrices_are_not_in_distribution(solver: LearnedSolver) -> None:
    A = np.random.default_rng(0).standard_normal((4, N, N)) + 1j
    assert not solver.prepare(A).in_distribution.any()
    assert set(solver.solve(A, np.ones((4, N))).status) == {Status.OUT_OF_DISTRIBUTION}


def test_checkpoints_hold_the_basis(solver: LearnedSolver, tmp_path: Path) -> None:
    """Saved and loaded, the same answers, bit for bit."""
    save(tmp_path / "copy", solver.model, solver.info)
    again, systems = LearnedSolver.from_pretrained(tmp_path / "copy"), FAMILY.sample(3, seed=1)
    np.testing.assert_array_equal(again.predict(systems.A, systems.b), solver.predict(systems.A, systems.b))
    assert solver.model.config.head.settings()["numbers"] == "complex"
    assert "numbers" not in dataclasses.replace(HEAD, numbers="real").settings()  # as in older checkpoints


def test_loss_is_the_error_of_the_coefficients(solver: LearnedSolver) -> None:
    """By NumPy's complex numbers, from the network's own coefficients."""
    head = solver.model.operator_head
    batch = head.example_maker(solver.model)(FAMILY, range(20), 5)
    z, c, weight = head.basis.coefficients(FAMILY.sample(20, seed=5).A)
    assert [tuple(part.shape) for part in batch] == [z.shape, (20, 80), (20,)]
    wrong = np.sum(np.abs(head.coefficients(solver.model, z) - c) ** 2, axis=1)
    expected = np.mean(weight**2 * wrong) / np.sum(head.basis.coefficient_rms**2)
    assert float(solver.model.loss(*batch).detach()) == pytest.approx(expected, rel=1e-3)


def test_a_recipe_for_any_complex_family() -> None:
    made = af.recipe_for(problems.get("helmholtz", n=8))
    assert made.model.head.kind == "c"
    assert Algebraformer(made.model).config == made.model


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(n=N, head=TokenConfig(), n_layer=1, n_head=2, n_embd=8),
        ModelConfig(n=N, head=dataclasses.replace(HEAD, numbers="real"), architecture="mlp", n_layer=1, n_embd=8),
    ],
)
def test_heads_that_read_real_systems_are_refused(model: ModelConfig) -> None:
    with pytest.raises(ConfigurationError, match="helmholtz is a complex family: it needs an operator head"):
        recipe(model=model)
    with pytest.raises(ConfigurationError, match="diffusion is a real family: it needs an operator head"):
        Recipe(family="diffusion", model=recipe().model)


def test_estimate_heads_learn_no_complex_family() -> None:
    model = ModelConfig(n=N, head=EstimateConfig(), n_layer=1, n_head=2, n_embd=8)
    with pytest.raises(ConfigurationError, match="an estimate head learns a noisy family"):
        recipe(model=model)
    with pytest.raises(ConfigurationError, match="numbers must be one of real, complex"):
        dataclasses.replace(HEAD, numbers="quaternion")  # type: ignore[arg-type]
