"""Solve batches that are Dask arrays: on the threads of a machine, on its processes, or on many machines.

Needs the extra [dask].
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from algebraformer import io
from algebraformer.bulk.settings import Settings, naming_the_systems, portable
from algebraformer.errors import SingularSystemError, Status
from algebraformer.extras import require_packages
from algebraformer.io.limits import Array, FilePath
from algebraformer.result import SolveResult
from algebraformer.solver import LearnedSolver, as_solver
from algebraformer.validation import check_right_hand_sides

if TYPE_CHECKING:
    import dask.array

    DaskArray = dask.array.Array


@dataclasses.dataclass(frozen=True)
class DaskResult(SolveResult):
    """A `SolveResult` of Dask arrays: nothing is solved until one of them is computed.

    Every block is one task that solves its systems and gives all of its fields, so fields that are computed together
    cost one solve: `compute()`, `dask.compute(result.x, result.certified)`, or `persist()` before they are used one
    after the other. `result.x.compute()` and then `result.certified.compute()` solve twice.

    Attributes
    ----------
    x : dask.array.Array
        In the shape of b; the others have shape (B,), and the meaning of `SolveResult`.
    """

    def compute(self, **options: Any) -> SolveResult:
        """Solve, and return what `LearnedSolver.solve` returns for the whole batch.

        Parameters
        ----------
        **options
            As of `dask.compute`.

        Raises
        ------
        SingularSystemError
            As of `LearnedSolver.solve`: some systems are singular. It names them and carries the result of all.
        """
        import dask

        (fields,) = dask.compute(_fields(self), **options)
        result = SolveResult(**fields)
        if (singular := np.flatnonzero(result.status == Status.SINGULAR)).size:
            raise SingularSystemError(singular.tolist(), True, result)
        return result

    def persist(self, **options: Any) -> DaskResult:
        """Begin to solve; the fields of what is returned stay in the workers' memory. Options as of `dask.persist`."""
        import dask

        (fields,) = dask.persist(_fields(self), **options)
        return DaskResult(**fields)

    def record(self) -> dict[str, Any]:
        """`SolveResult.record` of what `compute` returns."""
        return self.compute().record()

    def explain(self) -> str:
        """`SolveResult.explain` of what `compute` returns."""
        return self.compute().explain()


def _fields(result: SolveResult) -> dict[str, Any]:
    """Return the fields by name."""
    return {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}


def solve(
    A: DaskArray,
    b: DaskArray | Array,
    model: str | Path | LearnedSolver = "diffusion-64",
    rtol: float | None = None,
    max_refinements: int = 10,
    fallback: bool = True,
    assume_a: str | None = None,
    transpose: bool = False,
) -> DaskResult:
    """Solve a batch of systems A x = b that is a Dask array, lazily and block by block.

    Parameters
    ----------
    A : dask.array.Array, shape (B, n, n)
        Chunked over the batch: a chunk is what one task solves, on one thread. Where matrices are split as well, they
        are put together first (`rechunk`). For arrays in files that are larger than memory see `from_npy`, and
        `dask.array.from_zarr`.
    b : dask.array.Array or ndarray, shape (B, n) or (B, n, k)
        It is chunked as A is.
    model : str, Path or LearnedSolver
        A name or a folder, which every process loads once, and which has to exist on its machine; or a solver, which
        is sent to every process once.
    rtol, max_refinements, fallback, assume_a, transpose
        As in `LearnedSolver.solve`.

    Returns
    -------
    DaskResult
        A singular system is no error of its block, which would take the answers to all the others with it: x is NaN
        and the status `Status.SINGULAR`. `DaskResult.compute` raises, with the result of all.

    Raises
    ------
    TypeError
        A is not a Dask array.
    ValueError
        Shapes do not match, sizes of chunks are not known, or an option is not one of `LearnedSolver.solve`. Entries
        that are NaN or infinite are found when their block is solved; the message says in which one.
    ConfigurationError
        The model does not solve systems.
    MissingExtraError
        Dask is not installed.

    Notes
    -----
    Every task runs on one thread, since the scheduler shares out as many tasks as there are threads: more threads for
    each would wait for one another. Answers are those of `LearnedSolver.solve`, up to rounding that depends on what is
    solved together; they do not depend on the number of workers.

    With `dask.distributed`, blocks of a worker that dies are solved again by another.

    Examples
    --------
    >>> import algebraformer as af
    >>> import dask.array as da
    >>> systems = af.problems.get("diffusion", n=64).sample(100, seed=1)
    >>> A, b = da.from_array(systems.A, chunks=(25, 64, 64)), da.from_array(systems.b, chunks=(25, 64))
    >>> result = af.distributed.solve(A, b, model="diffusion-64")
    >>> result.x
    dask.array<x, shape=(100, 64), dtype=float64, chunksize=(25, 64), chunktype=numpy.ndarray>
    >>> found = result.compute()
    >>> found.x.shape, bool(found.certified.all())
    ((100, 64), True)
    """
    require_packages("algebraformer.distributed", ("dask",), "dask")
    import dask
    import dask.array as da

    if not isinstance(A, da.Array):
        raise TypeError(
            f"A is {type(A).__module__}.{type(A).__name__}, expected a Dask array: dask.array.from_array, or "
            "LearnedSolver.solve for what is in memory"
        )
    if A.ndim != 3 or A.shape[-1] != A.shape[-2]:
        raise ValueError(f"A must have shape (B, n, n), received {A.shape}")
    b = b if isinstance(b, da.Array) else da.from_array(np.asarray(b))
    for name, array in (("A", A), ("b", b)):
        if np.isnan(array.shape).any():
            raise ValueError(f"{name} has chunks of unknown sizes, shape {array.shape}: call its compute_chunk_sizes()")
    arrays: Any = A, b
    check_right_hand_sides(arrays[0], arrays[1], "n")

    settings = Settings(rtol, max_refinements, fallback, assume_a, transpose)
    model = portable(model)
    as_solver(model).check_can_solve()
    # What it says of no systems of this kind checks the options, and has the types of all fields.
    like = settings.solve(model, np.empty((0, *A.shape[1:]), A.dtype), np.empty((0, *b.shape[1:]), b.dtype))

    A = A.rechunk((A.chunks[0], -1, -1))
    b = b.rechunk((A.chunks[0], *[-1] * (b.ndim - 1)))
    starts = da.from_array(np.cumsum((0, *A.chunks[0][:-1])), chunks=1)
    shipped = dask.delayed(model) if isinstance(model, LearnedSolver) else model
    # Along all axes of A, though the last two have one chunk: a sum over them would keep Dask from reading A and
    # solving in one task, and workers would read far more blocks than they can solve.
    solved = da.blockwise(
        _solve_block, "ijk", A, "ijk", b, "ijk"[: b.ndim], starts, "i", shipped, None, settings, None,
        name=f"solved-{dask.base.tokenize(A, b, shipped, settings)}", dtype=object, meta=np.empty((0, 0, 0), object),
        adjust_chunks=dict.fromkeys("ijk", lambda size: 1), align_arrays=False,
    )  # fmt: skip

    def field(name: str, like: Array) -> Any:
        """Return one field of the blocks that `solved` holds."""
        axes = "ilm"[: like.ndim]
        sizes = dict(zip(axes[1:], like.shape[1:], strict=True))
        return da.blockwise(
            _field_of_block, axes, solved, "ijk", name, None, name=f"{name}-{dask.base.tokenize(solved.name, name)}",
            dtype=like.dtype, meta=like, new_axes=sizes, adjust_chunks={"i": A.chunks[0]}, align_arrays=False,
        )  # fmt: skip

    return DaskResult(**{name: field(name, value) for name, value in _fields(like).items()})


def _solve_block(A: Array, b: Array, start: Array, model: str | LearnedSolver, settings: Settings) -> Array:
    """Return an array of one entry, the result of a block."""
    solved = np.empty((1, 1, 1), dtype=object)
    with naming_the_systems(f"systems {start[0]} to {start[0] + len(A) - 1}"):
        solved[0, 0, 0] = settings.solve(model, A, b)
    return solved


def _field_of_block(solved: list[list[Array]], name: str) -> Array:
    """Return a field of the result of a block; it comes in lists, along the two axes that are dropped."""
    field: Array = getattr(solved[0][0].item(), name)
    return field


def from_npy(path: FilePath, chunks: int | str = "auto", *, key: str | None = None) -> DaskArray:
    """Return an array in a .npy or .npz file as a Dask array that reads its blocks when they are needed.

    Parameters
    ----------
    path : str or path-like
        As of `io.map_array`: .npy, or .npz of `numpy.savez`. Every worker opens it, on a file system that they share.
    chunks : int or str
        Length of a chunk along the first axis, which is the only one that is split, or "auto" for what
        `dask.config` has as `array.chunk-size`.
    key : str, optional
        Variable of a .npz file.

    Returns
    -------
    dask.array.Array

    Raises
    ------
    InputFormatError
        As `io.map_array`.
    MissingExtraError
        Dask is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import algebraformer as af
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "A.npy"
    ...     np.save(path, np.arange(12.0).reshape(6, 2))
    ...     float(af.distributed.from_npy(path, chunks=2).sum().compute())
    66.0
    """
    require_packages("algebraformer.distributed", ("dask",), "dask")
    import dask.array as da

    file = _MappedFile.of(path, key)
    sizes = (chunks, *[-1] * (file.ndim - 1)) if file.ndim else ()
    return da.from_array(file, chunks=sizes, asarray=True, meta=np.empty((0,) * file.ndim, file.dtype))


@dataclasses.dataclass(frozen=True)
class _MappedFile:
    """An array in a file, which goes to other processes by the name of that."""

    path: str
    key: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    version: tuple[int, int]
    """Size and time of the file: Dask gives the same name to what is the same."""

    @classmethod
    def of(cls, path: FilePath, key: str | None) -> _MappedFile:
        array, about = io.map_array(path, key=key), os.stat(path)
        return cls(os.path.abspath(path), key, array.shape, array.dtype, (about.st_size, about.st_mtime_ns))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, where: Any) -> Array:
        return io.map_array(self.path, key=self.key)[where]
