"""Work in parts: the ranges it is done in, and whom its progress is reported to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

ProgressCallback = Callable[[int, int], object]
"""Takes what is done and what there is to do in all."""
PartCallback = Callable[[str], ProgressCallback]
"""Takes the name of a part of the work and returns what its progress is reported to."""


def silent(done: int, total: int) -> None:
    """ProgressCallback to nobody."""


def all_silent(name: str) -> ProgressCallback:
    """PartCallback to nobody."""
    return silent


def slices(count: int, size: int) -> list[slice]:
    """Return the slices that the ranges of `batches` are."""
    return [slice(part.start, part.stop) for part in batches(count, size)]


def batches(count: int, size: int) -> Iterator[range]:
    """Split 0 ... count - 1 into consecutive ranges of at most `size`."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))
