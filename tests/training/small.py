"""Sizes of samples for trainings that take seconds."""

from __future__ import annotations

from typing import Any

SIZES: dict[str, Any] = {
    "scaler_samples": 64,
    "basis_samples": 64,
    "readout_samples": 64,
    "calibration_samples": 64,
    "validation_systems": 16,
    "test_systems": 32,
}
"""Fields of a `Recipe`."""
