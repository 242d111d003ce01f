"""The command line: every command, its JSON, its exit codes, and one line on stderr for whatever is wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest
import scipy.linalg
import torch
from matplotlib.figure import Figure

import algebraformer as af
from algebraformer import cli, io
from algebraformer.checkpoint import CheckpointInfo, load, save
from algebraformer.models import Algebraformer, ModelConfig
from algebraformer.reporting import Report, TableData, Verdict, format_cell, outcome, print_table

COMMANDS = ("solve", "train", "finetune", "evaluate", "assess", "study", "newton", "families", "models", "info")
N = 8
EPS = float(np.finfo(float).eps)
PER_SYSTEM = {field.name for field in dataclasses.fields(af.SolveResult)} - {"x"}
FIELDS = PER_SYSTEM | {"n", "model", "output", "warnings"}
COMMAND = (sys.executable, "-m", "algebraformer")
ANYTHING = "1e300"  # a tolerance that whatever the network says meets


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a small model that is no good, and systems in files."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    model = Algebraformer(ModelConfig(n=N, n_layer=1, n_head=2, n_embd=8))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
        model.token_head.scaler.max_distance.fill_(1e300)  # every system is in distribution
    diffusion = af.problems.get("diffusion", n=N)
    save(folder / "model", model, CheckpointInfo(name="small", family=diffusion.settings()))
    save(folder / "own", model, CheckpointInfo(name="own", family={"name": "somebodys-own", "n": N}))
    systems = diffusion.sample(3, seed=7)
    A, b = systems.A[0], systems.b[0]
    arrays = {"A": A, "b": b, "B": systems.b[:2].T, "batch_A": systems.A, "batch_b": systems.b}
    arrays |= {"singular": np.ones((N, N)), "singulars": np.stack([A, np.ones((N, N)), A])}
    arrays |= {"hilbert": scipy.linalg.hilbert(30), "ones": np.ones(30), "wide": A[:-1], "short": b[:-1]}
    arrays |= {"nan": np.where(np.arange(N) == 3, np.nan, 1.0), "complex": A * 1j}
    for name, array in arrays.items():
        io.write_array(folder / f"{name}.npy", array)
    for suffix in (".npz", ".mat"):
        io.write_system(folder / f"system{suffix}", A, b)
    for name in "Ab":
        io.write_array(folder / f"{name}.mtx", arrays[name])
    (folder / "text.mtx").write_text("%%MatrixMarket matrix array real general\n2 2\n1\n2\n3\nfour\n")
    (folder / "object.npy").write_bytes(b"\x93NUMPY\x01\x00garbage")
    return folder


# ---------------------------------------------------------------- solve


@pytest.mark.parametrize(
    ("A", "b"),
    [("A.mtx", "b.mtx"), ("A.npy", "b.npy"), ("A.mtx", "b.npy"), ("system.npz", None), ("system.mat", None)],
)
def test_solve(answer, files, A, b):
    arguments = ("solve", *(files / name for name in (A, b) if name), "--model", files / "model")
    code, found = answer(*arguments)
    assert (code, found["status"], found["method"], found["certified"]) == (3, "FALLBACK", "lapack", True)
    assert set(found) == FIELDS
    assert (found["n"], found["model"], found["output"]) == (N, str(files / "model"), None)
    assert 0 <= found["backward_error"] <= N * EPS
    assert 0 < found["rcond"] < 1
    code, found = answer(*arguments, "--rtol", ANYTHING)
    assert (code, found["status"], found["refinements"]) == (0, "LEARNED", 0)
    code, found = answer(*arguments, "--no-fallback", "--max-refinements", 0)
    assert (code, found["status"], found["certified"]) == (1, "UNCERTIFIED", False)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mtx", ".mtx.gz", ".mat"])
@pytest.mark.parametrize("b", ["b.npy", "B.npy"])
def test_output(answer, files, tmp_path, suffix, b):
    path = tmp_path / f"x{suffix}"
    code, found = answer("solve", files / "A.npy", files / b, "--model", files / "model", "--output", path)
    assert (code, found["output"]) == (3, str(path))
    x, right = io.read_array(path), np.load(files / b)
    assert x.reshape(right.shape).dtype == np.float64
    np.testing.assert_allclose(x.reshape(right.shape), np.linalg.solve(np.load(files / "A.npy"), right), rtol=1e-12)


def test_solve_tells_a_person(run, files, tmp_path):
    options = ("--model", files / "model", "--output", tmp_path / "x.npy")
    code, out, err = run("solve", files / "batch_A.npy", files / "batch_b.npy", *options)
    assert (code, err.count("\n")) == (3, 1)
    assert err.startswith("warning: LAPACK answered 3 of 3 systems")
    for words in (
        "batch_A.npy",
        f"n = {N}",
        "lapack",
        "3 of 3 systems: the network did not reach the tolerance",
        "x written to",
    ):
        assert words in out
    assert np.load(tmp_path / "x.npy").shape == (3, N)
    io.write_system(tmp_path / "many.npz", np.tile(np.load(files / "A.npy"), (25, 1, 1)), np.ones((25, N)))
    assert "... and 5 more systems" in run("solve", tmp_path / "many.npz", *options)[1]


def test_the_shipped_model_is_the_default(answer, tmp_path):
    systems = af.problems.get("diffusion", n=64).sample(1, seed=5)
    io.write_system(tmp_path / "system.npz", systems.A[0], systems.b[0])
    code, found = answer("solve", tmp_path / "system.npz")
    assert (found["model"], found["n"], found["certified"]) == ("diffusion-64", 64, True)
    assert code == (3 if found["method"] == "lapack" else 0)


def test_singular(run, files, tmp_path):
    options = ("--model", files / "model", "--json", "--output", tmp_path / "x.npy")
    code, out, err = run("solve", files / "singulars.npy", files / "batch_b.npy", *options)
    assert (code, err.splitlines()[-1]) == (1, "algebraformer: matrix A is singular in system 1 of the batch")
    found = json.loads(out, parse_constant=pytest.fail)
    assert found["status"] == ["FALLBACK", "SINGULAR", "FALLBACK"]
    assert {len(found[name]) for name in PER_SYSTEM} == {3}
    assert np.isnan(np.load(tmp_path / "x.npy")).any(axis=1).tolist() == [False, True, False]


def test_ill_conditioned(run, files):
    code, out, err = run("solve", files / "hilbert.npy", files / "ones.npy", "--model", files / "model", "--json")
    assert code in (1, 3)
    found = json.loads(out)
    assert found["certified"] == (code == 3)
    assert found["warnings"][0].startswith("An ill-conditioned matrix")
    assert err == f"warning: {found['warnings'][0]}\n"
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("A", "b", "words"),
    [
        ("absent.npy", "b.npy", "absent.npy: no such file"),
        ("A.npy", None, "expected a second file with b"),
        ("text.mtx", "b.npy", "text.mtx: "),
        ("object.npy", "b.npy", "object.npy: "),
        ("wide.npy", "b.npy", "A must have shape (n, n) or (B, n, n), received (7, 8)"),
        ("A.npy", "short.npy", "b has 7 rows, A has 8"),
        ("batch_A.npy", "b.npy", "b must have shape"),
        ("complex.npy", "b.npy", "the model supports real systems with n = 8, received complex ones"),
        ("A.npy", "nan.npy", "b contains NaN or infinity, first at index (3,)"),
        ("nan.npy", "nan.npy", "A must have shape (n, n) or (B, n, n)"),
    ],
)
def test_bad_files(refused, files, A, b, words):
    names = [files / name for name in (A, b) if name]
    assert words in refused("solve", *names, "--model", files / "model", "--no-fallback")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model", "nobody"), "unknown model or checkpoint folder 'nobody'; known: "),
        (("--model", "."), "no checkpoint here"),
        (("--rtol", "-1"), "rtol must be a finite number >= 0, received -1.0"),
        (("--max-bytes", "100"), "expected an array of at most 100 bytes"),
        (("--output", "x.txt"), "expected a name that ends in"),
        (("--output", "absent/x.npy"), "absent"),
    ],
)
def test_bad_options(refused, files, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    model = () if "--model" in options else ("--model", files / "model")
    assert words in refused("solve", files / "A.npy", files / "b.npy", *model, *options)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- what tyro reads


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("--nonsense",), *((c, "--nonsense") for c in COMMANDS)])
def test_unknown_words(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.strip()


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help(run, name):
    code, out, err = run(*([name] if name else []), "--help")
    assert (code, err) == (0, "")
    words = ("--json", cli.__dict__[name.title()].__doc__[:30]) if name else COMMANDS
    assert all(word in out for word in words)


# ---------------------------------------------------------------- the other commands


def test_families(answer):
    code, found = answer("families")
    assert (code, list(found)) == (0, af.problems.names())
    for name, entry in found.items():
        assert set(entry) == {"about", "settings"}
        assert af.problems.get(name).settings() == af.problems.from_settings(entry["settings"]).settings()


def test_models(answer):
    code, found = answer("models")
    assert (code, set(found)) == (0, {"shipped", "recipes"})
    assert list(found["shipped"]) == af.pretrained_names()
    for entry in found["shipped"].values():
        assert set(entry) == {"family", "n", "parameters", "bytes", "scores"}
        assert entry["bytes"] > 2 * entry["parameters"]  # 16-bit integers or more
    assert abs(found["recipes"]["paper"]["parameters"] / 9_511_169 - 1) < 0.01


def test_models_of_every_kind_have_a_score(run, answer):
    shipped = answer("models")[1]["shipped"]
    code, out, _ = run("models")
    assert (code, "median error" in out) == (0, True)
    for name in ("deblur-64", "diffusion-64", "diffusion-64-token"):
        scores = [shipped[name]["scores"].get(key) for key in ("normalized_mse", "relative_error_median")]
        assert out.partition(f" {name} ")[2].replace("│", "").split()[4:6] == [format_cell(score) for score in scores]
        assert scores[1] > 0


def test_info(answer):
    code, found = answer("info")
    assert code == 0
    assert set(found) == {"commit", "versions", "processor", "threads", "kernels", "environment", "devices"}
    assert (found["versions"]["algebraformer"], found["devices"][0]) == (af.__version__, "cpu")
    assert found["threads"] == torch.get_num_threads()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("families", af.problems.names()),
        ("models", [*af.pretrained_names(), *af.training.RECIPES]),
        ("info", [np.__version__, torch.__version__, "cpu"]),
    ],
)
def test_tables(run, name, words):
    code, out, err = run(name)
    assert (code, err) == (0, "")
    assert all(word in out for word in words)


def test_evaluate(run, answer, refused, files, tmp_path):
    path = tmp_path / "new" / "scores.json"
    code, found = answer("evaluate", files / "model", "--count", 5, "--output", path)
    assert (code, set(found)) == (0, {"model", "family", "systems", "rtol", "network", "solve"})
    assert (found["systems"], found["rtol"], found["family"]["n"]) == (5, None, N)
    assert found["solve"]["lapack"] == found["solve"]["certified"] == 1
    written = json.loads(path.read_text())
    assert {k: written[k] for k in found} == found
    assert set(written) - set(found) == {"command", "provenance", "table"}
    code, out, err = run("evaluate", files / "model", "--count", 2, "--family", "reaction-diffusion")
    assert (code, err) == (0, "")
    assert "2 systems of reaction-diffusion" in out
    assert "unknown family 'nothing'; known: " in refused("evaluate", files / "model", "--family", "nothing")
    assert "at least one index" in refused("evaluate", files / "model", "--count", 0)


def test_evaluate_a_network_that_overflows(answer, files):
    model, info = load(files / "model")
    with torch.no_grad():
        model.head.linear.bias.fill_(3e38)
        model.head.linear.weight.fill_(3e38)
    save(files / "huge", model, info)
    code, found = answer("evaluate", files / "huge", "--count", 3)
    assert (code, found["network"]["mse"], found["solve"]["lapack"]) == (0, None, 1)


QUICK = ("--set", "steps=2", "batch_size=4", "model.n_layer=1", "model.n_embd=8", "model.n=6", "--workers", 0)


def test_train_and_use(run, answer, refused, tmp_path, files):
    folder = tmp_path / "run"
    code, found = answer("train", "quick", "--output", folder, "--name", "mine", *QUICK)
    assert (code, found["folder"], found["step"], found["finished"]) == (0, str(folder), 2, True)
    assert found["scores"]["mse"] > 0
    settings = json.loads((folder / "model" / "config.json").read_text())
    assert (settings["name"], settings["recipe"]["steps"], settings["model"]["n"]) == ("mine", 2, 6)
    code, again = answer("train", "quick", "--output", folder, "--name", "mine", *QUICK)
    assert (code, again["step"], again["scores"]) == (0, 2, found["scores"])
    assert "another recipe" in refused("train", "quick", "--output", folder, *QUICK[:-2], "seed=1")
    code, solved = answer("solve", files / "A.npy", files / "b.npy", "--model", folder)
    assert (code, solved["status"]) == (3, "UNSUPPORTED")
    code, out, _ = run("train", "quick", "--output", tmp_path / "other", *QUICK)
    assert (code, "on the frozen test set" in out) == (0, True)
    assert json.loads((tmp_path / "other" / "model" / "config.json").read_text())["name"] == "quick"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "unknown recipe 'nothing'; known: "),
        (("quick", "--set", "stepz=2"), "--set expects name=value with a name of the recipe, received 'stepz=2'"),
        (("quick", "--set", "model.depth=2"), "received 'model.depth=2'"),
        (("quick", "--set", "steps=0"), "steps must be a whole number"),
        (("quick", "--set", "family=nothing"), "unknown family 'nothing'"),
        (("quick", "--set", "family_settings.beta=1"), "has no setting 'beta'"),
        (("quick", "--set", "model.n_head=5"), "n_head must divide n_embd"),
        (("quick", "--device", "nonsense"), "device 'nonsense' cannot be used"),
        (("quick", "--device", "cuda:99"), "device 'cuda:99' cannot be used"),
        (("quick", "--name", "a/b"), "a model's name is 1 to 64 characters"),
    ],
)
def test_train_refuses(refused, tmp_path, arguments, words):
    assert words in refused("train", *arguments, "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- study


def test_long_cells_are_broken_not_cut_off(capsys):
    """Names that differ in their last letter stay different where columns are narrow."""
    print_table(TableData(["name", *("polarisation" for _ in range(9))], [["lithium_ion_1"] + [50.25] * 9], ""))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("│", "|"))]
    assert "".join(re.split("[│|]", line)[1].strip() for line in lines) == "lithium_ion_1"


def test_study(run, answer, refused, tmp_path, monkeypatch):
    """A study of one line: its files, its JSON and its page."""
    table = TableData(("what", "value"), [["one", 1.0]], "A table")
    found = {"operator.so": outcome(Verdict.HOLDS, value=1.0)}
    result = Report((table, table), found, ["It is so."], {"x": [1, 2]})
    module = types.SimpleNamespace(
        __name__="studies.operator",
        PRESETS={"quick": None},
        SENTENCES={},
        outcomes=lambda data: found,
        run=lambda plan, folder, bar: result,
        figure=lambda data: Figure(),
    )
    monkeypatch.setitem(sys.modules, "studies.operator", module)
    options = ("operator", "--output", tmp_path, "--work", tmp_path / "work")
    code, found = answer("study", *options)
    assert (code, found["output"], found["conclusions"]) == (0, str(tmp_path / "operator.json"), ["It is so."])
    assert found["outcomes"] == {"operator.so": {"verdict": "holds", "numbers": {"value": 1.0}}}
    written = json.loads((tmp_path / "operator.json").read_text())
    assert (written["preset"], written["data"], written["table"]) == ("quick", {"x": [1, 2]}, table.settings())
    assert "It is so." in (tmp_path / "operator.md").read_text()
    assert (tmp_path / "operator.png").stat().st_size > 0
    code, out, _ = run("study", *options)
    assert (code, "A table" in out, "It is so." in out) == (0, True, True)
    assert "unknown study 'nothing'; known: " in refused("study", "nothing")
    assert "unknown preset of operator 'huge'; known: quick" in refused("study", *options, "--preset", "huge")


# ---------------------------------------------------------------- as a process of its own


@pytest.fixture(scope="module")
def processes(files):
    """What became of some commands, all at the same time."""
    solve = ("solve", files / "A.npy", files / "b.npy", "--model", files / "model")
    commands = {
        "certified": (*solve, "--rtol", ANYTHING),
        "fallback": solve,
        "singular": ("solve", files / "singular.npy", *solve[2:]),
        "missing": ("solve", files / "absent.npy", *solve[2:]),
        "own family": (*solve[:3], "--model", files / "own", "--rtol", ANYTHING),
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": files}
    started = {name: subprocess.Popen([*COMMAND, *words], **pipes) for name, words in commands.items()}
    return {name: (*process.communicate(timeout=600), process.returncode) for name, process in started.items()}


@pytest.mark.parametrize(
    ("name", "code", "words", "line"),
    [
        ("certified", 0, "The network answered, without refinement.", ""),
        ("fallback", 3, "so LAPACK answered.", ""),
        ("singular", 1, "A is exactly singular", "algebraformer: matrix A is singular\n"),
        ("missing", 2, "", "algebraformer: {}/absent.npy: no such file; expected a NumPy array (.npy)\n"),
        ("own family", 0, "The network answered, without refinement.", ""),
    ],
)
def test_exit_codes(processes, files, name, code, words, line):
    out, err, found = processes[name]
    assert (found, err) == (code, line.format(files))
    assert words in out


WITHOUT_TORCH = """
import sys
from algebraformer.cli import main
try:
    main(sys.argv[1:])
finally:
    print(sorted({"torch", "scipy", "matplotlib", "safetensors"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [("--help",), ("solve", "--help")])
def test_help_does_not_wait_for_torch(arguments, tmp_path):
    """These imports are what takes seconds; without them the answer takes 0.4 s on an idle machine."""
    words = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr == "[]\n"
    assert "usage: algebraformer" in done.stdout


@pytest.mark.parametrize("arguments", [("families",), ("families", "--json"), ("--help",)])
def test_nobody_reads(arguments):
    """`algebraformer families | head -1`: no message, and no complaint when Python closes stdout."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
