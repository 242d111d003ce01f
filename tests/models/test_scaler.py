"""The scaler of token heads: its statistics, and what does not vary over a family."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_models import FAMILY, KINDS, N, build, tensors

from algebraformer.errors import ConfigurationError
from algebraformer.models import Algebraformer
from algebraformer.models.heads.scaler import FamilyScaler
from algebraformer.numerics.entry_sampler import select_entries


def test_scaler_statistics_against_numpy() -> None:
    systems = FAMILY.sample(50, seed=9)
    A, b, x = systems.A, systems.b, systems.x
    b[::2] *= -1  # both signs
    x[::2] *= -1
    scaler = Algebraformer(KINDS["transformer-token-column"]).token_head.scaler
    scaler.fit(*tensors(systems))
    weighed = A / np.sqrt(np.mean(A**2, axis=0))
    s_A = np.sqrt(np.mean(weighed**2, axis=(1, 2))) * np.sign(np.sum(weighed * weighed.mean(axis=0), axis=(1, 2)))
    s_b = np.sqrt(np.mean(b**2, axis=1)) * np.sign(b.sum(axis=1))
    A_scaled, b_scaled = weighed / s_A[:, None, None], b / s_b[:, None]
    x_rms = np.sqrt(np.mean((x / (s_b / s_A)[:, None]) ** 2, axis=0))
    for name, expected in (
        ("A_mean", A_scaled.mean(axis=0)),
        ("A_inverse_std", 1 / A_scaled.std(axis=0, ddof=1)),
        ("b_mean", b_scaled.mean(axis=0)),
        ("b_inverse_std", 1 / b_scaled.std(axis=0, ddof=1)),
        ("x_rms", x_rms),
    ):
        np.testing.assert_allclose(getattr(scaler, name), expected, rtol=1e-10, err_msg=name)
    z_A, z_b, size = scaler(torch.from_numpy(A), torch.from_numpy(b))
    np.testing.assert_allclose(z_A, (A_scaled - A_scaled.mean(axis=0)) / A_scaled.std(axis=0, ddof=1), atol=1e-9)
    np.testing.assert_allclose(z_b, (b_scaled - b_scaled.mean(axis=0)) / b_scaled.std(axis=0, ddof=1), atol=1e-9)
    np.testing.assert_allclose(scaler.answer(torch.ones(50, N), size), np.outer(s_b / s_A, x_rms), rtol=1e-12)


@pytest.mark.parametrize("constant", ["entries", "A", "b", "zeros", "everything"])
def test_what_is_constant_over_the_family_is_not_read(constant: str) -> None:
    """No spread gives a z-score of 0, not a division by it."""
    A, b, x = (tensor.clone() for tensor in tensors(FAMILY.sample(20, seed=10)))
    match constant:
        case "entries":
            A[:, 0, 1], A[:, 2, 3], b[:, 0], x[:, 1] = 0.0, 0.0, 0.0, 0.0
        case "A":
            A[:] = A[0]
        case "b":
            b[:] = b[0]
        case "zeros":
            b[:], x[:] = 0.0, 0.0
        case "everything":
            A[:], b[:], x[:] = A[0], b[0], x[0]
    model = build("transformer-token-column")
    model.token_head.scaler.fit(A, b, x)
    assert all(torch.isfinite(buffer).all() for buffer in model.buffers())
    assert torch.isfinite(model(A, b)).all()
    assert model.token_head.scaler.A_inverse_std.any() == (constant not in ("A", "everything"))
    assert model.token_head.scaler.b_inverse_std.any() == (constant not in ("b", "zeros", "everything"))


@pytest.mark.parametrize("rows", [1.0, 1e-30])
def test_rounding_errors_are_not_read(rows: float) -> None:
    """An entry that is 0 on one processor and 1e-17 on another: the same z-scores, whatever the row's unit."""
    A, b, x = (tensor.clone() for tensor in tensors(FAMILY.sample(20, seed=10)))
    A[:, 2] *= rows
    sampler, z = [], []
    for noise in (0.0, 1e-17, -3e-17):
        A[:, 2, 0] = noise * A[:, 2].abs().amax(dim=1)
        scaler = FamilyScaler(N)
        scaler.fit(A, b, x)
        z.append(scaler(A, b)[0])
        sampler.append(select_entries(iter([A.numpy()]), len(A), N, N, False)(A.numpy())[0])
    assert all(torch.equal(z[0], other) for other in z)
    assert all(np.array_equal(sampler[0], other) for other in sampler)
    assert z[0][:, 2, 1:].any()  # the others in that row are


def test_one_system_has_no_spread() -> None:
    with pytest.raises(ConfigurationError, match="at least 2 systems, received 1"):
        build("transformer-token-column").token_head.scaler.fit(*tensors(FAMILY.sample(1)))
