"""How long work reports its progress: a callable of what is done and what there is to do in all."""

from __future__ import annotations

from collections.abc import Callable

ProgressCallback = Callable[[int, int], object]
"""Takes what is done and what there is to do in all."""
PartCallback = Callable[[str], ProgressCallback]
"""Takes the name of a part of the work and returns what its progress is reported to."""


def silent(done: int, total: int) -> None:
    """ProgressCallback to nobody."""


def all_silent(name: str) -> ProgressCallback:
    """PartCallback to nobody."""
    return silent
