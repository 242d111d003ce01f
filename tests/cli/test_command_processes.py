"""Processes: none hangs after a fork, and the command ends well whatever happens to its streams, disk and terminal."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
from matplotlib.figure import Figure

import algebraformer as af
from algebraformer import __main__, io, plotting
from algebraformer.cli import output
from algebraformer.reporting import TableData, write_results

COMMAND = (sys.executable, "-m", "algebraformer")
CHILDREN = Path(__file__).with_name("solve_in_children.py")
PATIENCE = 120
"""Seconds after which a process counts as hanging; on an idle machine none takes ten."""
FULL = Path("/dev/full")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, pipes and forks of POSIX")


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a process and its children; return exit code, stdout and stderr."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"hangs: {out[-500:]} {err[-2000:]}")
    return process.returncode, out, err


def start(*words: object, **options: object) -> subprocess.Popen[str]:
    """Start a process in a group of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen([str(word) for word in words], **(pipes | options))  # type: ignore[call-overload]


def in_shell(line: str, **environment: str) -> tuple[int, str, str]:
    """Run a line of the shell in which $A is the command."""
    return ended(start("sh", "-c", line, env={**os.environ, "A": " ".join(COMMAND), **environment}))


# ---------------------------------------------------------------- forks, processes and threads


@pytest.mark.parametrize(
    "way", ["fork", "threads", "spawn", pytest.param("forkserver", marks=pytest.mark.slow), "loky"]
)
def test_children_solve_as_their_parent_does(way):
    code, _, err = ended(start(sys.executable, CHILDREN, way))
    assert code == 0, err


# ---------------------------------------------------------------- streams


@pytest.mark.parametrize("words", ["families", "families --json", "--help", "solve --help"])
def test_full_standard_output(words):
    if not FULL.exists():
        pytest.skip("no /dev/full")
    code, _, err = in_shell(f"$A {words} > {FULL}")
    assert (code, err) == (2, f"algebraformer: standard output: {os.strerror(errno.ENOSPC)}\n")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("$A families >&-", 0),
        ("$A families --json | true", 0),  # the code of `true`
        ("$A families >&- 2>&- <&-", 0),
        ("$A solve absent.npy b.npy >&- 2>&-", 2),
        ("$A solve absent.npy b.npy 2>/dev/full", 2),
        ("$A nonsense 2>&-", 2),
    ],
)
def test_streams_that_cannot_be_written(line, code):
    assert in_shell(line) == (code, "", "")


def test_exit_code_survives_a_reader_that_went_away(tmp_path):
    """What the answer is worth is not changed by `| head -1`, and x is written all the same."""
    io.write_system(tmp_path / "system.npz", np.ones((3, 3)), np.ones(3))
    reader, writer = os.pipe()
    os.close(reader)
    command = start(*COMMAND, "solve", tmp_path / "system.npz", "--output", tmp_path / "x.npy", stdout=writer)
    os.close(writer)
    code, _, err = ended(command)
    assert (code, err) == (1, "algebraformer: matrix A is singular\n")
    assert np.isnan(io.read_array(tmp_path / "x.npy")).all()


def test_terminal_without_unicode():
    code, out, err = in_shell("$A families; $A models", PYTHONIOENCODING="ascii", LANG="C")
    assert (code, err) == (0, "")
    assert out.isascii()
    assert "diffusion-64" in out


def test_warnings_are_lines_also_where_they_are_errors(tmp_path):
    hilbert = scipy.linalg.hilbert(30)
    io.write_system(tmp_path / "system.npz", hilbert, np.ones(30))
    command = start(*COMMAND, "solve", tmp_path / "system.npz", "--json", env={**os.environ, "PYTHONWARNINGS": "error"})
    code, out, err = ended(command)
    assert code in (1, 3)
    warned = json.loads(out)["warnings"]
    assert len(warned) == 1
    assert "rcond" in warned[0]
    assert f"warning: {warned[0]}\n" in err
    assert "Traceback" not in err


# ---------------------------------------------------------------- Ctrl-C

SOLVE = ("solve", "{}/systems.npz", "--model", "diffusion-64-token")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with systems that take a while."""
    folder = tmp_path_factory.mktemp("systems")
    systems = af.problems.get("diffusion", n=64).sample(1000, seed=5)
    io.write_system(folder / "systems.npz", systems.A, systems.b)
    return folder


def interrupted(words: tuple[str, ...], after: str, folder: Path, seconds: float = 0.0) -> tuple[int, str, list[str]]:
    """Press Ctrl-C some time after a module was imported; return exit code, stdout and lines on stderr."""
    words = tuple(word.format(folder) for word in words)
    command = start(sys.executable, "-X", "importtime", "-m", "algebraformer", *words, cwd=folder)
    assert command.stderr is not None
    for line in command.stderr:  # a line follows each import
        if line.rpartition("|")[2].strip() == after:
            break
    else:
        pytest.fail(f"{after} is not imported")
    time.sleep(seconds)
    os.killpg(command.pid, signal.SIGINT)  # as a terminal does
    code, out, err = ended(command)
    return code, out, [line for line in err.splitlines() if not line.startswith("import time:")]


@pytest.mark.parametrize(
    ("words", "after", "seconds"),
    [
        (SOLVE, "signal", 0.0),  # among the first imports of the command
        (SOLVE, "tyro._cli", 0.0),
        (SOLVE, "numpy.linalg", 0.0),
        (SOLVE, "algebraformer.solver", 0.0),  # before the model is loaded
        (SOLVE, "algebraformer.solver", 1.0),  # while it solves
        (("evaluate", "diffusion-64-token"), "algebraformer.evaluation", 0.5),
        (("study", "scaling"), "studies.harness.runs", 0.5),
        (("train", "quick", "--output", "{}/run"), "algebraformer.training.trainer", 0.1),
    ],
)
def test_interrupted(folder, words, after, seconds):
    code, out, lines = interrupted(words, after, folder, seconds)
    if any(line.startswith("Exception ignored in") for line in lines):
        assert code in (0, 3)  # it came in a callback of Python's own, which ignores exceptions
    elif code in (0, 3):  # it was faster
        assert [line for line in lines if not line.startswith("warning: LAPACK answered ")] == []
    else:
        assert code == 130
        assert len(lines) == 1 or (words[0] == "train" and "step" in out)  # where it goes on, on stdout
    assert not list(folder.glob("**/*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [SOLVE, ("evaluate",), ("study", "scaling"), ("newton", "{}/systems.npz"), ("models",)]
)
def test_interrupted_at_any_moment(folder, words):
    """The first tenth of a second is Python's own: it starts without us."""
    for delay in np.arange(0.1, 4.0, 0.1):
        command = start(*COMMAND, *(word.format(folder) for word in words), cwd=folder)
        time.sleep(delay)
        os.killpg(command.pid, signal.SIGINT)  # as a terminal does
        code, _, err = ended(command)
        assert code in (0, 3, 130), (delay, err)
        assert "Traceback" not in err, delay


def test_exit_codes_agree():
    assert (__main__.INTERRUPTED, __main__.NOT_WRITTEN) == (output.INTERRUPTED, output.BAD_INPUT)
    assert output.INTERRUPTED == 128 + signal.SIGINT


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    "words",
    [
        ("solve", "A.npy", "b.npy", "--output"),
        ("newton", "A.npy", "b.npy", "--output"),
        ("solve", "A.npy", "b.npy", "--model", "deblur-64", "--figure"),
        ("newton", "A.npy", "b.npy", "--figure"),
        ("evaluate", "--output"),
        ("study", "operator", "--output"),
        ("study", "operator", "--work"),
        ("train", "quick", "--output"),
        ("finetune", "--from", "diffusion-64", "--family", "reaction-diffusion", "--samples", "9", "--output"),
    ],
)
@pytest.mark.parametrize("json_too", [False, True])
def test_outputs_are_checked_before_the_work(refused, tmp_path, monkeypatch, words, json_too):
    """Neither the input, which is absent, nor a model is looked at."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(af.LearnedSolver, "from_pretrained", lambda *_: pytest.fail("the work has begun"))
    monkeypatch.setattr("algebraformer.training.finetuning.fine_tuning", lambda *_, **__: pytest.fail("begun"))
    suffix = ".png" if words[-1] == "--figure" else ".npy"
    (tmp_path / "file").write_text("")
    (tmp_path / f"folder{suffix}").mkdir()
    wrong = [tmp_path / "file" / f"x{suffix}"]
    if words[0] not in ("study", "train", "finetune"):
        wrong.append(tmp_path / f"folder{suffix}")
    if words[0] in ("solve", "newton"):
        wrong += [tmp_path / "absent" / f"x{suffix}", tmp_path / "x.txt"]
    for path in wrong:
        assert re.search(re.escape(str(path)) + "|received '.txt'", refused(*words, path, *["--json"] * json_too))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", f"folder{suffix}"]


def test_a_folder_without_permission(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path.resolve())  # root may write anywhere
    for words in (("solve", "A.npy", "--output", tmp_path / "x.npy"), ("study", "operator", "--output", tmp_path)):
        assert str(tmp_path) in refused(*words)


@pytest.fixture
def small_disk():
    """Files of this process cannot grow beyond 500 bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_disk")
@pytest.mark.parametrize("existing", [b"before", None])
def test_full_disk(tmp_path, existing):
    """The error names the file, and the file is what it was."""
    table = TableData(("a",), [[i] for i in range(500)])
    for name, write in (
        ("x.npy", lambda path: io.write_array(path, np.ones(1000))),
        ("x.json", lambda path: write_results(path, command="", table=table)),
        ("x.png", lambda path: plotting.save(Figure(), path)),
    ):
        path = tmp_path / name
        if existing is not None:
            path.write_bytes(existing)
        with pytest.raises(OSError) as caught:
            write(path)
        assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
        assert (path.read_bytes() if path.exists() else None) == existing
    assert {path.suffix for path in tmp_path.iterdir()} <= {".npy", ".json", ".png"}


def test_a_full_disk_is_one_line(refused, tmp_path, small_disk):
    io.write_array(tmp_path / "A.npy", np.eye(5, dtype=np.int8))
    io.write_array(tmp_path / "b.npy", np.ones((5, 60), dtype=np.int8))
    path = tmp_path / "x.npy"
    line = refused("solve", tmp_path / "A.npy", tmp_path / "b.npy", "--output", path)
    assert line == f"algebraformer: {path}: {os.strerror(errno.EFBIG)}\n"
    assert not path.exists()


# ---------------------------------------------------------------- --version and --json


def test_version(run):
    assert run("--version") == (0, f"algebraformer {af.__version__}", "")


def test_warnings_in_json(run, tmp_path):
    io.write_system(tmp_path / "system.npz", np.eye(3), np.ones(3))
    code, out, err = run("solve", tmp_path / "system.npz", "--json")
    assert (code, json.loads(out)["warnings"], err) == (output.FALLBACK, [], "")
    systems = af.problems.get("deblur", n=64).sample(1, seed=3)
    io.write_system(tmp_path / "noisy.npz", systems.A[0], systems.b[0] + 5 * (-1) ** np.arange(len(systems.b[0])))
    code, out, err = run("solve", tmp_path / "noisy.npz", "--model", "deblur-64", "--json")
    record = json.loads(out)
    assert (code, record["consistent"], len(record["warnings"])) == (3, False, 1)
    assert err == f"warning: {record['warnings'][0]}\n"
