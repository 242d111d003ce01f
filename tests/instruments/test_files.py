"""Readers of measurements: measured files, files as other programs write them, and damaged ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from algebraformer.errors import InputFormatError
from algebraformer.instruments.files import read_spectrum, read_trace
from algebraformer.instruments.tables import read_table
from algebraformer.io.limits import Refused

DATA = Path(__file__).parents[2] / "examples" / "data"


@pytest.mark.parametrize("path", sorted((DATA / "deer").glob("*.csv")), ids=lambda path: path.stem)
def test_measured_traces(path):
    time, echo = read_trace(path)
    expected = np.loadtxt(path, delimiter=",", skiprows=1)
    np.testing.assert_allclose(time, expected[:, 0] / 1000, rtol=1e-12)
    np.testing.assert_array_equal(echo, expected[:, 1] + 1j * expected[:, 2])


@pytest.mark.parametrize("path", sorted((DATA / "eis").glob("*.csv")), ids=lambda path: path.stem)
def test_measured_spectra(path):
    frequency, impedance = read_spectrum(path)
    expected = np.loadtxt(path, delimiter=",", skiprows=1)
    np.testing.assert_array_equal(frequency, expected[:, 0])
    np.testing.assert_array_equal(impedance, expected[:, 1] + 1j * expected[:, 2])


F, Z = np.array([1e5, 31.6, 1e-2]), np.array([10 - 1e-3j, 42.5 - 20.25j, 60 - 0.5j])


def columns(names, values, separator=","):
    rows = [separator.join(f"{number:.15g}" for number in row) for row in zip(*values, strict=True)]
    return "\n".join([*([separator.join(names)] if names else []), *rows]) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        columns([], [F, Z.real, Z.imag], " "),
        columns(["freq/Hz", "Re(Z)/Ohm", "-Im(Z)/Ohm"], [F, Z.real, -Z.imag], "\t"),
        columns(["Zreal", "Zimag", "Frequency"], [Z.real, Z.imag, F]),
        columns(["Frequency (Hz)", "Z' (Ω)", "-Z'' (Ω)", "|Z| (Ω)"], [F, Z.real, -Z.imag, np.abs(Z)]),
        columns(["f", "Z'", 'Z"'], [F, Z.real, Z.imag], ";"),
        columns(["omega_rad_s", "re", "im"], [2 * np.pi * F, Z.real, Z.imag]),
        columns(["freq_kHz", "real_mOhm", "imag_mOhm"], [F / 1e3, 1e3 * Z.real, 1e3 * Z.imag]),
        columns(["f", "|Z|", "Phase(Z)/deg"], [F, np.abs(Z), np.degrees(np.angle(Z))]),
        columns(["f", "re", "im"], [F, Z.real, Z.imag], ";").replace(".", ","),
        "\ufeffmade by a program, version 2\n12.5\n\n" + columns(["# f", "re", "im"], [F, Z.real, Z.imag]),
    ],
)
def test_spectra_in_the_usual_orders(tmp_path, text):
    path = tmp_path / "spectrum.txt"
    path.write_text(text, encoding="utf-8")
    frequency, impedance = read_spectrum(path)
    np.testing.assert_allclose(frequency, F, rtol=1e-12)
    np.testing.assert_allclose(impedance, Z, rtol=1e-12)


T, V = np.array([0.0, 0.016, 0.032]), np.array([1 - 0.1j, 0.9 + 0.2j, 0.7])


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
@pytest.mark.parametrize(
    ("names", "scale"), [(["t/µs", "Re", "Im"], 1.0), (["time (ns)", "real", "imag"], 1e3), (["Time_s", "V"], 1e-6)]
)
def test_traces_say_their_unit(tmp_path, names, scale, encoding):
    path = tmp_path / "trace.csv"
    path.write_text(columns(names, [scale * T, V.real, V.imag][: len(names)]), encoding=encoding)
    time, echo = read_trace(path)
    np.testing.assert_allclose(time, T, atol=1e-15)
    np.testing.assert_array_equal(echo, V if len(names) == 3 else V.real)


def test_a_unit_of_time_is_never_guessed(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(columns([], [1e3 * T, V.real, V.imag]))
    with pytest.raises(InputFormatError, match="time_unit"):
        read_trace(path)
    np.testing.assert_allclose(read_trace(path, time_unit="ns").time_us, T, atol=1e-15)
    with pytest.raises(InputFormatError, match="time_unit"):
        read_trace(path, time_unit="hours")


def write_bes3t(folder, data, order="BIG", kind="D", dtype="f8", **settings):
    keys = {"BSEQ": order, "IKKF": "CPLX" if np.iscomplexobj(data) else "REAL", "XTYP": "IDX", "YTYP": "NODATA",
            "IRFMT": kind, "XPTS": len(data), "XMIN": "100.0", "XWID": "64.0", "XUNI": "'ns'"} | settings  # fmt: skip
    lines = [f"{key}\t{value}" for key, value in keys.items() if value is not None]
    (folder / "a.DSC").write_text("#DESC\t1.2 * DESCRIPTOR INFORMATION *****\n" + "\n".join(lines), encoding="latin-1")
    parts = np.stack((data.real, data.imag), axis=1) if np.iscomplexobj(data) else data
    parts.astype({"BIG": ">", "LIT": "<"}[order] + dtype).tofile(folder / "a.DTA")
    return folder / "a.DTA"


@pytest.mark.parametrize(("order", "kind", "dtype"), [("BIG", "D", "f8"), ("LIT", "F", "f4"), ("BIG", "I", "i4")])
@pytest.mark.parametrize("data", [np.array([3.0, 2, 1, 0, -1]), np.array([3.0, 2 - 1j, 1, 4j, 5])])
def test_bes3t(tmp_path, data, order, kind, dtype):
    path = write_bes3t(tmp_path, data, order, kind, dtype)
    for name in (path, path.with_suffix(".DSC")):
        time, echo = read_trace(name)
        np.testing.assert_allclose(time, [0.1, 0.116, 0.132, 0.148, 0.164])
        np.testing.assert_array_equal(echo, data)


def test_bes3t_with_points_of_its_own(tmp_path):
    path = write_bes3t(tmp_path, np.arange(3.0), XTYP="IGD", XFMT="D")
    np.array([0.0, 5.0, 30.0]).astype(">f8").tofile(tmp_path / "a.XGF")
    np.testing.assert_allclose(read_trace(path).time_us, [0, 0.005, 0.03])


@pytest.mark.parametrize(
    "settings",
    [{"XPTS": 6}, {"XPTS": 4}, {"XPTS": "many"}, {"XPTS": 10**9}, {"BSEQ": None}, {"IRFMT": "A"}, {"YTYP": "IDX"}],
)
def test_damaged_bes3t(tmp_path, settings):
    path = write_bes3t(tmp_path, np.arange(5.0), **settings)
    with pytest.raises(InputFormatError) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("read", [read_trace, read_spectrum])
@pytest.mark.parametrize(
    "content", [b"", b"  \n\n", b"hello\n", b"1\n2\n", b"\x00\x01\x02,3\n", b"a,b,c\n", b"a,b\n1,2\n"]
)
def test_files_without_measurements(tmp_path, read, content):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(InputFormatError) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("read", [read_trace, read_spectrum])
def test_no_file(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.csv")  # opening it would wait for its writer
    for path in (tmp_path, tmp_path / "pipe.csv", tmp_path / "none.csv", tmp_path / "none.DTA", "a\0b.csv"):
        with pytest.raises(InputFormatError):
            read(path)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_table_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "a.txt"
    path.write_bytes(content)
    try:
        table = read_table(path)
    except (Refused, UnicodeDecodeError):
        return
    assert table.values.ndim == 2
    assert table.values.shape[1] >= 2
    assert len(table.names) in (0, table.values.shape[1])
