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


W = 2 * np.pi * F


@pytest.mark.parametrize(
    ("names", "values"),
    [
        *((f"f {unit},Zre,Zim", [F / size, Z.real, Z.imag]) for unit, size in (
            ("(KHz)", 1e3), ("[kHz]", 1e3), ("mHz", 1e-3), ("(GHz)", 1e9), ("MHz", 1e6), ("megahertz", 1e6), ("Hz", 1),
        )),
        *((f"freq_khz,Zre{unit},Zim{unit}", [F / 1e3, Z.real / size, Z.imag / size]) for unit, size in (
            ("_kOHM", 1e3), (" (uOhm)", 1e-6), ("/µΩ", 1e-6), ("/\u03bcΩ", 1e-6),
            (" milliohm", 1e-3), (" (m Ohm)", 1e-3), ("_mohm", 1e-3), ("/MΩ", 1e6), (" [Ohms]", 1),
        )),
        *((f"{name},Zre,Zim", [W, Z.real, Z.imag]) for name in (
            "angular frequency", "omega", "ω", "Frequency (rad s^-1)", "frequency_rad_per_s", "f [rad/sec]",
            "omega/rad/s", "freq (rad·s⁻¹)", "rad/s",
        )),
        ("f,|Z|,phase (rad)", [F, np.abs(Z), np.angle(Z)]),
        ("f,|Z|/kOhm,-Phase (°)", [F, np.abs(Z) / 1e3, -np.degrees(np.angle(Z))]),
        *((f"f,{name},Re", [F, -Z.imag, Z.real]) for name in ("(-Im Z)", "Minus Zim", "-Z''/Ohm", "neg Im(Z)", "−Im")),
        ("Temperature/°C,Pressure,freq/Hz,Re(Z)/Ohm,-Im(Z)/Ohm", [25 + 0 * F, F, F, Z.real, -Z.imag]),
        ("freq,Re_std,Im_std,Re,Im", [F, F, F, Z.real, Z.imag]),
        ("freq,Zre_fit,Zim_fit,Zre (fit),Zre,Zim,log|Z|", [F, F, F, F, Z.real, Z.imag, F]),
        ("f/Hz,omega,Zreal,Zimag,Zmod,Zphz", [F, F, Z.real, Z.imag, F, F]),
        ("Freq(Hz),Z'(a),Z''(b),Err", [F, Z.real, Z.imag, F]),
        ("Frequency in Hz,Re(Z) in Ohm,Z_imag,radius", [F, Z.real, Z.imag, F]),
    ],
)  # fmt: skip
def test_a_name_has_a_sign_a_quantity_and_a_unit(tmp_path, names, values):
    """Whatever else stands in a name makes it another column."""
    path = tmp_path / "spectrum.csv"
    path.write_text(columns(names.split(","), values), encoding="utf-8")
    frequency, impedance = read_spectrum(path)
    np.testing.assert_allclose(frequency, F, rtol=1e-12)
    np.testing.assert_allclose(impedance, Z, rtol=1e-12)


@pytest.mark.parametrize(
    ("names", "received"),
    [
        ("freq_mhz,Zre,Zim", "freq_mhz"),  # millihertz or megahertz
        ("FREQ_MHZ,ZRE,ZIM", "FREQ_MHZ"),
        ("f,ZRE_MOHM,ZIM", "ZRE_MOHM"),
        ("f/min,Zre,Zim", "f/min"),
        ("f,Zre (kOhm cm2),Zim", "Zre (kOhm cm2)"),
        ("f,Zre/S,Zim", "Zre/S"),
        ("omega (Hz),Zre,Zim", "omega (Hz)"),
        ("f,|Z|,phase", "phase"),  # degrees or radians
        ("f,|Z|,phase (Grad)", "phase (Grad)"),
        ("log(f),Zre,Zim", "log(f)"),
        ("f,log|Z|,phase/deg", "log|Z|"),
        ("f,|Z| (log),phase/deg", "|Z| (log)"),
        ("f,Yre,Yim", "Yre"),
        ("f,Re(Y),Im(Y)", "Re(Y)"),
        ("f,Zre,Zre (Ohm),Zim", "Zre, Zre (Ohm)"),
        ("f,Zre,Zim,-Zim", "Zim, -Zim"),
        ("f,freq,Zre,Zim", "f, freq"),
        ("Temperature,Pressure,Irel", "Pressure"),
    ],
)
@pytest.mark.parametrize("part", ["both", "real"])
def test_what_is_not_understood_is_named(tmp_path, names, received, part):
    path = tmp_path / "spectrum.csv"
    path.write_text(columns(names.split(","), [F] * (names.count(",") + 1)))
    with pytest.raises(InputFormatError) as caught:
        read_spectrum(path, part=part)
    assert received in str(caught.value)


@pytest.mark.parametrize("names", [["f/Hz", "Zre (kOhm)"], ["f/Hz", "-Im(Z)/kOhm"], []])
def test_a_file_of_one_part(tmp_path, names):
    """Only for those who say which."""
    path = tmp_path / "part.csv"
    path.write_text(columns(names, [F, Z.real]))
    part, other = ("imag", "real") if "-Im(Z)/kOhm" in names else ("real", "imag")
    frequency, impedance = read_spectrum(path, part=part)
    np.testing.assert_array_equal(frequency, F)
    assert impedance.dtype == np.float64
    np.testing.assert_allclose(impedance, (1e3 if names else 1) * (-1 if part == "imag" else 1) * Z.real, rtol=1e-12)
    for unknown in ("both", other, "all") if names else ("both", "all"):
        with pytest.raises(InputFormatError):
            read_spectrum(path, part=unknown)


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


@pytest.mark.parametrize(
    "names",
    [
        "time_ns,B1 V,real,imag",
        "Index,Vre,Time [ns],V_im",
        "t (ns),Re_std,Re(V),Im(V)",
        ",dipolar time/ns,V(t),imag part",
    ],
)
def test_other_columns_of_traces(tmp_path, names):
    role = {"t": T * 1e3, "r": V.real, "i": V.imag, "o": np.arange(3.0) + 7}
    order = {"time": "tori", "Inde": "orti", "t (n": "tori", ",dip": "otri"}[names[:4]]
    (tmp_path / "trace.csv").write_text(columns(names.split(","), [role[letter] for letter in order]))
    time, echo = read_trace(tmp_path / "trace.csv")
    np.testing.assert_allclose(time, T, atol=1e-15)
    np.testing.assert_array_equal(echo, V)


@pytest.mark.parametrize(
    "names",
    ["time_ns,V,real,imag", "time_ns,t/us,real,imag", "time/min,o,real,imag", "TIME_MS,o,real,imag", "t,(ns),a,b", ""],
)
def test_traces_that_leave_a_choice(tmp_path, names):
    path = tmp_path / "trace.csv"
    path.write_text(columns(names.split(",") if names else [], [T, V.real, V.real, V.imag]))
    with pytest.raises(InputFormatError):
        read_trace(path)


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


ROWS = [[float(i), 10.0 + i, -0.5 * i] for i in range(6)]


def lines(separator, rows=ROWS):
    return [separator.join(map(str, row)) for row in rows]


@pytest.mark.parametrize(
    ("header", "separator", "names"),
    [
        (["omega (rad/s)  Zre (Ohm)\tZim (Ohm)"], "  ", ("omega (rad/s)", "Zre (Ohm)", "Zim (Ohm)")),
        (["  f (Hz)   Zre   Zim (k Ohm)"], " ", ("f (Hz)", "Zre", "Zim (k Ohm)")),
        (["# f, Zre, Zim"], " ", ("f", "Zre", "Zim")),
        (["#f\tZre\tZim"], ",", ("f", "Zre", "Zim")),
        (["f Zre Zim", "--- --- ---", ""], " ", ("f", "Zre", "Zim")),
        ([";time;real"], ";", ("", "time", "real")),
        ([";a;b;c"], ";", ("a", "b", "c")),
        (["a;b;c;"], ";", ("a", "b", "c")),
        (["\ttime\treal"], "\t", ("", "time", "real")),
        (["\tPt\tTime\tFreq"], "\t", ("Pt", "Time", "Freq")),
        (["12 1e5", "made in 1999 by a program", "a,b,c"], ",", ("a", "b", "c")),
        (["---"], ",", ()),
        ([], ",", ()),
    ],
)
def test_names_of_columns(tmp_path, header, separator, names):
    (tmp_path / "a.txt").write_text("\n".join([*header, *lines(separator)]))
    table = read_table(tmp_path / "a.txt")
    assert table.names == names
    np.testing.assert_array_equal(table.values, ROWS)


@pytest.mark.parametrize(
    "header", ["omega (rad/s) Zre (Ohm) Zim (Ohm)", "time_ns,real", "made by a program", "a,b,c,d", "f Z\n---\n"]
)
def test_a_line_with_letters_that_names_not_every_column(tmp_path, header):
    (tmp_path / "a.txt").write_text("\n".join([header, *lines(" ")]))
    with pytest.raises(Refused, match="line 1"):
        read_table(tmp_path / "a.txt")


def test_digits_behind_decimal_commas_are_no_column(tmp_path):
    (tmp_path / "a.csv").write_text("time_ns,real\n" + "\n".join(f"{i},5,{9 - i},25" for i in range(8)))
    with pytest.raises(InputFormatError):
        read_trace(tmp_path / "a.csv", time_unit="ns")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    "line", ["x{0}y{0}z", "3.0{0}n/a{0}1.0", "3.0{0}1.0", "3.0{0}1.0{0}", "{0}1.0{0}2.0", "3.0", "-{0}1{0}2"]
)
@pytest.mark.parametrize("place", range(1, 7))
@pytest.mark.parametrize("names", [["a{0}b{0}c"], []])
def test_a_damaged_line_anywhere(tmp_path, separator, line, place, names):
    """Rows on either side of it are never dropped; at the end, what holds no number is a footer."""
    text = [name.format(separator) for name in names] + lines(separator)
    place += len(names)
    text.insert(place, line.format(separator))
    (tmp_path / "a.csv").write_text("\n".join(text))
    if place == len(text) - 1 and line.startswith("x"):
        np.testing.assert_array_equal(read_table(tmp_path / "a.csv").values, ROWS)
        return
    with pytest.raises(Refused, match=f"line {place + 1} "):
        read_table(tmp_path / "a.csv")


@pytest.mark.parametrize("first", ["0,1,2,3", "0,1", "0", "-,1,2"])
def test_a_damaged_first_row(tmp_path, first):
    (tmp_path / "a.csv").write_text("\n".join(["a,b,c", first, *lines(",")]))
    with pytest.raises(Refused, match="line 2 "):
        read_table(tmp_path / "a.csv")


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
