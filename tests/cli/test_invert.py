"""The command invert: measured files, what it writes, exit codes, and files as users bring them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from algebraformer import instruments
from algebraformer.instruments.files import read_spectrum, read_trace
from algebraformer.problems.instruments.dipolar import dipolar_kernel

DATA = Path(__file__).parents[2] / "examples" / "data"
DEER, DRT = DATA / "deer" / "example_4pdeer_1.csv", DATA / "eis" / "lithium_ion_1.csv"
FIELDS = {"x", "interval", "nuisance", "nuisance_std", "noise", "misfit", "checks", "consistent", "in_distribution"}


def made_up(noise=0.01):
    """Return times in us and a trace with its zero at 0.12 us."""
    t = np.arange(0, 3, 0.016)
    pairs = dipolar_kernel(t - 0.12, np.linspace(3.2, 3.8, 20)).mean(axis=1)
    V = (0.7 + 0.3 * pairs) * np.exp(-0.1 * np.abs(t - 0.12))
    return t, V + noise * np.random.default_rng(0).standard_normal(len(t))


def written(path, names, *columns):
    """Write columns of a file, and return it."""
    lines = [names] if names else []
    lines += [",".join(f"{value:.12g}" for value in row) for row in zip(*columns, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(("instrument", "file"), [("deer", DEER), ("drt", DRT)])
def test_measured_files(run, instrument, file, tmp_path):
    """As one JSON object, a table and a figure: what the function says."""
    options = ("--output", tmp_path / "x.csv", "--figure", tmp_path / "x.png", "--json")
    code, out, err = run("invert", instrument, file, *options)
    assert err == ""
    found = json.loads(out, parse_constant=pytest.fail)
    if instrument == "deer":
        direct = instruments.deer(*read_trace(file))
    else:
        direct = instruments.drt(*read_spectrum(file))
    record = direct.record()
    assert {name: found[name] for name in record} == record
    trusted = found["consistent"] and found["in_distribution"]
    assert code == (0 if trusted else 3)
    assert set(found) - set(record) == {"output", "figure"} | (set() if trusted else {"classical"})
    table = np.genfromtxt(tmp_path / "x.csv", delimiter=",", names=True)
    assert table.dtype.names == (direct.grid_name, "x", "low_50", "high_50", "low_90", "high_90", "low_95", "high_95")
    np.testing.assert_allclose(table[direct.grid_name], direct.grid, rtol=1e-5)
    np.testing.assert_allclose(table["x"], direct.x, rtol=1e-5)
    np.testing.assert_allclose(table["high_90"], direct.interval[1], rtol=1e-5)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def trace(tmp_path):
    return written(tmp_path / "trace.csv", "time_us,real", *made_up())


def test_a_trace_for_people(run, trace):
    code, out, err = run("invert", "deer", trace)
    assert (code, err) == (0, "")
    assert "modulation_depth" in out
    assert "classical" not in out


def test_what_is_not_to_be_trusted_has_code_3(answer, run, tmp_path):
    """An artefact as of crossing echoes: the classical answer comes along."""
    t, V = made_up()
    V[150:156] += [0.2, -0.3, 0.35, -0.3, 0.2, -0.1]
    file = written(tmp_path / "crossed.csv", "time_us,real", t, V)
    code, found = answer("invert", "deer", file)
    assert (code, found["consistent"]) == (3, False)
    assert len(found["classical"]["x"]) == len(found["x"])
    assert set(found["classical"]["nuisance"]) <= set(found["nuisance"])
    code, out, _ = run("invert", "deer", file)
    assert (code, "classical" in out) == (3, True)


def test_zero_time(answer, trace):
    zeros = []
    for options in ((), ("--zero-time", 0.12), ("--zero-time", 0.14)):
        _, found = answer("invert", "deer", trace, *options)
        zeros.append(found["nuisance"]["zero_time"])
    assert zeros[:2] == pytest.approx([0.12, 0.12], abs=0.02)


@pytest.mark.parametrize(("unit", "factor"), [("s", 1e-6), ("ms", 1e-3), ("us", 1.0), ("ns", 1e3)])
def test_units_of_time(answer, tmp_path, unit, factor):
    """In the name of the column, or as an option; an option overrides the name."""
    t, V = made_up()
    named = answer("invert", "deer", written(tmp_path / "named.csv", f"time_{unit},real", factor * t, V))
    said = answer("invert", "deer", written(tmp_path / "bare.csv", "", factor * t, V), "--time-unit", unit)
    over = answer("invert", "deer", written(tmp_path / "o.csv", "time_us,V", factor * t, V), "--time-unit", unit)
    for code, found in (said, over):
        assert code == named[0]
        np.testing.assert_allclose(found["x"], named[1]["x"], rtol=1e-6, atol=1e-9)


def test_frequencies_in_rad_per_second(answer, tmp_path):
    """A column omega is divided by 2 pi."""
    f, Z = read_spectrum(DATA / "eis" / "zarc.csv")
    expected = answer("invert", "drt", DATA / "eis" / "zarc.csv")[1]
    file = written(tmp_path / "omega.csv", "omega,Re,-Im", 2 * np.pi * f, Z.real, -Z.imag)
    found = answer("invert", "drt", file)[1]
    np.testing.assert_allclose(found["tau"], expected["tau"], rtol=1e-6)
    np.testing.assert_allclose(found["x"], expected["x"], rtol=1e-4, atol=1e-6 * max(expected["x"]))


@pytest.mark.parametrize(("part", "name", "sign"), [("real", "Zre", 1), ("imag", "-Zim", -1)])
def test_one_part(answer, tmp_path, part, name, sign):
    """From a file of both parts, or of this one alone."""
    f, Z = read_spectrum(DATA / "eis" / "zarc.csv")
    expected = instruments.drt(f, getattr(Z, part), part=part).record()
    _, of_both = answer("invert", "drt", DATA / "eis" / "zarc.csv", "--part", part)
    alone = written(tmp_path / "part.csv", f"f,{name}", f, sign * getattr(Z, part))
    _, of_one = answer("invert", "drt", alone, "--part", part)
    for found in (of_both, of_one):
        np.testing.assert_allclose(found["x"], expected["x"], rtol=1e-6, atol=1e-9 * max(expected["x"]))


# ---------------------------------------------------------------- files as users bring them

t, V = made_up()
f = np.logspace(5, -1, 61)
Z = 10 + 50 / (1 + 2j * np.pi * f * 1e-2)
BAD_TRACES = {
    "empty": (b"", (), "empty file"),
    "a heading alone": (b"time_us,real\n", (), "at least two columns"),
    "one point": (b"time_us,real\n0,1\n", (), "at least 10 points"),
    "binary": (bytes(range(256)), (), "binary data"),
    "no unit": (("time,real", t, V), (), "unit of time"),
    "no names": (("", t, V), (), "unit of time"),
    "ns under the name of us": (("time_us,real", 1e3 * t, V), (), "nanoseconds"),
    "s under the name of us": (("time_us,real", 1e-6 * t, V), (), "milliseconds or seconds"),
    "ns as an option": (("time_us,real", t, V), ("--time-unit", "ns"), "milliseconds or seconds"),
    "descending": (("time_us,real", t[::-1], V[::-1]), (), "ascend"),
    "a time twice": (("time_us,real", np.sort(np.append(t, t[7])), np.append(V, 1)), (), "without repeats"),
    "NaN": (("time_us,real", t, np.where(t > 2, np.nan, V)), (), "NaN or infinity"),
    "zero": (("time_us,real", t, 0 * V), (), "zero throughout"),
    "upside down": (("time_us,real", t, -V), (), "times -1"),
    "huge": (("time_us,real", t, 1e200 * V), (), "another unit"),
    "tiny": (("time_us,real", t, 1e-200 * V), (), "another unit"),
    "unknown names": (("alpha,beta", t, V), (), "columns time, real"),
    "one column": (b"time_us\n" + b"1.5\n" * 50, (), "at least two columns"),
    "no beginning": (("time_us,real", t[20:], V[20:]), (), "give zero_time"),
    "a zero outside": (("time_us,real", t, V), ("--zero-time", "7"), "zero_time must lie"),
    "a zero at the end": (("time_us,real", t, V), ("--zero-time", "2.95"), "after its zero"),
    "NaN as the zero": (("time_us,real", t, V), ("--zero-time", "nan"), "zero_time must lie"),
    "a model of something else": (("time_us,real", t, V), ("--model", "diffusion-64"), "inverts no measurements"),
    "a model of the other instrument": (("time_us,real", t, V), ("--model", "drt"), "not DEER traces"),
    "a part": (("time_us,real", t, V), ("--part", "real"), "is for impedance spectra"),
    "names for some columns": (b"time (ns) real imag\n1 2 3\n", (), "one name for each"),
    "digits behind decimal commas": (b"time,real\n0,5,7,25\n1,5,6,25\n", ("--time-unit", "ns"), "one name for each"),
    "no model": (("time_us,real", t, V), ("--model", "nix"), "unknown model"),
}
BAD_SPECTRA = {
    "empty": (b"", (), "empty file"),
    "one point": (b"1,1,-1\n", (), "at least 10 points"),
    "two columns": (("", f, Z.real), (), "three columns"),
    "real part alone": (("f,Re", f, Z.real), (), "--part real"),
    "the other part": (("f,Re", f, Z.real), ("--part", "imag"), "expected columns frequency"),
    "names for some columns": (b"f (kHz) Re Im\n1 2 -3\n", (), "one name for each"),
    "a unit in small letters": (("f_mhz,Re,Im", f, Z.real, Z.imag), (), "f_mhz"),
    "resistance and inductance": (("f,Re,Im", f, 10 + 0 * f, 2e-6 * np.pi * f), (), "inductance"),
    "wrong sign": (("f,Re,Im", f, Z.real, -Z.imag), (), "complex conjugate"),
    "no imaginary part": (("f,Re,Im", f, Z.real, 0 * f), (), "zero throughout"),
    "negative": (("f,Re,Im", f, -Z.real, -Z.imag), (), "real part is negative"),
    "negative frequencies": (("f,Re,Im", -f, Z.real, Z.imag), (), "positive"),
    "not in order": (("f,Re,Im", np.roll(f, 5), Z.real, Z.imag), (), "ascend"),
    "NaN": (("f,Re,Im", f, np.where(f < 1, np.nan, Z.real), Z.imag), (), "NaN or infinity"),
    "zero": (("f,Re,Im", f, 0 * f, 0 * f), (), "zero throughout"),
    "huge": (("f,Re,Im", f, 1e200 * Z.real, 1e200 * Z.imag), (), "another unit"),
    "an admittance": (("f,Re(Y),Im(Y)", f, Z.real, Z.imag), (), "expected columns frequency"),
    "options of traces": (("f,Re,Im", f, Z.real, Z.imag), ("--zero-time", "0"), "are for traces"),
    "a unit of time": (("f,Re,Im", f, Z.real, Z.imag), ("--time-unit", "ns"), "are for traces"),
    "a model of the other instrument": (("f,Re,Im", f, Z.real, Z.imag), ("--model", "deer"), "not impedance spectra"),
}
BAD_FILES = [("deer", *case) for case in BAD_TRACES.values()] + [("drt", *case) for case in BAD_SPECTRA.values()]


@pytest.mark.parametrize(
    ("instrument", "content", "options", "message"),
    BAD_FILES,
    ids=[f"deer: {name}" for name in BAD_TRACES] + [f"drt: {name}" for name in BAD_SPECTRA],
)
def test_bad_files(refused, tmp_path, instrument, content, options, message):
    file = tmp_path / "file.csv"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        written(file, *content)
    assert message in refused("invert", instrument, file, *options)


@pytest.mark.parametrize(
    ("place", "line"), [(2, "---"), (60, "---"), (100, "1.6,-"), (140, "1,2,3"), (len(t) - 2, "x,y")]
)
def test_a_damaged_line(refused, tmp_path, place, line):
    """What stands behind it is never dropped without a word."""
    lines = written(tmp_path / "file.csv", "time_us,real", t, V).read_text().splitlines()
    (tmp_path / "file.csv").write_text("\n".join([*lines[: place + 1], line, *lines[place + 1 :]]))
    assert f"line {place + 2} " in refused("invert", "deer", tmp_path / "file.csv")


def test_an_unreadable_column(refused, tmp_path):
    rows = [f"{a:.6g},{b:.6g},n/a" for a, b in zip(t, V, strict=True)]
    (tmp_path / "file.csv").write_text("\n".join(["time_us,real,imag", *rows]))
    refused("invert", "deer", tmp_path / "file.csv")


def test_no_file_and_no_folder(refused, tmp_path, trace):
    assert "no such file" in refused("invert", "deer", tmp_path / "none.csv")
    assert "folder" in refused("invert", "drt", tmp_path)
    assert "no folder" in refused("invert", "deer", trace, "--output", tmp_path / "no" / "x.csv")
    assert "CSV" in refused("invert", "deer", trace, "--output", tmp_path / "x.npy")
    assert "PNG" in refused("invert", "deer", trace, "--figure", tmp_path / "x.jpg")
    assert not list(tmp_path.glob("x.*"))
