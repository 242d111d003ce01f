"""The file arguments of the commands: names of variables, standard input, and what people have on their disks."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from algebraformer.cli.files import split_name

A = np.random.default_rng(4).standard_normal((6, 6)) + 6 * np.eye(6)
b = np.random.default_rng(5).standard_normal(6)
OTHER = 2 * A


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a system in every form."""
    monkeypatch.chdir(tmp_path)
    np.save("A.npy", A)
    np.save("b.npy", b)
    np.save("row.npy", b[None])
    np.savez("other.npz", K=A, y=b)
    np.savez("many.npz", K=A, y=b, A=OTHER, b=b)
    np.savez("s.npz", A=A, b=b)
    scipy.io.savemat("s.mat", {"A": A, "b": b})
    scipy.io.savemat("other.mat", {"K": A, "y": b, "s": {"rhs": b}})
    scipy.io.savemat("problem.mat", {"Problem": {"title": "text", "A": scipy.sparse.csc_array(A), "b": b, "id": 3.0}})
    scipy.sparse.save_npz("sparse.npz", scipy.sparse.csr_array(A))
    (tmp_path / "b.mtx").write_text(
        "%MatrixMarket matrix array real general\n\n6 1\n" + "".join(f"{v!r}\n" for v in b.tolist())
    )
    return tmp_path


@pytest.fixture
def stdin(monkeypatch):
    """Put bytes on standard input."""

    def put(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))

    return put


def solves(answer, *arguments, matrix=A):
    code, found = answer("solve", *arguments, "--output", "x.npy")
    assert (code, found["method"], found["n"]) == (3, "lapack", 6)  # the shipped model is for n = 64
    np.testing.assert_allclose(np.load("x.npy"), np.linalg.solve(matrix, b), rtol=1e-12)


@pytest.mark.parametrize(
    "arguments",
    [
        ("s.mat",),
        ("problem.mat",),
        ("problem.mat", "b.npy"),
        ("problem.mat:Problem.A", "problem.mat:Problem.b"),
        ("sparse.npz", "b.mtx"),
        ("A.npy", "row.npy"),
        ("other.npz:K", "other.npz:y"),
        ("other.npz:K", "other.mat:s.rhs"),
        ("many.npz:K",),
        ("other.mat:K", "many.npz"),
        ("A.npy", "other.npz:y"),
        ("./many.npz:K", "./many.npz:b"),
    ],
    ids=" ".join,
)
def test_solve(answer, folder, arguments):
    solves(answer, *arguments)


def test_a_file_with_a_colon_in_its_name_goes_first(answer, refused, folder):
    assert "such file" in refused("solve", "x.npz:K", "b.npy")
    np.savez("s.npz:K.npz", A=OTHER, b=b)
    solves(answer, "s.npz:K.npz", matrix=OTHER)
    (folder / "a:b").mkdir()
    np.savez("a:b/s.npz", K=OTHER, y=b)
    solves(answer, "a:b/s.npz:K", "a:b/s.npz:y", matrix=OTHER)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("s.npz", ("s.npz", None)),
        ("s.NPZ:K", ("s.NPZ", "K")),
        ("s.mat:Problem.A", ("s.mat", "Problem.A")),
        ("s.npz:K:L", ("s.npz", "K:L")),
        ("s.npz:K.npz", ("s.npz", "K.npz")),
        ("s.npz:", ("s.npz", "")),
        (r"C:\data\s.npz", (r"C:\data\s.npz", None)),
        (r"C:\data\s.npz:K", (r"C:\data\s.npz", "K")),
        ("-", ("-", None)),
        ("-:K", ("-", "K")),
        ("a:b", ("a:b", None)),
    ],
)
def test_split_name(argument, expected, folder):
    assert split_name(argument) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("other.npz",), ("other.npz: ", "'A'", "FILE:NAME", "K, y")),
        (("other.npz:K",), ("other.npz: ", "'b'", "FILE:NAME", "K, y")),
        (("other.npz:x", "b.npy"), ("other.npz: ", "'x'", "K, y")),
        (("other.npz:", "b.npy"), ("other.npz: ", "''", "K, y")),
        (("other.mat:s", "b.npy"), ("other.mat: ", "'s'", "K, y, s.rhs")),
        (("A.npy", "other.npz"), ("other.npz: ", "'b'", "FILE:NAME", "K, y")),
        (("A.npy:K", "b.npy"), ("A.npy: ", "'K'")),
        (("sparse.npz",), ("sparse.npz: ", "second file")),
        (("problem.mat:Problem.title", "b.npy"), ("problem.mat: ", "Problem.A, Problem.b, Problem.id")),
        (("s.npz", "--format", "npz"), ("--format",)),
        (("-",), ("--format",)),
        (("A.npy", "-"), ("--format",)),
        (("-:K", "-:y"), ("--format",)),
    ],
    ids=lambda value: " ".join(value),
)
def test_refused(refused, folder, stdin, arguments, words):
    stdin(b"")
    message = refused("solve", *arguments)
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    ("piped", "arguments"),
    [
        ("s.npz", ("-", "--format", "npz")),
        ("s.mat", ("-", "--format", "mat")),
        ("other.npz", ("-:K", "-:y", "--format", "npz")),
        ("problem.mat", ("-:Problem.A", "-:Problem.b", "--format", "mat")),
        ("A.npy", ("-", "b.npy", "--format", "npy")),
        ("b.mtx", ("A.npy", "-", "--format", "mtx")),
        ("other.npz", ("A.npy", "-:y", "--format", "npz")),
    ],
)
def test_standard_input(answer, folder, stdin, piped, arguments):
    stdin((folder / piped).read_bytes())
    solves(answer, *arguments)


def test_standard_input_that_is_refused(refused, run, folder, stdin, monkeypatch):
    content = (folder / "s.npz").read_bytes()
    for arguments, words in (
        (("-", "--format", "mat"), "<stdin>: "),
        (("-:K", "--format", "npz"), "'K'"),
        (("-", "--format", "npz", "--max-bytes", len(content) - 1), f"at most {len(content) - 1} bytes"),
        (("-", "-", "--format", "npy"), "second file"),
    ):
        stdin(content)
        sys.stdin.buffer.name = "<stdin>"
        assert words in refused("solve", *arguments)
    assert run("solve", "-", "--format", "csv")[0] == 2
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input" in refused("solve", "-", "--format", "npz")


def test_newton_takes_the_same_arguments(answer, refused, folder, stdin):
    options = ("-p", "4")
    expected = answer("newton", "A.npy", "b.npy", *options)[1]["fun"]
    assert answer("newton", "other.npz:K", "other.npz:y", *options)[1]["fun"] == expected
    stdin((folder / "s.npz").read_bytes())
    assert answer("newton", "-", "--format", "npz", *options)[1]["fun"] == expected
    assert "--format" in refused("newton", "-", *options)


def test_a_pipe_of_its_own(folder):
    """`cat s.npz | algebraformer solve - --format npz`, and a pipe that nobody writes to."""
    words = [sys.executable, "-m", "algebraformer", "solve", "-", "--format", "npz", "--output", "x.npy"]
    done = subprocess.run(words, input=(folder / "s.npz").read_bytes(), capture_output=True, check=False, timeout=600)
    assert (done.returncode, done.stderr) == (3, b"")
    np.testing.assert_allclose(np.load("x.npy"), np.linalg.solve(A, b), rtol=1e-12)
    done = subprocess.run(words, input=b"", capture_output=True, check=False, timeout=600)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert done.stderr.startswith(b"algebraformer: <stdin>: ")
