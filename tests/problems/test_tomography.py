"""Tomography: rays against lengths by geometry and against images of discs."""

from __future__ import annotations

import numpy as np
import pytest

from algebraformer import problems
from algebraformer.errors import ConfigurationError
from algebraformer.problems.tomography import projections


def chord(distance: float, angle: float) -> float:
    """Return the length of a line within the unit square, by its distance from the centre, by clipping."""
    direction, normal = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    low, high = -np.inf, np.inf
    for k in (0, 1):
        start = 0.5 + distance * normal[k]
        if abs(direction[k]) < 1e-12:
            if not 0 < start < 1:
                return 0.0
            continue
        ends = sorted(((0 - start) / direction[k], (1 - start) / direction[k]))
        low, high = max(low, ends[0]), min(high, ends[1])
    return max(0.0, high - low)


@pytest.mark.parametrize(("side", "angles", "rays"), [(4, 3, 5), (7, 8, 11), (16, 16, 16)])
def test_the_pixels_of_a_ray_add_up_to_its_chord(side: int, angles: int, rays: int) -> None:
    A = projections(side, angles, rays)
    assert (A >= 0).all()
    assert A.max() <= np.sqrt(2) / side + 1e-12
    for i in range(angles):
        for j in range(rays):
            distance = ((j + 0.5) / rays - 0.5) * np.sqrt(2)
            assert A[i * rays + j].sum() == pytest.approx(chord(distance, np.pi * i / angles), abs=1e-9)


def test_a_disc_has_the_integrals_of_a_disc() -> None:
    side, rays = 32, 24
    centre = (np.arange(side * 8) + 0.5) / (side * 8) - 0.5
    fine = (np.hypot(*np.meshgrid(centre, centre)) < 0.3).astype(float)
    image = fine.reshape(side, 8, side, 8).mean(axis=(1, 3)).reshape(-1)
    found = (projections(side, 12, rays) @ image).reshape(12, rays)
    distance = ((np.arange(rays) + 0.5) / rays - 0.5) * np.sqrt(2)
    expected = 2 * np.sqrt(np.maximum(0.3**2 - distance**2, 0))
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=0.04)
    assert np.abs(found - expected).mean() < 0.01


def test_directions_are_those_of_the_image() -> None:
    """Along the rows the top row is the last ray, along the columns the first column is the last one."""
    A = projections(3, 2, 3)
    rows, columns = A[:3].reshape(3, 3, 3), A[3:].reshape(3, 3, 3)
    np.testing.assert_allclose(rows[2, 0], 1 / 3, atol=1e-12)
    np.testing.assert_allclose(columns[2, :, 0], 1 / 3, atol=1e-12)


def test_images_are_nowhere_negative() -> None:
    systems = problems.get("tomography", n=64, angles=5, rays=9).sample(20, seed=0)
    assert systems.A.shape == (20, 45, 64)
    assert (systems.x >= 0).all()


@pytest.mark.parametrize("settings", [{"n": 60}, {"n": 33**2}, {"m": 10}, {"angles": 0}, {"rays": 0}])
def test_bad_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        problems.get("tomography", **settings)
