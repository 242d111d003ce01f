"""Kernel matrices against scikit-learn's, and the systems of its Gaussian process regression."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as theirs

from algebraformer.errors import ConfigurationError
from algebraformer.problems import KernelFamily, generator
from algebraformer.problems.kernels import KERNELS
from algebraformer.testing import check_family

EPS = np.finfo(np.float64).eps
SMOOTHNESS = {"rbf": np.inf, "matern-1/2": 0.5, "matern-3/2": 1.5, "matern-5/2": 2.5}
every_kernel = pytest.mark.parametrize("kernel", KERNELS)


def sklearn_kernel(kernel: str, signal: float, noise: float, length: np.ndarray) -> theirs.Kernel:
    shape = theirs.RBF(length) if kernel == "rbf" else theirs.Matern(length, nu=SMOOTHNESS[kernel])
    return theirs.ConstantKernel(signal) * shape + theirs.WhiteKernel(noise)


@every_kernel
@pytest.mark.parametrize("per_dimension", [False, True])
@pytest.mark.parametrize(("dimensions", "points_seed", "n"), [(1, None, 20), (2, None, 25), (3, None, 27), (3, 4, 20)])
def test_matrices_and_weights_are_scikit_learns(
    kernel: Any, per_dimension: bool, dimensions: int, points_seed: int | None, n: int
) -> None:
    family = KernelFamily(
        n=n, kernel=kernel, per_dimension=per_dimension, dimensions=dimensions, points_seed=points_seed
    )
    systems = family.sample(4, seed=1)
    p = systems.params
    assert p["length_scale"].shape == (4, dimensions if per_dimension else 1)
    for i in range(4):
        length = p["length_scale"][i] if per_dimension else p["length_scale"][i, 0]
        expected = sklearn_kernel(kernel, p["signal_variance"][i], p["noise_variance"][i], length)
        np.testing.assert_allclose(systems.A[i], expected(family.points), rtol=1e-12, atol=1e-300)
        fitted = GaussianProcessRegressor(expected, alpha=0.0, optimizer=None).fit(family.points, systems.b[i])
        size = np.linalg.cond(systems.A[i]) * np.abs(systems.x[i]).max()
        np.testing.assert_allclose(systems.x[i], np.ravel(fitted.alpha_), rtol=0, atol=100 * EPS * size)


@every_kernel
@pytest.mark.parametrize(("dimensions", "points_seed"), [(1, None), (2, None), (3, None), (1, 0), (3, 0)])
def test_matrices_are_positive_definite(kernel: Any, dimensions: int, points_seed: int | None) -> None:
    """Smallest eigenvalue sigma^2 or more, largest n s^2 + sigma^2 or less, symmetric to the last bit."""
    family = KernelFamily(n=64, kernel=kernel, dimensions=dimensions, points_seed=points_seed)
    systems = family.sample(50, seed=3)
    assert np.array_equal(systems.A, systems.A.transpose(0, 2, 1))
    signal, noise = systems.params["signal_variance"], systems.params["noise_variance"]
    for A, b, z, s2, sigma2 in zip(systems.A, systems.b, systems.params["z"], signal, noise, strict=True):
        np.testing.assert_allclose(b, scipy.linalg.cholesky(A, lower=True) @ z, atol=1e-12)
        values = scipy.linalg.eigvalsh(A)
        assert values[0] >= sigma2 - 64 * EPS * values[-1]
        assert values[-1] <= (64 * s2 + sigma2) * (1 + 64 * EPS)


@pytest.mark.parametrize("length_scale", [0.1, 1.0])
@every_kernel
def test_cholesky_works_for_the_worst_parameters(kernel: Any, length_scale: float) -> None:
    """The largest signal and the smallest noise of the default limits, many and close points."""
    ends = {"length_scale": (length_scale,) * 2, "signal_variance": (2.0, 2.0), "noise_variance": (1e-3, 1e-3)}
    A = KernelFamily(n=400, kernel=kernel, **ends).sample(1).A[0]
    factor = scipy.linalg.cholesky(A, lower=True)
    assert np.linalg.norm(factor @ factor.T - A) <= 400 * EPS * np.linalg.norm(A)


@pytest.mark.parametrize(("dimensions", "side"), [(1, 7), (2, 4), (3, 3)])
def test_grids(dimensions: int, side: int) -> None:
    points = KernelFamily(n=side**dimensions, dimensions=dimensions).points
    places = [i / (side - 1) for i in range(side)]
    np.testing.assert_allclose(points, list(itertools.product(places, repeat=dimensions)), atol=EPS)
    assert not points.flags.writeable


def test_seeded_points() -> None:
    """Uniform, the same whenever asked for, others for another seed, and not the numbers that a system draws."""
    points = KernelFamily(n=500, dimensions=3, points_seed=1).points
    assert scipy.stats.kstest(points.ravel(), "uniform").pvalue > 1e-4
    assert np.array_equal(points, KernelFamily(n=500, dimensions=3, points_seed=1, kernel="matern-1/2").points)
    assert not np.intersect1d(points, KernelFamily(n=500, dimensions=3, points_seed=2).points).size
    assert not np.intersect1d(points, generator(1, 0).random(1500)).size


@pytest.mark.parametrize("name", ["length_scale", "signal_variance", "noise_variance"])
def test_parameters_are_log_uniform(name: str) -> None:
    family = KernelFamily(n=8, dimensions=3, per_dimension=True)
    low, high = np.log(getattr(family, name))
    drawn = np.log(family.parameters(range(2000))[name])
    for column in drawn.reshape(2000, -1).T:
        assert scipy.stats.kstest(column, "uniform", (low, high - low)).pvalue > 1e-4
    with pytest.raises(ConfigurationError, match=f"{name} must be positive"):
        KernelFamily(**{name: (0.0, 1.0)})


@pytest.mark.parametrize(
    "settings",
    [{"n": 1}, {"n": 16, "dimensions": 2}, {"n": 10, "dimensions": 3, "points_seed": 7, "per_dimension": True}],
)
def test_other_settings_keep_the_contract(settings: dict[str, Any]) -> None:
    check_family(KernelFamily(kernel="matern-3/2", **settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": "matern"}, "kernel must be one of rbf, matern-1/2, matern-3/2, matern-5/2, received 'matern'"),
        ({"dimensions": 4}, "dimensions must be 1, 2 or 3, received 4"),
        ({"dimensions": 0}, "dimensions must be a whole number"),
        ({"n": 10, "dimensions": 2}, "n must be a square for a grid in 2 dimensions, received 10"),
        ({"n": 10, "dimensions": 3}, "n must be a cube"),
        ({"points_seed": -1}, "seed must be a whole number"),
        ({"points_seed": 0.5}, "seed must be a whole number"),
        ({"per_dimension": 1}, "per_dimension must be True or False, received 1"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        KernelFamily(**settings)


def test_too_little_noise_is_refused() -> None:
    family = KernelFamily(n=64, length_scale=(1.0, 1.0), noise_variance=(1e-20, 1e-20))
    with pytest.raises(ConfigurationError, match=r"positive definite in float64.*noise_variance .1e-20, 1e-20."):
        family.sample(1)
