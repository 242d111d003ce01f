"""The files of results: x and the certificates of a block or of one file, and of all blocks together."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from algebraformer.errors import Status
from algebraformer.io.limits import Array, naming
from algebraformer.io.numpy_files import write_npz
from algebraformer.result import SolveResult
from algebraformer.writing import new_file

X, CERTIFICATES = "x.npy", "certificates.npz"
"""Files with the answers to all systems of an array, and with every other field of `SolveResult`."""
FIELDS = tuple(field.name for field in dataclasses.fields(SolveResult) if field.name != "x")
TEXTS = {
    "status": f"U{max(len(status.name) for status in Status)}",
    "method": f"U{len('learned+refined')}",
}
"""Fields that are text, and their types: the same in every block."""
MAX_NAMED = 20
"""Systems that are named where something is wrong with more of them."""

Fields = Mapping[str, Array]


def fields_of(result: SolveResult) -> dict[str, Array]:
    """Return every field of a result as an array of numbers or text; the status by its name."""
    named = np.vectorize(lambda status: status.name, otypes=[object])(result.status)
    values = {name: getattr(result, name) for name in FIELDS} | {"status": named, "x": result.x}
    return {name: np.asarray(value, dtype=TEXTS.get(name)) for name, value in values.items()}


def write(path: Path, fields: Fields) -> None:
    """Write the fields of one block or file."""
    with new_file(path) as stream:
        write_npz(stream, fields)


def read(path: Path, name: str) -> Array:
    """Read one field of a file of results."""
    with naming(path, "file of results"), np.load(path, allow_pickle=False) as archive:
        field: Array = archive[name]
        return field


@dataclasses.dataclass
class Summary:
    """What became of systems, in numbers that add up.

    Attributes
    ----------
    systems, certified, lapack : int
        How many there were, are certified, and were solved by LAPACK.
    status : dict of str to int
        How many have each status.
    relative_residual, backward_error, forward_error : float
        The largest ones of the systems that have an answer.
    uncertified : list of int or None
        Positions of the first systems without a certificate; [None] for a single one.
    """

    systems: int = 0
    certified: int = 0
    lapack: int = 0
    status: dict[str, int] = dataclasses.field(default_factory=dict)
    relative_residual: float = 0.0
    backward_error: float = 0.0
    forward_error: float = 0.0
    uncertified: list[Any] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, fields: Fields) -> Summary:
        """Summarise the fields of one block or file."""
        status, certified = np.atleast_1d(fields["status"]), np.atleast_1d(fields["certified"])
        answered = status != Status.SINGULAR.name
        names, counts = np.unique(status, return_counts=True)
        missed = np.flatnonzero(~certified)[:MAX_NAMED].tolist()

        def largest(name: str) -> float:
            values = np.atleast_1d(fields[name])[answered]
            return float(np.max(values, initial=0.0, where=~np.isnan(values)))

        return cls(
            systems=status.size,
            certified=int(certified.sum()),
            lapack=int((np.atleast_1d(fields["method"]) == "lapack").sum()),
            status=dict(zip(names.tolist(), counts.tolist(), strict=True)),
            relative_residual=largest("relative_residual"),
            backward_error=largest("backward_error"),
            forward_error=largest("forward_error"),
            uncertified=missed if np.ndim(fields["status"]) else [None] * len(missed),
        )

    @classmethod
    def of_file(cls, path: Path) -> Summary:
        """Summarise the fields in a file, all but x."""
        return cls.of({name: read(path, name) for name in FIELDS})

    @classmethod
    def total(cls, parts: Iterable[Summary]) -> Summary:
        """Add up the summaries of all parts."""
        total = cls()
        for part in parts:
            for name in ("systems", "certified", "lapack"):
                setattr(total, name, getattr(total, name) + getattr(part, name))
            for name, count in part.status.items():
                total.status[name] = total.status.get(name, 0) + count
            for name in ("relative_residual", "backward_error", "forward_error"):
                setattr(total, name, max(getattr(total, name), getattr(part, name)))
            total.uncertified += part.uncertified[: MAX_NAMED - len(total.uncertified)]
        total.status = dict(sorted(total.status.items()))
        return total


def assemble(folder: Path, parts: Sequence[Path], count: int, tick: Callable[[], object]) -> None:
    """Write the fields of all blocks into two files of a folder, one block at a time in memory."""

    def put(stream: IO[bytes], name: str) -> None:
        for number, path in enumerate(parts):
            block = read(path, name)
            if number == 0:
                header = {"descr": block.dtype.str, "fortran_order": False, "shape": (count, *block.shape[1:])}
                np.lib.format.write_array_header_1_0(stream, header)
            stream.write(np.ascontiguousarray(block).tobytes())
            tick()

    with new_file(folder / X) as stream:
        put(stream, "x")
    with new_file(folder / CERTIFICATES) as stream, zipfile.ZipFile(stream, "w") as archive:
        for name in FIELDS:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                put(member, name)
