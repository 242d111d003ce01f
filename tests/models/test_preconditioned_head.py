"""Preconditioned heads: what they read, what they are trained on, and that a body which carries b is linear in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from algebraformer import problems
from algebraformer.errors import ConfigurationError
from algebraformer.models import Algebraformer, ModelConfig, OperatorConfig, PreconditionedConfig
from algebraformer.models.heads.preconditioned import ROUGHNESS, RoughExamples
from algebraformer.models.heads.scaler import PreconditionedScaler
from head_contract import begin, build

N = 6
FAMILY = problems.get("reaction-diffusion", n=N)
ROUNDING = 1e-5


def config(architecture: str) -> ModelConfig:
    return ModelConfig(n=N, architecture=architecture, head=PreconditionedConfig(), n_layer=2, n_head=2, n_embd=8)


@torch.no_grad()
def test_a_carrier_is_linear_in_b() -> None:
    model, systems = build(config("carrier"), FAMILY), FAMILY.sample(20, seed=3)
    A, b = torch.from_numpy(systems.A), torch.from_numpy(systems.b)
    together, parts = model(A, b - 2.5 * b.flip(0)), model(A, b) - 2.5 * model(A, b.flip(0))
    assert (together - parts).norm() < ROUNDING * parts.norm()
    assert not model(A, torch.zeros_like(b)).any()


@torch.no_grad()
def test_another_body_is_not() -> None:
    model, systems = build(config("transformer"), FAMILY), FAMILY.sample(20, seed=3)
    A, b = torch.from_numpy(systems.A), torch.from_numpy(systems.b)
    error = model(A, b + b.flip(0)) - model(A, b) - model(A, b.flip(0))
    assert error.norm() > 0.01 * model(A, b).norm()


@torch.no_grad()
def test_tokens_are_standardised_columns_of_the_preconditioned_matrix() -> None:
    """Against the formula, and with mean 0 and variance 1 over the sample; where nothing varies there is nothing."""
    sample = FAMILY.sample(64, seed=1)
    scaler = begin(Algebraformer(config("carrier")), FAMILY).head.scaler
    A, b = torch.from_numpy(sample.A), torch.from_numpy(sample.b)
    P_A, P_b, size = scaler.preconditioned(A, b)
    s_A, answers = scaler.preconditioned_matrix(A)[1].numpy(), (P_b * size[:, None]).numpy()
    scaled = sample.A / s_A[:, None, None]
    mean = scaled.mean(axis=0)
    expected = np.linalg.solve(mean, scaled)
    np.testing.assert_allclose(P_A, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(answers * s_A[:, None], np.linalg.solve(mean, sample.b.T).T, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(P_b.square().mean(dim=1), 1, rtol=1e-12)

    tokens = scaler.tokens(P_A, P_b, with_b=False).numpy()
    varies = 1e-6 * expected.std(axis=0).max() < expected.std(axis=0).T
    assert varies.any()
    np.testing.assert_allclose(tokens.mean(axis=0), 0, atol=1e-7)
    np.testing.assert_allclose(tokens.std(axis=0, ddof=1), varies, atol=1e-7)
    assert scaler.tokens(P_A, P_b, with_b=True).shape == (64, N, N + 1)


def test_what_a_carrier_learns_from() -> None:
    """Solutions with white noise in them, the same for an index in whatever batch it is drawn."""
    A, b, x = (part.numpy() for part in RoughExamples()(FAMILY, range(200), 7))
    systems = FAMILY.at(range(200), 7)
    np.testing.assert_array_equal(A, systems.A)
    np.testing.assert_allclose(np.linalg.solve(A, b[:, :, None])[:, :, 0], x, rtol=1e-9)
    noise = (x - systems.x) / np.sqrt(np.mean(systems.x**2, axis=1, keepdims=True))
    assert noise.std() == pytest.approx(ROUGHNESS, rel=0.1)
    np.testing.assert_array_equal(RoughExamples()(FAMILY, [5, 130], 7)[2], x[[5, 130]])


def test_a_singular_mean_is_refused() -> None:
    A = torch.randn(20, N, N, dtype=torch.float64)
    A[:, 0] = 0
    with pytest.raises(ConfigurationError, match="mean"):
        PreconditionedScaler(N).fit(A, A[:, 1], A[:, 2])


def test_bodies_and_heads_that_do_not_go_together() -> None:
    with pytest.raises(ConfigurationError, match="carrier"):
        ModelConfig(n=N, architecture="carrier", head=OperatorConfig(rank=3, n_column=2, n_row=2))
    with pytest.raises(ConfigurationError, match="carrier"):
        ModelConfig(n=N, architecture="carrier")
