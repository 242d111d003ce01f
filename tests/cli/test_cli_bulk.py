"""`solve --workers`: answers, interruptions, killed workers and bad input."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import scipy.io

import algebraformer as af
from algebraformer import io

COMMAND = (sys.executable, "-m", "algebraformer")
PATIENCE = 120
"""Seconds after which a process counts as hanging."""
COUNT = 600
FIELDS = {
    "status", "method", "refinements", "backward_error", "relative_residual", "certified", "forward_error", "rcond",
    "in_distribution",
}  # fmt: skip

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and locks of POSIX")


@pytest.fixture(scope="module")
def systems():
    """Systems of a family, of which LAPACK has to solve one."""
    systems = af.problems.get("diffusion", n=64).sample(COUNT, seed=5)
    systems.A[400] = np.diag(np.arange(1.0, 65.0))
    return systems


@pytest.fixture
def folder(systems, tmp_path, monkeypatch):
    """The current folder, with the systems in files."""
    monkeypatch.chdir(tmp_path)
    np.save("A.npy", systems.A)
    np.save("b.npy", systems.b)
    return tmp_path


def contents(folder):
    """Return the bytes of every file in a folder, but for what names its systems."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != "run.json"}


# ---------------------------------------------------------------- arrays


def test_arrays(answer, folder, systems):
    code, found = answer("solve", "A.npy", "b.npy", "--workers", 2, "--output", "solved")
    assert code == 3
    assert (found["systems"], found["certified"], found["refused"], found["resumed"]) == (COUNT, COUNT, [], 0)
    assert sorted(contents("solved")) == ["certificates.npz", "x.npy"]

    expected = af.LearnedSolver.from_pretrained("diffusion-64").solve(systems.A, systems.b)
    x = np.load("solved/x.npy")
    np.testing.assert_allclose(x, expected.x, rtol=0, atol=1e-9 * np.abs(expected.x).max())
    with np.load("solved/certificates.npz") as archive:
        fields = dict(archive)
    assert set(fields) == FIELDS
    assert {field.shape for field in fields.values()} == {(COUNT,)}
    assert fields["status"].tolist() == [status.name for status in expected.status]
    assert (fields["status"][400], fields["method"][400]) == ("OUT_OF_DISTRIBUTION", "lapack")
    assert fields["method"].tolist() == expected.method.tolist()
    assert fields["certified"].all()
    residual = np.linalg.norm(systems.b - (systems.A @ x[..., None])[..., 0], axis=1) / np.linalg.norm(
        systems.b, axis=1
    )
    np.testing.assert_allclose(fields["relative_residual"], residual, rtol=0.5, atol=1e-15)
    names, counts = np.unique(fields["status"], return_counts=True)
    assert found["status"] == dict(zip(names.tolist(), counts.tolist(), strict=True))
    assert found["lapack"] == (fields["method"] == "lapack").sum() >= 1
    for name in ("relative_residual", "backward_error", "forward_error"):
        assert found[name] == fields[name].max()

    before = contents("solved")
    again = answer("solve", "A.npy", "b.npy", "--workers", 1, "--output", "solved")
    assert again == (code, found | {"resumed": COUNT})
    assert answer("solve", "A.npy", "b.npy", "--workers", 1, "--output", "other")[0] == 3
    assert contents("solved") == contents("other") == before


def test_archives_and_several_right_hand_sides(answer, folder, systems):
    b = np.stack((systems.b, 1j * systems.b), axis=2)[:40]
    np.savez("systems.npz", K=systems.A[:40], b=b)
    code, found = answer("solve", "systems.npz:K", "systems.npz:b", "--workers", 2, "--output", "solved")
    assert (code, found["certified"]) == (0, 40)
    x = np.load("solved/x.npy")
    np.testing.assert_allclose(systems.A[:40] @ x, b, rtol=0, atol=1e-8 * np.abs(b).max())


def test_a_table(run, folder):
    code, out, err = run("solve", "A.npy", "b.npy", "--workers", 2, "--output", "solved")
    assert (code, err) == (3, "")
    assert f"{COUNT}/{COUNT}" in out
    assert "systems/s" in out
    assert f"Certified: {COUNT} of {COUNT}" in out


def test_singular_systems_cost_the_others_nothing(answer, run, folder, systems):
    A = systems.A.copy()
    A[[7, 300]] = 1.0
    np.save("A.npy", A)
    code, found = answer("solve", "A.npy", "b.npy", "--workers", 2, "--output", "solved")
    assert (code, found["status"]["SINGULAR"], found["certified"]) == (1, 2, COUNT - 2)
    assert found["uncertified"] == ["7", "300"]
    x = np.load("solved/x.npy")
    assert np.flatnonzero(np.isnan(x).any(axis=1)).tolist() == [7, 300]
    assert "Not certified: 7, 300" in run("solve", "A.npy", "b.npy", "--workers", 2, "--output", "solved")[1]


def test_bad_entries_are_named_and_the_others_solved_once(run, answer, folder, systems):
    A = np.load("A.npy", mmap_mode="r+")
    A[123, 4, 5] = np.nan
    A.flush()
    step = -(-COUNT // 32)
    first = 123 // step * step
    code, out, err = run("solve", "A.npy", "b.npy", "--workers", 2, "--output", "solved")
    assert code == 2
    assert err.count("\n") == 1
    assert f"systems {first} to {first + step - 1}: " in err
    assert f"({123 - first}, 4, 5)" in err
    assert f"Certified: {COUNT - step} of {COUNT - step}" in out
    assert not Path("solved/x.npy").exists()


# ---------------------------------------------------------------- folders


@pytest.fixture
def many(folder, systems):
    """A folder with a file for each of some systems, and one with a batch."""
    Path("systems").mkdir()
    for i in range(8):
        np.savez(f"systems/{i}.npz", A=systems.A[i], b=systems.b[i])
    scipy.io.savemat("systems/eight.mat", {"A": systems.A[8], "b": systems.b[8]})
    np.savez("systems/more.npz", A=systems.A[9:12], b=systems.b[9:12])
    Path("systems/notes.txt").write_text("none of ours")


def test_a_folder(answer, many, systems):
    code, found = answer("solve", "systems", "--workers", 2, "--output", "solved")
    assert (code, found["systems"], found["certified"]) == (0, 12, 12)
    assert sorted(contents("solved")) == [*(f"{i}.npz" for i in range(8)), "eight.npz", "more.npz"]
    solver = af.LearnedSolver.from_pretrained("diffusion-64")
    for name, chosen in (("3", 3), ("eight", 8), ("more", slice(9, 12))):
        with np.load(f"solved/{name}.npz") as archive:
            fields = dict(archive)
        expected = solver.solve(systems.A[chosen], systems.b[chosen])
        assert set(fields) == FIELDS | {"x"}
        assert fields["certified"].shape == np.shape(expected.certified)
        np.testing.assert_allclose(fields["x"], expected.x, rtol=0, atol=1e-9 * np.abs(expected.x).max())


def test_a_folder_whose_files_come_and_change(run, answer, many, systems):
    arguments = ("solve", "systems", "--workers", 2, "--output", "solved")
    Path("systems/5.npz").write_bytes(b"nothing")
    code, out, err = run(*arguments)
    assert code == 2
    assert err.startswith("algebraformer: systems/5.npz: ")
    assert err.count("\n") == 1
    assert "11 of 11" in out
    before = contents("solved")
    np.savez("systems/5.npz", A=systems.A[5], b=systems.b[5])
    np.savez("systems/7.npz", A=systems.A[7], b=2 * systems.b[7])
    code, found = answer(*arguments)
    assert (code, found["systems"], found["resumed"]) == (0, 12, 8)  # files
    after = contents("solved")
    assert {name for name in after if after[name] != before.get(name)} == {"5.npz", "7.npz"}
    np.testing.assert_allclose(np.load("solved/7.npz")["x"], 2 * systems.x[7], rtol=1e-7)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("A.npy", "b.npy", "--workers", "2"), "--output"),
        (("A.npy", "b.npy", "--workers", "0", "--output", "new"), "at least one worker"),
        (("A.npy", "b.npy", "--workers", "2", "--output", "taken"), "other files"),
        (("A.npy", "b.npy", "--workers", "2", "--output", "file"), "file"),
        (("A.npy", "b.npy", "--workers", "2", "--output", "x.npy"), "x.npy"),
        (("none.npz", "--workers", "2", "--output", "new"), "received none"),
        (("A.npy", "b.npy", "--workers", "2", "--output", "new", "--figure", "x.png"), "--figure"),
        (("A.npy", "b.npy", "--workers", "2", "--output", "new", "--model", "deblur-64"), "estimate"),
        (("A.npy", "b.npy", "--workers", "2", "--output", "new", "--max-bytes", "1000"), "1000 bytes"),
        (("A.npy", "-", "--workers", "2", "--output", "new", "--format", "npy"), "standard input"),
        (("A.npy", "few.npy", "--workers", "2", "--output", "new"), "b holds 3 systems"),
        (("b.npy", "b.npy", "--workers", "2", "--output", "new"), f"({COUNT}, 64)"),
        (("packed.npz", "--workers", "2", "--output", "new"), "compressed"),
        (("A.mtx", "b.npy", "--workers", "2", "--output", "new"), ".npy or .npz"),
        (("taken", "--workers", "2", "--output", "new"), ".npz or .mat"),
        (("systems", "--workers", "2", "--output", "systems"), "another folder"),
        (("systems", "b.npy", "--workers", "2", "--output", "new"), "b.npy"),
        (("twins", "--workers", "2", "--output", "new"), "different names"),
    ],
)
def test_refused(refused, folder, many, systems, words, expected):
    Path("taken").mkdir()
    Path("taken/file").write_text("")
    Path("twins").mkdir()
    for name in ("a.npz", "a.mat"):
        Path("twins", name).write_text("")
    np.savez_compressed("packed.npz", A=systems.A[:3], b=systems.b[:3])
    io.write_array("A.mtx", systems.A[0])
    np.savez("none.npz", A=systems.A[:0], b=systems.b[:0])
    Path("file").write_text("")
    np.save("few.npy", systems.b[:3])
    line = refused("solve", *words)
    assert expected in line
    assert not Path("new/x.npy").exists()
    assert [path.name for path in Path("taken").iterdir()] == ["file"]


def test_results_of_something_else_are_not_mixed(refused, answer, folder, systems):
    arguments = ("solve", "A.npy", "b.npy", "--workers", 2, "--output", "solved")
    assert answer(*arguments)[0] == 3
    for change in (("--rtol", "1e-8"), ("--no-fallback",), ("--model", "reaction-diffusion-64")):
        assert "another run" in refused(*arguments, *change)
    np.save("b.npy", systems.x)
    assert "files" in refused(*arguments)


# ---------------------------------------------------------------- interruptions

SLOW = ("solve", "A.npy", "b.npy", "--model", "diffusion-64-token", "--workers", "2", "--output")
SLOW_COUNT, SLOW_STEP = 320, 10


@pytest.fixture(scope="module")
def whole(systems, tmp_path_factory):
    """A folder with systems that take a while, and the bytes of their results, which nothing has interrupted."""
    folder = tmp_path_factory.mktemp("slow")
    np.save(folder / "A.npy", systems.A[:SLOW_COUNT])
    np.save(folder / "b.npy", systems.b[:SLOW_COUNT])
    subprocess.run([*COMMAND, *SLOW, "whole"], cwd=folder, capture_output=True, timeout=PATIENCE, check=False)
    return folder, contents(folder / "whole")


def started(output, folder):
    """Start the command, and wait until it has solved a block; return the process."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen([*COMMAND, *SLOW, output], cwd=folder, **options)
    until = time.monotonic() + PATIENCE
    while not list((folder / output / "parts").glob("0*.npz")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.001)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_and_resumed(whole, answer, monkeypatch, number):
    folder, expected = whole
    output = number.name
    process = started(output, folder)
    children = psutil.Process(process.pid).children()
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    if number != signal.SIGKILL:
        assert (process.returncode, err.count("\n")) == (130, 1), err
    assert psutil.wait_procs(children, timeout=PATIENCE)[1] == []
    done = [int(path.stem) for path in (folder / output / "parts").glob("*.npz")]
    assert 0 < len(done) < SLOW_COUNT // SLOW_STEP

    monkeypatch.chdir(folder)
    code, found = answer(*SLOW, output)
    assert code in (0, 3)
    assert (found["systems"], found["resumed"]) == (SLOW_COUNT, SLOW_STEP * len(done))
    assert contents(output) == expected


def test_blocks_of_a_killed_worker_are_solved_again(whole):
    folder, expected = whole
    process = started("killed", folder)
    workers = [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode in (0, 3), err
    assert contents(folder / "killed") == expected


def test_only_one_run_at_a_time(whole, refused, monkeypatch):
    folder, _ = whole
    monkeypatch.chdir(folder)
    process = started("busy", folder)
    assert "in use" in refused(*SLOW, "busy")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
