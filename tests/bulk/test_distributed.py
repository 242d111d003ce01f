"""Batches that are Dask arrays: on threads, and on a cluster of real processes."""

from __future__ import annotations

import dataclasses
import os
import signal
import time

import dask
import dask.array as da
import numpy as np
import pytest
from dask.distributed import Client, LocalCluster, futures_of

import algebraformer as af
from algebraformer.bulk.settings import Settings
from algebraformer.errors import ConfigurationError, InputFormatError, SingularSystemError, UnknownNameError
from algebraformer.threads import one_blas_thread

COUNT, STEP = 300, 40
BLOCKS = -(-COUNT // STEP)


@pytest.fixture(scope="module")
def systems():
    """Systems of a family, of which LAPACK has to solve one."""
    systems = af.problems.get("diffusion", n=64).sample(COUNT, seed=5)
    systems.A[100] = np.diag(np.arange(1.0, 65.0))
    return systems


@pytest.fixture(scope="module")
def solver():
    return af.LearnedSolver.from_pretrained("diffusion-64")


@pytest.fixture(scope="module")
def expected(systems, solver):
    return solver.solve(systems.A, systems.b)


@pytest.fixture
def A(systems):
    return da.from_array(systems.A, chunks=(STEP, 64, 64))


@pytest.fixture
def b(systems):
    return da.from_array(systems.b, chunks=(STEP, 64))


@pytest.fixture
def solved(monkeypatch):
    """The sizes of the blocks that this process solves, other than the empty one that shows the types."""
    sizes = []

    def counted(self, model, A, b, solve=Settings.solve):
        sizes.extend([len(A)] * bool(len(A)))
        return solve(self, model, A, b)

    monkeypatch.setattr(Settings, "solve", counted)
    with dask.config.set(scheduler="threads", num_workers=2):
        yield sizes


def agree(found, expected):
    """Compare with what is solved as one batch, but for rounding."""
    for field in dataclasses.fields(expected):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), field.name
        if field.name in ("status", "method", "certified", "in_distribution"):
            assert ours.tolist() == theirs.tolist(), field.name
    learned = expected.method != "lapack"  # what LAPACK answers is refined before or not, by what it is solved with
    assert np.abs(found.refinements - expected.refinements)[learned].max(initial=0) <= 1
    np.testing.assert_allclose(found.x, expected.x, rtol=0, atol=1e-9 * np.nanmax(np.abs(expected.x)))
    np.testing.assert_array_equal(np.isnan(found.rcond), np.isnan(expected.rcond))


# ---------------------------------------------------------------- on threads


def test_fields_are_lazy_and_a_block_is_solved_once(A, b, expected, solved):
    result = af.distributed.solve(A, b, model="diffusion-64")
    for field in dataclasses.fields(expected):
        lazy, like = getattr(result, field.name), getattr(expected, field.name)
        assert isinstance(lazy, da.Array)
        assert (lazy.shape, lazy.dtype, lazy.chunks[0]) == (like.shape, like.dtype, A.chunks[0])
    assert solved == []
    found = result.compute()
    assert type(found) is af.SolveResult
    assert sorted(solved) == sorted(A.chunks[0])
    agree(found, expected)
    solved.clear()
    x, certified = dask.compute(result.x, result.certified.sum())
    assert len(solved) == BLOCKS
    assert certified == expected.certified.sum()
    np.testing.assert_array_equal(x, found.x)
    solved.clear()
    kept = result.persist()
    assert (kept.method.compute() == "lapack").sum() == (expected.method == "lapack").sum()
    np.testing.assert_array_equal(kept.x[90:110].compute(), found.x[90:110])
    assert len(solved) == BLOCKS
    solved.clear()
    np.testing.assert_array_equal(result.x[45:50].compute(), found.x[45:50])
    assert solved == [STEP]
    assert result.explain() == found.explain()
    assert result.record() == found.record()


def test_options_and_shapes(A, b, systems, solver, solved):
    b2 = np.stack((systems.b, 1j * systems.b), axis=2)
    options = {"rtol": 1e-6, "max_refinements": 3, "transpose": True}
    found = af.distributed.solve(A, da.from_array(b2), solver, **options).compute()
    agree(found, solver.solve(systems.A, b2, **options))
    assert (found.x.dtype, found.x.shape) == (complex, (COUNT, 64, 2))
    few = da.from_array(systems.A[:, :3, :3] + np.eye(3), chunks=(STEP, 3, 3))
    agree(
        af.distributed.solve(few, systems.b[:, :3]).compute(),
        solver.solve(systems.A[:, :3, :3] + np.eye(3), systems.b[:, :3]),
    )
    assert af.distributed.solve(A[:0], b[:0]).compute().x.shape == (0, 64)


def test_other_chunks_are_put_together(A, b, expected, solved):
    found = af.distributed.solve(A.rechunk((150, 10, 64)), b.rechunk((70, 32))).compute()
    assert sorted(solved) == [150, 150]
    agree(found, expected)


def test_a_solver_goes_as_it_is(A, b, expected, solver, solved):
    agree(af.distributed.solve(A, b, solver).compute(), expected)


def test_singular_systems_cost_the_others_nothing(systems, solver, b, solved):
    A = systems.A.copy()
    A[[7, 200]] = 1.0
    result = af.distributed.solve(da.from_array(A, chunks=(STEP, 64, 64)), b)
    x, status = dask.compute(result.x, result.status)
    assert np.flatnonzero(np.isnan(x).any(axis=1)).tolist() == [7, 200]
    assert np.flatnonzero(status == af.Status.SINGULAR).tolist() == [7, 200]
    with pytest.raises(SingularSystemError) as ours:
        result.compute()
    with pytest.raises(SingularSystemError) as theirs:
        solver.solve(A, systems.b)
    assert (ours.value.indices, str(ours.value)) == (theirs.value.indices, str(theirs.value))
    agree(ours.value.result, theirs.value.result)


def test_bad_entries_are_named_with_their_block(A, b, solved):
    A = da.concatenate((A[:90], A[90:91] * np.nan, A[91:]))
    with pytest.raises(ValueError, match="systems 90 to 90: A contains NaN"):
        af.distributed.solve(A, b).compute()


def test_every_task_runs_on_one_thread():
    class Asked:
        def solve(self, A, b, **options):
            with one_blas_thread() as allowed:
                return allowed

    assert Settings().solve(Asked(), None, None) == 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"A": np.eye(64)[None]}, TypeError),
        ({"A": da.ones((64, 64))}, ValueError),
        ({"A": da.ones((COUNT, 64, 63))}, ValueError),
        ({"b": np.ones((COUNT - 1, 64))}, ValueError),
        ({"b": np.ones((COUNT, 63))}, ValueError),
        ({"b": da.ones((COUNT, 64)).astype(object)}, ValueError),
        ({"rtol": -1.0}, ValueError),
        ({"max_refinements": -1}, ValueError),
        ({"assume_a": "banded"}, ValueError),
        ({"model": "unknown"}, UnknownNameError),
        ({"model": "deblur-64"}, ConfigurationError),
    ],
    ids=str,
)
def test_refused_at_once(A, b, change, error, solved):
    with pytest.raises(error):
        af.distributed.solve(**({"A": A, "b": b} | change))
    assert solved == []


def test_chunks_of_unknown_sizes_are_refused(A, b):
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        af.distributed.solve(A[A[:, 0, 0] > 0], b)


# ---------------------------------------------------------------- files


@pytest.fixture(scope="module")
def folder(systems, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    np.save(folder / "A.npy", systems.A)
    np.savez(folder / "systems.npz", A=systems.A, b=systems.b)
    return folder


def test_files_are_read_block_by_block(folder, systems, expected, solved, monkeypatch):
    read = []

    def counted(self, where, get=af.distributed._MappedFile.__getitem__):
        read.append(get(self, where).shape)
        return get(self, where)

    A = af.distributed.from_npy(folder / "A.npy", STEP)
    b = af.distributed.from_npy(folder / "systems.npz", key="b")
    assert (A.dtype, A.chunks) == (float, da.core.normalize_chunks((STEP, 64, 64), (COUNT, 64, 64)))
    np.testing.assert_array_equal(A.compute(), systems.A)
    np.testing.assert_array_equal(b.compute(), systems.b)
    monkeypatch.setattr(af.distributed._MappedFile, "__getitem__", counted)
    result = af.distributed.solve(A, b)
    agree(result.compute(), expected)
    assert max(shape for shape in read if len(shape) == 3) == (STEP, 64, 64)
    read.clear()
    np.testing.assert_allclose(result.x[-1].compute(), expected.x[-1], rtol=1e-9)
    assert [shape for shape in read if len(shape) == 3] == [(COUNT % STEP, 64, 64)]


def test_a_block_is_read_by_the_task_that_solves_it(folder, monkeypatch):
    """Else workers would fill their memory with blocks that wait."""
    events = []

    def read(self, where, get=af.distributed._MappedFile.__getitem__):
        events.append("read" if len(self.shape) == 3 else "b")
        return get(self, where)

    def solve(self, model, A, b, solve=Settings.solve):
        events.append("solve")
        return solve(self, model, A, b)

    A = af.distributed.from_npy(folder / "A.npy", STEP)
    for b in (af.distributed.from_npy(folder / "systems.npz", key="b"), np.ones((COUNT, 64))):
        result = af.distributed.solve(A, b)
        for fields in ((result.x,), (result.x, result.certified, result.status)):
            with monkeypatch.context() as patch:
                patch.setattr(af.distributed._MappedFile, "__getitem__", read)
                patch.setattr(Settings, "solve", solve)
                dask.compute(*fields, scheduler="synchronous")
            assert [event for event in events if event != "b"] == ["read", "solve"] * BLOCKS
            events.clear()


def test_names_of_blocks_follow_the_file(folder, tmp_path):
    np.save(tmp_path / "A.npy", np.ones(5))
    first = af.distributed.from_npy(tmp_path / "A.npy")
    assert af.distributed.from_npy(tmp_path / "A.npy").name == first.name
    np.save(tmp_path / "A.npy", np.ones(6))
    assert af.distributed.from_npy(tmp_path / "A.npy").name != first.name
    with pytest.raises(InputFormatError):
        af.distributed.from_npy(tmp_path / "absent.npy")


def test_zarr(systems, expected, tmp_path, solved):
    pytest.importorskip("zarr")
    da.from_array(systems.A, chunks=(STEP, 64, 64)).to_zarr(tmp_path / "A.zarr")
    A = da.from_zarr(tmp_path / "A.zarr")
    result = af.distributed.solve(A, systems.b)
    agree(result.compute(), expected)
    result.x.to_zarr(tmp_path / "x.zarr")
    np.testing.assert_allclose(da.from_zarr(tmp_path / "x.zarr").compute(), expected.x, rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- processes


@pytest.fixture(scope="module")
def client():
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield client


def loads():
    """Return how often this process has loaded a model."""
    from algebraformer.solver import _loaded

    return _loaded.cache_info().misses


@pytest.mark.parametrize(
    "model", ["name", *(pytest.param(how, marks=pytest.mark.slow) for how in ("folder", "solver"))]
)
def test_processes(client, folder, systems, solver, expected, model, monkeypatch):
    """Workers have another working folder than a user's relative path starts from."""
    models = af.checkpoint.PRETRAINED
    monkeypatch.chdir(models)
    given = {"name": "diffusion-64", "folder": "./diffusion-64", "solver": solver}[model]
    before = client.run(loads)
    A = af.distributed.from_npy(folder / "A.npy", 10)
    result = af.distributed.solve(A, systems.b, given)
    agree(result.compute(), expected)
    after = client.run(loads)
    assert [after[worker] - before[worker] for worker in before] == [0 if model == "solver" else 1] * 2


def test_blocks_of_a_killed_worker_are_solved_again(client, folder, systems, expected):
    A = af.distributed.from_npy(folder / "A.npy", 6)
    result = af.distributed.solve(A, systems.b).persist()
    futures = futures_of(result.x)
    until = time.monotonic() + 60
    while sum(future.done() for future in futures) < 3 and time.monotonic() < until:
        time.sleep(0.001)
    victim = client.run(os.getpid)
    os.kill(next(iter(victim.values())), signal.SIGKILL)
    assert not all(future.done() for future in futures)
    agree(result.compute(), expected)
    assert all(future.status == "finished" for future in futures)
