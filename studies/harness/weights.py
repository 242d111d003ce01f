"""Networks that studies and stress checks compare with and that do not ship: folders under studies/weights."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parents[1] / "weights"


def names() -> list[str]:
    """Return the names of the networks under studies/weights."""
    return sorted(folder.name for folder in WEIGHTS.iterdir() if folder.is_dir())


def source(name: str) -> str:
    """Return the folder of a network under studies/weights, or the name itself: that of a shipped model."""
    return str(WEIGHTS / name) if name in names() else name
