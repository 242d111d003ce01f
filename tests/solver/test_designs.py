"""`designs.minimize`: many right-hand sides for one design, with a network and without."""

from __future__ import annotations

import numpy as np
import pytest

from algebraformer import LearnedSolver, designs, newton, problems
from algebraformer.errors import ConfigurationError, SingularSystemError
from algebraformer.models import ModelConfig, OperatorConfig
from algebraformer.numerics.lp_design import Hessians
from algebraformer.training import Recipe, train

P = 4.0


@pytest.fixture(scope="module")
def solver(tmp_path_factory: pytest.TempPathFactory) -> LearnedSolver:
    """A network with hardly any training."""
    head = OperatorConfig(rank=16, n_column=8, n_row=8, whiten=True)
    recipe = Recipe(
        family="lp-hessian",
        family_settings={"kind": "filter", "p": P},
        model=ModelConfig(n=8, architecture="mlp", head=head, n_layer=2, n_embd=32),
        samples=128,
        steps=30,
        basis_samples=128,
        calibration_samples=128,
        batch_size=32,
        lr=3e-3,
    )
    folder = tmp_path_factory.mktemp("run") / "net"
    train(recipe, folder)
    return LearnedSolver.from_pretrained(folder)


def right_hand_sides(count: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    family = problems.get("lp-hessian", n=8, p=P)
    return family.design().A, family.parameters(range(count), seed)["b"]


@pytest.mark.parametrize("learned", [False, True])
def test_the_optimum_is_that_of_newtons_method(learned: bool, solver: LearnedSolver) -> None:
    A, b = right_hand_sides(12)
    result = designs.minimize(A, b, P, solver=solver if learned else None)
    reference = newton.minimize_lp(np.broadcast_to(A, (12, *A.shape)), b, P, tol=1e-11)
    assert result.success.all()
    assert result.gradient_norm.max() <= 1e-8
    assert result.fun == pytest.approx(reference.fun, rel=1e-10)
    assert result.dual_gap.max() < 1e-6
    assert (result.n_inexact <= result.nit).all()
    assert (result.n_factorisations >= result.nit - result.n_inexact).all()
    if not learned:
        assert result.n_factorisations.max() == 0
    else:
        assert result.n_inexact.sum() > 0


def test_other_coordinates_of_the_same_range(solver: LearnedSolver) -> None:
    A, b = right_hand_sides(4)
    G = np.random.default_rng(0).standard_normal((8, 8))
    x = designs.minimize(A, b, P, solver=solver).x
    y = designs.minimize(A @ G, b, P, solver=solver).x
    assert y @ G.T == pytest.approx(x, abs=1e-6 * np.abs(x).max())


@pytest.mark.parametrize("broken", ["nan", "zero", "negative"])
def test_whatever_the_network_predicts_the_answer_is_the_optimum(broken: str) -> None:
    A, b = right_hand_sides(5)
    family = problems.get("lp-hessian", n=8, p=P)
    design = family.design()
    factor = {"nan": np.nan, "zero": 0.0, "negative": -1.0}[broken]

    class Inverse:
        def __call__(self, r: np.ndarray) -> np.ndarray:
            return factor * r

        def __getitem__(self, chosen: object) -> Inverse:
            return self

    def read(H: Hessians) -> Inverse:
        return Inverse()

    r = design.regression(b, P).r
    found = designs.descend(design, r, P, designs.LearnedInverse(read), 1e-8, 100)
    best = designs.minimize(A, b, P).fun
    size = np.sum(np.abs(r + found.y @ design.Q.T) ** P, axis=1)
    assert size == pytest.approx(best, rel=1e-10)
    if broken == "negative":  # conjugate residuals do not mind a sign
        assert found.factorisations.max() == 0
    else:
        assert (found.factorisations == found.iterations).all()


def test_interpolated_and_too_few_iterations() -> None:
    result = designs.minimize(np.eye(4)[:, :3], [[1.0, 2, 3, 0], [1, 2, 3, 4]], 6.0)
    assert result.status.tolist() == [newton.INTERPOLATED, newton.CONVERGED]
    assert result.x == pytest.approx(np.array([[1.0, 2, 3], [1, 2, 3]]))
    A, b = right_hand_sides(3)
    result = designs.minimize(A, b, P, maxiter=1)
    assert set(result.status) == {newton.LIMIT}
    assert not result.success.any()


@pytest.mark.parametrize(
    ("A", "b", "p", "error"),
    [
        (np.ones((2, 3, 1)), np.ones((2, 3)), 4.0, ValueError),
        (np.ones((3, 1)), np.ones(3), 4.0, ValueError),
        (np.ones((3, 1)), np.full((1, 3), np.nan), 4.0, ValueError),
        (np.ones((3, 1)), np.ones((1, 3)), 1.5, ValueError),
        (np.ones((3, 1)), np.ones((1, 3)), [4.0], ValueError),
        (np.ones((3, 2)), np.ones((1, 3)), 4.0, SingularSystemError),
    ],
)
def test_bad_input(A: np.ndarray, b: np.ndarray, p: float, error: type[Exception]) -> None:
    with pytest.raises(error):
        designs.minimize(A, b, p)


def test_networks_for_something_else(solver: LearnedSolver) -> None:
    A, b = right_hand_sides(2)
    with pytest.raises(ConfigurationError):
        designs.minimize(A, b, 6.0, solver=solver)
    with pytest.raises(ConfigurationError):
        designs.minimize(A[::-1] + np.eye(*A.shape), b, P, solver=solver)
    with pytest.raises(ValueError, match="n = 8"):
        designs.minimize(A[:, :5], b, P, solver=solver)
    with pytest.raises(ConfigurationError):
        designs.minimize(A, b, P, solver="diffusion-64")
