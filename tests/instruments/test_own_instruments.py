"""Instruments of one's own: defaults, training, loading in another process, comparison, and the command line."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import nnls

import algebraformer as af
from algebraformer import cli
from algebraformer.errors import ConfigurationError, UnknownNameError
from algebraformer.instruments.classical import fit_linear
from algebraformer.instruments.figure import is_geometric
from algebraformer.numerics import nonnegative
from algebraformer.plotting import save
from algebraformer.problems import base
from algebraformer.problems.base import TEST_SEED
from algebraformer.problems.custom import family_from_file
from algebraformer.training import RunOptions
from study_results import assert_coloured

SOURCE = """
import numpy as np
import algebraformer as af

class Decay(af.instruments.Instrument):
    nuisance_names, nuisance_sizes = ("offset",), (0.1,)

    def draw_abscissa(self, rng, points):
        return np.linspace(0, rng.uniform(1, 5), points or rng.integers(30, 60))

    def kernel(self, t, rate):
        return np.exp(-10 * t[:, None] * rate) / self.n

    def columns(self, t):
        return np.full((len(t), 1), 0.1)
"""
FEW = ("samples=256", "steps=3", "batch_size=32", "model.n=20", "model.head.prior_rank=20", "model.n_layer=1",
       "scaler_samples=64", "calibration_samples=64", "validation_systems=8", "test_systems=8")  # fmt: skip
SETS = [word for pair in zip(FEW[::2], FEW[1::2], strict=True) for word in ("--set", *pair)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with an instrument that has no decorators and no prior."""
    path = tmp_path_factory.mktemp("own") / "decays.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="module")
def run(source: Path) -> Iterator[Path]:
    """The folder of a short training by the command line, with --set given many times."""
    folder = source.parent / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(
            "algebraformer.instruments.compare", lambda model, count=32, **more: compare(model, count, **more)
        )
        words = ["train", f"{source}:Decay", "--output", str(folder), "--workers", "0", "--json", *SETS]
        assert cli.main(words) == 0
        yield folder


compare = af.instruments.compare


@pytest.fixture(scope="module")
def model(run: Path) -> af.instruments.Model:
    return af.instruments.load(run)


def test_every_set_counts(run: Path) -> None:
    recipe = json.loads((run / "model" / "config.json").read_text())["recipe"]
    for change in FEW:
        name, _, value = change.partition("=")
        found = recipe
        for part in name.split("."):
            found = found[part]
        assert found == int(value)


def test_the_training_writes_a_report(run: Path) -> None:
    written = json.loads((run / "report.json").read_text(), parse_constant=pytest.fail)
    assert [row[0] for row in written["tables"][0]["rows"]] == ["network", "Gaussian fit", "GCV + NNLS", "GCV"]
    assert sum(row[1] for row in written["table"]["rows"]) == 32
    assert set(written["outcomes"]) == {"inversion.accuracy", "inversion.bands"}
    assert_coloured(run / "report.png")


def test_errors_coverage_and_levels_of_the_report(model: af.instruments.Model) -> None:
    """By another way: batches, errors and coverage counted here."""
    report = compare(model, 32)
    instrument, errors, inside, noise = model.instrument, [], [], []
    for start in (0, 16):
        s = instrument.simulate(range(start, start + 16), TEST_SEED)
        found = model(s.abscissa, s.data)
        errors += list(np.linalg.norm(found.x - s.x, axis=1) / np.linalg.norm(s.x, axis=1))
        here = found.x >= 0.02 * found.x.max(axis=1, keepdims=True)
        low, high = found.interval
        inside += [np.mean(((x >= a) & (x <= b))[w]) for x, a, b, w in zip(s.x, low, high, here, strict=True)]
        noise += list(s.deviation / np.sqrt(np.mean(s.clean**2, axis=1)))
    np.testing.assert_allclose(report.data["network: error"], errors, rtol=1e-5)
    np.testing.assert_allclose(report.data["network: coverage"], inside, rtol=1e-9)
    np.testing.assert_allclose(report.data["noise"], noise, rtol=1e-12)
    assert report.tables[1].rows[0][1] == pytest.approx(np.median(errors), rel=1e-5)
    for row, low in zip(report.tables[0].rows, (1e-3, 3e-3, 1e-2, 3e-2), strict=True):
        chosen = np.array(noise) >= low
        chosen &= np.array(noise) < {1e-3: 3e-3, 3e-3: 1e-2, 1e-2: 3e-2, 3e-2: 0.1}[low]
        assert row[:3] == [row[0], chosen.sum(), pytest.approx(np.median(np.array(errors)[chosen]), rel=1e-5)]


def test_classical_rows_of_the_report(model: af.instruments.Model) -> None:
    """Tikhonov's regularisation with bounds, by SciPy at the parameter that was chosen."""
    report = compare(model, 1)
    s = model.instrument.simulate([0], TEST_SEED)
    K, N = model.instrument.kernel(s.abscissa, s.grid), model.instrument.columns(s.abscissa)
    size = np.abs(s.data[0]).max()
    parameter = nonnegative.choose_parameter(K, s.data[0] / size, free=N)
    L = parameter * np.diff(np.eye(20), 2, axis=0)
    stacked = np.block([[K, N, -N], [L, np.zeros((len(L), 2))]])
    x = nnls(stacked, np.concatenate((s.data[0], np.zeros(len(L)))), maxiter=10_000)[0][:20]
    error = np.linalg.norm(x - s.x[0]) / np.linalg.norm(s.x[0])
    assert report.data["GCV + NNLS: error"][0] == pytest.approx(error, rel=1e-4)
    free = np.linalg.lstsq(stacked[:, :21], np.concatenate((s.data[0], np.zeros(len(L)))), rcond=None)[0][:20]
    error = np.linalg.norm(free - s.x[0]) / np.linalg.norm(s.x[0])
    assert report.data["GCV: error"][0] == pytest.approx(error, rel=1e-3)


def test_an_inversion_of_an_own_instrument(model: af.instruments.Model, tmp_path: Path) -> None:
    s = model.instrument.simulate([3], 5)
    found = model(s.abscissa, s.data[0])
    np.testing.assert_array_equal(found.grid, (np.arange(20) + 0.5) / 20)
    classical = fit_linear(
        model.instrument.kernel(s.abscissa, s.grid), s.data[0], np.ones((len(s.abscissa), 1)), ("offset",)
    )
    assert found.classical.nuisance["offset"] == pytest.approx(classical.nuisance["offset"], rel=1e-6)
    save(found.plot(), tmp_path / "found.png")
    assert_coloured(tmp_path / "found.png")
    tensors = model(s.abscissa, torch.from_numpy(s.data))
    assert all(type(array) is torch.Tensor for array in (tensors.x, tensors.nuisance["offset"], *tensors.interval))
    np.testing.assert_allclose(tensors.x[0], found.x, rtol=1e-9)


def test_loading_where_the_instrument_is_not_known(run: Path, source: Path) -> None:
    script = (
        "import sys, algebraformer as af\n"
        "folder, source = sys.argv[1:]\n"
        "try: af.instruments.load(folder)\n"
        "except af.errors.UnknownNameError as error: print('import the module' in str(error))\n"
        "print(af.instruments.load(folder, source).instrument.name, 'torch' in sys.modules)\n"
    )
    words = [sys.executable, "-c", script, str(run), f"{source}:Decay"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "decay", "False"]


def test_loading_as_another_instrument(run: Path) -> None:
    with pytest.raises(ConfigurationError, match="decay inverts decay, received deer"):
        af.instruments.load(run, af.problems.get("deer"))
    with pytest.raises(UnknownNameError, match="nothing"):
        af.instruments.load("nothing")


def test_a_folder_that_is_written_again_is_read_again(run: Path, tmp_path: Path) -> None:
    family = af.instruments.load(run).instrument
    few = dict.fromkeys(("scaler_samples", "calibration_samples", "validation_systems", "test_systems"), 32)
    recipe = dataclasses.replace(af.recipe_for(family), samples=64, batch_size=32, **few)
    steps = []
    for count in (1, 2):
        for old in sorted(tmp_path.rglob("*"), reverse=True):
            old.rmdir() if old.is_dir() else old.unlink()
        af.train(dataclasses.replace(recipe, steps=count), tmp_path / "run", RunOptions(progress=False, workers=0))
        steps.append(af.instruments.load(tmp_path / "run").info.recipe["steps"])
    assert steps == [1, 2]


def test_evaluate_and_info(run: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(*words: object) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in words])
        return code, *capsys.readouterr()

    family = ("--family", f"{source}:Decay")
    code, out, _ = answer("evaluate", run, *family, "--count", 16, "--json", "--output", tmp_path / "scores.json")
    found = json.loads(out)
    assert (code, found["systems"], found["family"]["n"]) == (0, 16, 20)
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["outcomes"] == found["outcomes"]
    assert written["table"] == found["tables"][0]
    code, out, _ = answer("evaluate", run, "--count", 16)
    assert (code, "GCV + NNLS" in out) == (0, True)
    code, _, err = answer("evaluate", run, "--family", "deer")
    assert (code, "inverts decay, received --family deer" in err) == (2, True)
    code, _, err = answer("evaluate", run, "--rtol", 0.1)
    assert (code, "--rtol does not apply" in err) == (2, True)
    code, out, _ = answer("info", run, "--json")
    facts = json.loads(out)
    assert (code, facts["head"], facts["n"], facts["settings"]["recipe.steps"]) == (0, "inversion", 20, 3)
    assert set(facts["scores"]) >= {"relative_error_median", "coverage_90"}


def test_default_signals_are_peaks_or_humps(source: Path) -> None:
    decay = family_from_file(f"{source}:Decay")
    rng = np.random.default_rng(0)
    X = np.array([decay.draw_signal(rng, np.arange(100)) for _ in range(300)])
    np.testing.assert_allclose(X.mean(axis=1), 1, rtol=1e-12)
    assert (X >= 0).all()
    tops = ((X[:, 1:-1] > X[:, :-2]) & (X[:, 1:-1] > X[:, 2:])).sum(axis=1)
    assert set(tops) >= {1, 2, 3}


def test_peaks_have_the_places_and_widths_that_are_asked_for() -> None:
    u = np.linspace(0, 1, 2000)
    for seed in range(5):
        x = af.instruments.peaks(np.random.default_rng(seed), 2000, (1, 1), (0.3, 0.6), (0.02, 0.05))
        mean = np.average(u, weights=x)
        assert 0.3 <= mean <= 0.6
        assert 0.02 <= np.sqrt(np.average((u - mean) ** 2, weights=x)) <= 0.05


def test_axes_are_logarithmic_where_points_are() -> None:
    assert is_geometric(np.geomspace(1e-3, 10, 50))
    assert not is_geometric(np.linspace(0.1, 10, 50))
    assert not is_geometric(np.linspace(-1, 1, 50))


def test_kernel_of_the_example() -> None:
    """The chords of Abel's transform against SciPy's quadrature."""
    example = family_from_file(f"{Path(__file__).parents[2]}/examples/own_instrument.py:Abel")
    y, r = np.array([0.0, 0.31, 0.8]), example.grid(np.array([0.0, 1.0]))
    found = example.kernel(y, r) @ (1 - r**2)
    for value, at in zip(found, y, strict=True):
        # r = sqrt(y^2 + s^2) takes the singularity away
        expected, _ = quad(lambda s, at=at: 2 * (1 - at**2 - s**2), 0, np.sqrt(1 - at**2))
        assert value == pytest.approx(
            expected, abs=1e-3
        )  # a ring is 1/100 wide, and the outermost one is cut by a root
