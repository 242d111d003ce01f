"""Distances and relaxation times by the shipped networks: bad input, invariances, and what an inversion promises."""

from __future__ import annotations

import itertools
import json
import pickle
import re

import array_api_strict
import numpy as np
import pytest
import torch

from algebraformer import instruments
from algebraformer.arrays import host
from algebraformer.errors import ArrayKindError, ConfigurationError, UnknownNameError
from algebraformer.instruments.drt import as_spectra
from algebraformer.models.inference.inversion_reader import FURTHEST
from algebraformer.models.inversion import QUANTILES
from algebraformer.numerics.whiteness import NAMES
from algebraformer.problems.instruments.dipolar import dipolar_kernel
from algebraformer.problems.instruments.relaxation import time_grid

RNG = np.random.default_rng(0)


def pairs(t, r=3.5, std=0.15):
    """Return what a normal distribution of distances adds to a trace."""
    grid = np.linspace(1.5, 7.0, 400)
    P = np.exp(-(((grid - r) / std) ** 2) / 2)
    return dipolar_kernel(t, grid) @ P / P.sum()


T = np.linspace(-0.12, 3.0, 196)
V = (0.7 + 0.3 * pairs(T)) * np.exp(-0.1 * np.abs(T)) + 0.01 * RNG.standard_normal(len(T))
"""A trace with zero 0, depth 0.3, 3.5 nm and noise 0.01."""
F = np.logspace(5, -1, 61)
Z = 10 + 50 / (1 + (2j * np.pi * F * 1e-2) ** 0.8)
Z = Z * (1 + 3e-3 * (RNG.standard_normal(61) + 1j * RNG.standard_normal(61)))
"""A spectrum of 50 ohm at 10 ms behind 10 ohm, in the order of an analyser."""


@pytest.fixture(scope="module")
def distances():
    return instruments.deer(T, V)


@pytest.fixture(scope="module")
def times():
    return instruments.drt(F, Z)


@pytest.fixture(params=["deer", "drt"])
def found(request, distances, times):
    return {"deer": distances, "drt": times}[request.param]


def assert_same(found, expected, rtol=1e-6, scale=1.0):
    """Assert equal densities, bands, noise and verdicts; noise is `scale` times the other."""
    size = np.abs(expected.x).max()
    np.testing.assert_allclose(found.grid, expected.grid, rtol=1e-9)
    np.testing.assert_allclose(found.x, expected.x, rtol=rtol, atol=rtol * size)
    np.testing.assert_allclose(found.quantiles, expected.quantiles, rtol=rtol, atol=10 * rtol * size)
    np.testing.assert_allclose(found.noise, scale * np.asarray(expected.noise), rtol=rtol)
    np.testing.assert_array_equal(found.consistent, expected.consistent)
    np.testing.assert_array_equal(found.in_distribution, expected.in_distribution)


# ---------------------------------------------------------------- bad input


def changed(array, **at):
    """Return a copy of an array with values at the places that are named: _5=nan sets entry 5."""
    array = np.array(array)
    for place, value in at.items():
        array[..., int(place[1:])] = value
    return array


def swapped(array):
    array = np.array(array)
    array[[3, 4]] = array[[4, 3]]
    return array


RAGGED = [[1.0, 2.0], [3.0]]
BAD_TRACES = {
    "NaN in the trace": (T, changed(V, _5=np.nan), r"trace .* index \(5,\)"),
    "NaN in a row": (T, np.stack([V, changed(V, _7=np.nan)]), r"trace .* index \(1, 7\)"),
    "infinity": (T, changed(V, _5=np.inf), r"trace .* index \(5,\)"),
    "NaN in the times": (changed(T, _5=np.nan), V, r"time_us .* index \(5,\)"),
    "not in order": (swapped(T), V, "ascend"),
    "descending": (T[::-1], V[::-1], "ascend"),
    "a time twice": (changed(T, _4=T[3]), V, "without repeats"),
    "nanoseconds": (1e3 * T, V, "nanoseconds"),
    "milliseconds": (1e-3 * T, V, "milliseconds"),
    "seconds": (1e-6 * T, V, "seconds"),
    "huge times": (1e200 * T, V, "spans"),
    "no data": ([], [], r"at least 10 points, received shape \(0,\)"),
    "one point": ([0.0], [1.0], r"received shape \(1,\)"),
    "two axes of times": (T[None], V[None], "one axis"),
    "lengths differ": (T, V[:-1], "m = 196, received"),
    "a column per trace": (T, np.stack([V, V], axis=1), r"\(B, m\) with m = 196"),
    "three axes": (T, V[None, None], r"received \(1, 1, 196\)"),
    "no rows": (T, np.empty((0, len(T))), r"received \(0, 196\)"),
    "zero": (T, 0 * V, "zero throughout"),
    "a row of zeros": (T, np.stack([V, 0 * V]), "zero throughout in row 1"),
    "upside down": (T, -V, "times -1"),
    "a row upside down": (T, np.stack([V, -V]), "times -1"),
    "huge": (T, 1e200 * V, "another unit"),
    "tiny": (T, 1e-200 * V, "another unit"),
    "huge and complex": (T, (1 + 1j) * 1e200 * V, "another unit"),
    "subnormal": (T, 1e-320 * V, "another unit"),
    "text": (T, V.astype(str), "dtype"),
    "objects": (T, V.astype(object), "dtype"),
    "nothing": (None, None, "dtype"),
    "ragged": (T, RAGGED, "not an array of numbers"),
    "masked": (T, np.ma.masked_array(V, V > 0.9), "masked"),
    "complex times": (T + 0j, V, "time_us has dtype complex128"),
    "no beginning": (T[T > 0.1], V[T > 0.1], "give zero_time"),
}


@pytest.mark.parametrize(("times", "trace", "message"), BAD_TRACES.values(), ids=BAD_TRACES.keys())
def test_bad_traces(times, trace, message):
    with pytest.raises(ValueError, match=message):
        instruments.deer(times, trace)


@pytest.mark.parametrize("zero", [-20.0, 3.0, 2.95, np.nan, np.inf, "early", [0.0, 1.0], 1j])
def test_bad_zero_times(zero):
    with pytest.raises(ValueError, match="zero"):
        instruments.deer(T, V, zero_time=zero)


BAD_SPECTRA = {
    "NaN": (F, changed(Z, _5=np.nan), r"impedance .* index \(5,\)"),
    "NaN in the imaginary part": (F, changed(Z, _5=1 + 1j * np.nan), r"impedance .* index \(5,\)"),
    "NaN in the frequencies": (changed(F, _5=np.nan), Z, r"frequency_hz .* index \(5,\)"),
    "not in order": (swapped(F), Z, "ascend"),
    "a frequency twice": (changed(F, _4=F[3]), Z, "without repeats"),
    "negative frequencies": (-F, Z, "positive"),
    "frequency zero": (np.append(F, 0.0), np.append(Z, Z[-1]), "positive"),
    "no data": ([], [], r"received shape \(0,\)"),
    "one point": ([1.0], [1 - 1j], r"received shape \(1,\)"),
    "lengths differ": (F, Z[:-1], "m = 61"),
    "conjugate": (F, Z.conj(), "complex conjugate"),
    "a conjugate row": (F, np.stack([Z, Z.conj(), Z]), "points in row 1"),
    "negative": (F, -Z, "real part is negative"),
    "negative real part": (F, -Z.conj(), "real part is negative"),
    "real": (F, Z.real, "part='real'"),
    "real, as complex numbers": (F, Z.real + 0j, "'imag' that is zero"),
    "imaginary, as complex numbers": (F, 1j * Z.imag, "'real' that is zero"),
    "zero": (F, 0 * Z, "zero throughout"),
    "a row of zeros": (F, np.stack([Z, 0 * Z]), "zero throughout in row 1"),
    "huge": (F, 1e200 * Z, "another unit"),
    "tiny": (F, 1e-200 * Z, "another unit"),
    "text": (F, Z.astype(str), "dtype"),
    "masked": (F, np.ma.masked_array(Z, np.abs(Z) > 50), "masked"),
    "complex frequencies": (F + 0j, Z, "frequency_hz has dtype complex128"),
}


@pytest.mark.parametrize(("frequency", "impedance", "message"), BAD_SPECTRA.values(), ids=BAD_SPECTRA.keys())
def test_bad_spectra(frequency, impedance, message):
    with pytest.raises(ValueError, match=message):
        instruments.drt(frequency, impedance)


@pytest.mark.parametrize(
    ("impedance", "part", "message"),
    [
        (Z, "im", "part must be one of"),
        (-Z.imag, "imag", "complex conjugate"),
        (Z.conj(), "imag", "complex conjugate"),
        (Z.real + 0j, "imag", "zero throughout"),
        (-Z.real, "real", "real part is negative"),
        (0 * Z.real, "real", "zero throughout"),
    ],
)
def test_bad_parts(impedance, part, message):
    with pytest.raises(ValueError, match=message):
        instruments.drt(F, impedance, part=part)


def test_models_that_do_not_fit():
    with pytest.raises(ValueError, match="not DEER traces"):
        instruments.deer(T, V, model="drt")
    with pytest.raises(ValueError, match="not impedance spectra"):
        instruments.drt(F, Z, model="deer")
    with pytest.raises(ConfigurationError, match="inverts no measurements"):
        instruments.deer(T, V, model="diffusion-64")
    with pytest.raises(UnknownNameError):
        instruments.deer(T, V, model="no-such-model")


def test_bad_levels(found):
    for level in (0.0, 1.0, -0.1, np.nan):
        with pytest.raises(ValueError, match="level"):
            found.band(level)


STRANGE_TRACES = {
    "constant": np.ones_like(T),
    "noise": np.abs(RNG.standard_normal(len(T))),
    "true or false": V > 0.5,
    "a single spike": changed(np.full_like(T, 1e-9), _100=1.0),
    "a line": 2 - T / 3,
    "without noise": (0.7 + 0.3 * pairs(T)) * np.exp(-0.1 * np.abs(T)),
}


@pytest.mark.parametrize("trace", STRANGE_TRACES.values(), ids=STRANGE_TRACES.keys())
def test_strange_traces_have_finite_answers(trace):
    assert_finite(instruments.deer(T, trace, zero_time=0.0))


STRANGE_SPECTRA = {
    "a resistor": (F, 10 + 1e-3 * (RNG.standard_normal(61) + 1j * RNG.standard_normal(61))),
    "a capacitor": (F, 1e-6 * (1 + RNG.random(61)) + 1 / (2j * np.pi * F * 1e-6)),
    "mostly an inductance": (F, 1e-3 + 1e-9 * F - 1e-4j + 2j * np.pi * F * 1e-6 * (F > 1e4)),
    "a thousandth of a decade": (np.linspace(1, 1.001, 20), Z[:20]),
    "equally spaced": (np.linspace(1, 1000, 61), Z[::-1]),
    "far away": (1e250 * F, Z),
    "slow": (1e-250 * F, Z),
    "without noise": (F, 10 + 50 / (1 + 2j * np.pi * F * 1e-2)),
}


@pytest.mark.parametrize(("frequency", "impedance"), STRANGE_SPECTRA.values(), ids=STRANGE_SPECTRA.keys())
def test_strange_spectra_have_finite_answers(frequency, impedance):
    assert_finite(instruments.drt(frequency, impedance))


def assert_finite(found):
    """Assert that nothing in an answer is NaN; only a capacitance that is not seen is infinite."""
    numbers = [found.grid, found.x, found.quantiles, found.noise, found.misfit, found.fitted, found.samples(3)]
    numbers += [*found.checks.values(), *found.limits.values()]
    numbers += [value for name, value in found.nuisance.items() if name != "series_capacitance"]
    assert all(np.isfinite(value).all() for value in numbers)
    assert not np.isnan(found.nuisance.get("series_capacitance", 0.0))


# ---------------------------------------------------------------- input of other kinds


OTHER_KINDS = {
    "lists": list,
    "tuples": tuple,
    "torch": torch.tensor,
    "torch with a gradient": lambda a: torch.tensor(a, requires_grad=True),
    "not contiguous": lambda a: np.repeat(a, 2)[::2],
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
}


@pytest.mark.parametrize("kind", OTHER_KINDS.values(), ids=OTHER_KINDS.keys())
def test_arrays_of_other_kinds(kind, distances, times):
    for found, expected in (
        (instruments.deer(kind(T), kind(V)), distances),
        (instruments.drt(kind(F), kind(Z)), times),
    ):
        assert type(found.x) is (torch.Tensor if isinstance(kind(T), torch.Tensor) else np.ndarray)
        np.testing.assert_array_equal(host(found.x), expected.x)


CURVES = ("grid", "x", "quantiles", "abscissa", "data", "fitted", "interval")
"""Attributes that are arrays, or pairs of them, for one measurement and for a batch."""


@pytest.mark.parametrize("xp", [torch, array_api_strict], ids=lambda xp: xp.__name__)
def test_arrays_come_out_as_they_went_in(xp, distances, times):
    """Arrays are the caller's, with NumPy's values; verdicts are NumPy's or Python's."""
    traces, spectra = np.stack([V, V[::-1]]), np.stack([Z, 2 * Z])
    calls = [
        (lambda f: instruments.deer(f(T), f(V)), distances),
        (lambda f: instruments.drt(f(F), f(Z)), times),
        (lambda f: instruments.deer(T, f(traces), zero_time=0.0), instruments.deer(T, traces, zero_time=0.0)),
        (lambda f: instruments.drt(F, f(spectra)), instruments.drt(F, spectra)),
    ]
    kind = type(xp.asarray(T))
    for call, expected in calls:
        found = call(xp.asarray)
        pairs = [(getattr(found, name), getattr(expected, name)) for name in CURVES]
        pairs += [(found.band(0.6), expected.band(0.6)), (found.samples(3), expected.samples(3))]
        if found.x.ndim == 1:
            pairs += [(getattr(found.classical, name), getattr(expected.classical, name)) for name in ("x", "fitted")]
            assert found.nuisance == expected.nuisance
        else:
            pairs += [(found.nuisance[name], expected.nuisance[name]) for name in expected.nuisance]
            pairs += [(found.nuisance_std[name], expected.nuisance_std[name]) for name in expected.nuisance]
        for ours, theirs in pairs:
            for array, values in zip(*((a if isinstance(a, tuple) else (a,)) for a in (ours, theirs)), strict=True):
                assert type(array) is kind
                np.testing.assert_array_equal(host(array), values)
        assert type(found.consistent) is type(expected.consistent)
        np.testing.assert_array_equal(found.noise, expected.noise)
        assert found.record() == expected.record()
        assert found.explain() == expected.explain()
    instruments.deer(xp.asarray(T), xp.asarray(V)).plot()


def test_single_precision_and_integers(distances):
    single = instruments.deer(T.astype(np.float32), V.astype(np.float32))
    assert_same(single, instruments.deer(T.astype(np.float32).astype(float), V.astype(np.float32).astype(float)))
    whole = instruments.deer(T, np.round(1e9 * V).astype(np.int64))
    assert_same(whole, distances, rtol=1e-4, scale=1e9)
    with pytest.raises(ArrayKindError):
        instruments.deer(T, torch.tensor(V).half())


def test_input_is_not_written_to():
    t, trace, f, impedance = T.copy(), V * np.exp(0.4j), F.copy(), Z.copy()
    kept = [array.copy() for array in (t, trace, f, impedance)]
    instruments.deer(t, trace).plot()
    instruments.drt(f, impedance, part="real").plot()
    for array, before in zip((t, trace, f, impedance), kept, strict=True):
        np.testing.assert_array_equal(array, before)


# ---------------------------------------------------------------- invariances


@pytest.mark.parametrize("c", [2.0**-300, 1e-6, 3.0, 1e12])
def test_data_in_another_unit(c, distances, times):
    """P stays the same, gamma and resistances go with the data."""
    found = instruments.deer(T, c * V)
    assert_same(found, distances, scale=c)
    assert found.nuisance["amplitude"] == pytest.approx(c * distances.nuisance["amplitude"], rel=1e-6)
    assert found.nuisance["modulation_depth"] == pytest.approx(distances.nuisance["modulation_depth"], rel=1e-6)
    found = instruments.drt(F, c * Z)
    size = times.x.max()
    np.testing.assert_allclose(found.x / c, times.x, rtol=1e-6, atol=1e-6 * size)
    np.testing.assert_allclose(found.quantiles / c, times.quantiles, rtol=1e-6, atol=1e-5 * size)
    assert found.noise == pytest.approx(c * times.noise, rel=1e-6)
    for name, power in (("R_inf", 1), ("inductance", 1), ("series_capacitance", -1)):
        assert found.nuisance[name] == pytest.approx(c**power * times.nuisance[name], rel=1e-5)


@pytest.mark.parametrize("c", [1e-9, 1e-3, 1e3])
def test_frequencies_in_another_unit(c, times):
    """Relaxation times go with 1 / f."""
    found = instruments.drt(c * F, Z)
    np.testing.assert_allclose(found.tau, times.tau / c, rtol=1e-9)
    np.testing.assert_allclose(found.x, times.x, rtol=1e-6, atol=1e-6 * times.x.max())
    assert found.nuisance["inductance"] == pytest.approx(times.nuisance["inductance"] / c, rel=1e-5)


@pytest.mark.parametrize("shift", [-5.0, 0.3, 1000.0])
def test_times_from_another_zero(shift, distances):
    found = instruments.deer(T + shift, V)
    assert_same(found, distances, rtol=1e-4)
    assert found.nuisance["zero_time"] - shift == pytest.approx(distances.nuisance["zero_time"], abs=1e-6)
    assert_same(instruments.deer(T + shift, V, zero_time=shift), instruments.deer(T, V, zero_time=0.0), rtol=1e-4)


@pytest.mark.parametrize("angle", [0.0, 0.5, 2.0, np.pi, -1.6])
def test_a_phase_changes_nothing(angle):
    echo = V + 0.01j * RNG.standard_normal(len(T))
    expected = instruments.deer(T, echo)
    assert_same(instruments.deer(T, np.exp(1j * angle) * echo), expected)
    rows = instruments.deer(T, np.exp(1j * np.array([[angle], [0.0], [-angle]])) * echo)
    for row in rows.x:
        np.testing.assert_allclose(row, expected.x, rtol=1e-6, atol=1e-6 * expected.x.max())


def test_a_trace_that_starts_after_its_zero(distances):
    """With its zero given, what is known of the distances stays about the same."""
    late = T > 0.1
    found = instruments.deer(T[late], V[late], zero_time=0.0)
    assert_finite(found)
    assert found.r[np.argmax(found.x)] == pytest.approx(distances.r[np.argmax(distances.x)], abs=0.15)
    assert found.abscissa[0] == pytest.approx(T[late][0])


@pytest.mark.parametrize("start", [0.0, -0.016, -0.048])
def test_an_axis_with_a_zero_is_believed_where_nothing_tells(start):
    """Where fewer than four points lie before the maximum, the time 0 of the axis is the zero."""
    t = np.arange(start, 3.0, 0.016)
    found = instruments.deer(t, (0.7 + 0.3 * pairs(t, r=5.0)) * np.exp(-0.2 * np.abs(t)))
    np.testing.assert_allclose(found.abscissa, t, atol=1e-12)


def test_what_was_recorded_long_before_the_zero_is_left_out():
    t = np.arange(-1.0, 3.0, 0.016)
    trace = (0.7 + 0.3 * pairs(t)) * np.exp(-0.1 * np.abs(t))
    found = instruments.deer(t, trace, zero_time=0.0)
    assert -0.36 < found.abscissa[0] < -0.33
    assert_same(found, instruments.deer(t[t >= -0.35], trace[t >= -0.35], zero_time=0.0))


def test_order_of_frequencies(times):
    found = instruments.drt(F[::-1], Z[::-1])
    assert_same(found, times)
    assert (np.diff(found.abscissa) > 0).all()


@pytest.mark.parametrize("part", ["real", "imag"])
def test_one_part(part, times):
    """It gives the peak and the resistance, whatever stands in the other part; the classical answer too."""
    alone = instruments.drt(F, getattr(Z, part), part=part)
    assert_same(instruments.drt(F, Z, part=part), alone)
    other = Z.real - 1e3j if part == "real" else 77.0 + 1j * Z.imag
    assert_same(instruments.drt(F, other, part=part), alone)
    resistance = np.trapezoid(alone.x, np.log(alone.tau))
    assert resistance == pytest.approx(50, rel=0.1)
    assert np.trapezoid(alone.classical.x, np.log(alone.tau)) == pytest.approx(50, rel=0.1)
    assert np.log(alone.tau[np.argmax(alone.x)]) == pytest.approx(np.log(times.tau[np.argmax(times.x)]), abs=0.5)


def test_the_real_part_alone_may_be_negative_in_places():
    """A few of a noisy one, as of an inductive loop, are no sign that is wrong."""
    f, impedance = as_spectra(F, changed(Z, _0=-1.0 + 3j), "both")
    assert (f[-1], impedance[-1]) == (F[0], -1.0 + 3j)


# ---------------------------------------------------------------- batches


def test_a_batch_is_its_rows():
    traces = np.stack([V, 7 * V, (0.5 + 0.5 * pairs(T, 2.5)) * np.exp(-0.3 * np.abs(T)), V + 0.05 * RNG.random(len(T))])
    spectra = np.stack([Z, 1e-3 * Z, Z + 2j * np.pi * F * 1e-6, 5 + 2 / (1 + 2j * np.pi * F)])
    batches = (
        (instruments.deer(T, traces, zero_time=0.0), [instruments.deer(T, row, zero_time=0.0) for row in traces]),
        (instruments.drt(F, spectra), [instruments.drt(F, row) for row in spectra]),
    )
    for batch, rows in batches:
        assert batch.x.shape == (4, 100)
        assert batch.quantiles.shape == (4, 100, 7)
        assert [np.shape(value) for value in (batch.noise, batch.misfit, batch.consistent, batch.in_distribution)] == [
            (4,)
        ] * 4
        assert all(value.shape == (4,) for value in batch.nuisance.values())
        assert len(batch.explain().splitlines()) == 4
        for i, row in enumerate(rows):
            size = row.x.max()
            np.testing.assert_allclose(batch.x[i], row.x, rtol=1e-5, atol=1e-5 * size)
            np.testing.assert_allclose(batch.band(0.8)[1][i], row.band(0.8)[1], rtol=1e-4, atol=1e-4 * size)
            np.testing.assert_allclose(batch.fitted[i], row.fitted, rtol=1e-4)
            np.testing.assert_allclose(batch.samples(2)[i], row.samples(2), rtol=1e-3, atol=1e-3 * size)
            for name, value in row.nuisance.items():
                assert batch.nuisance[name][i] == pytest.approx(value, rel=1e-3, abs=1e-9)
        with pytest.raises(ValueError, match="one measurement"):
            batch.plot()


def test_a_batch_of_one(distances, times):
    for batch, one in ((instruments.deer(T, V[None]), distances), (instruments.drt(F, Z[None]), times)):
        assert batch.x.shape == (1, *one.x.shape)
        assert batch.samples(3).shape == (1, 3, one.x.shape[0])
        assert len(batch.classical) == 1
        np.testing.assert_allclose(batch.x[0], one.x, rtol=1e-6, atol=1e-6 * one.x.max())
        assert batch.data.shape == (1, *one.data.shape)


# ---------------------------------------------------------------- what an inversion promises


def test_what_is_found(distances, times):
    """The peaks where they are, integrals and nuisance parameters; noise to a fifth."""
    assert distances.r[np.argmax(distances.x)] == pytest.approx(3.5, abs=0.1)
    assert distances.x.sum() * (distances.r[1] - distances.r[0]) == pytest.approx(1, rel=1e-9)
    assert distances.nuisance["modulation_depth"] == pytest.approx(0.3, abs=0.1)
    assert distances.nuisance["amplitude"] == pytest.approx(1.0, rel=0.1)
    assert distances.nuisance["zero_time"] == pytest.approx(0.0, abs=0.02)
    assert distances.noise == pytest.approx(0.01, rel=0.2)
    np.testing.assert_allclose(times.tau, time_grid(F, 100))
    assert np.log10(times.tau[np.argmax(times.x)]) == pytest.approx(-2, abs=0.2)
    assert np.trapezoid(times.x, np.log(times.tau)) == pytest.approx(50, rel=0.05)
    assert times.nuisance["R_inf"] == pytest.approx(10, rel=0.05)
    for found in (distances, times):
        assert found.consistent is True
        assert found.in_distribution is True
        assert set(found.nuisance) == set(found.nuisance_std)
        residual = np.abs(found.data - found.fitted) / np.sqrt(1 + np.iscomplexobj(found.data))
        assert np.sqrt(np.mean(residual**2)) == pytest.approx(found.noise, rel=0.3)


def test_bands_nest(found):
    levels = (0.01, 0.3, 0.5, 0.7, 0.9, 0.93, 0.95, 0.97, 0.999)
    bands = [found.band(level) for level in levels]
    rounding = 1e-12 * found.x.max()
    assert all((low >= 0).all() and (low <= high + rounding).all() for low, high in bands)
    for (low, high), (wider_low, wider_high) in itertools.pairwise(bands):
        assert (wider_low <= low + rounding).all()
        assert (wider_high >= high - rounding).all()
    for end, expected in zip(found.interval, found.band(0.9), strict=True):
        np.testing.assert_array_equal(end, expected)
    for level, (low, high) in ((0.5, (2, 4)), (0.9, (1, 5)), (0.95, (0, 6))):
        assert QUANTILES[high] - QUANTILES[low] == pytest.approx(level)
        np.testing.assert_allclose(found.band(level), found.quantiles[:, [low, high]].T, atol=rounding)


def test_samples_have_the_quantiles_of_the_bands(times):
    """At most a share q lies below the quantile q, and at least q not above it, to five standard deviations."""
    count = 4000
    samples = times.samples(count, seed=1)
    assert samples.shape == (count, len(times.tau))
    assert (samples >= 0).all()
    for i, q in enumerate(QUANTILES):
        quantile, slack = times.quantiles[:, i], 5 * np.sqrt(q * (1 - q) / count)
        assert (np.mean(samples < quantile * (1 - 1e-9), axis=0) < q + slack).all()
        assert (np.mean(samples <= quantile * (1 + 1e-9), axis=0) > q - slack).all()


def test_samples_of_a_density_have_its_integral(distances):
    samples = distances.samples(500)
    assert (samples >= 0).all()
    np.testing.assert_allclose(samples.sum(axis=1) * (distances.r[1] - distances.r[0]), 1, rtol=1e-9)
    mean = samples @ distances.r / samples.sum(axis=1)
    assert mean.mean() == pytest.approx(distances.x @ distances.r / distances.x.sum(), abs=0.25)
    assert 0 < mean.std() < 0.5


def test_samples_follow_their_seed(found):
    np.testing.assert_array_equal(found.samples(4, seed=3), found.samples(4, seed=3))
    np.testing.assert_array_equal(found.samples(4, seed=3).shape, (4, len(found.grid)))
    assert (found.samples(4, seed=3) != found.samples(4, seed=4)).any()


def test_neighbours_go_together_in_samples(times):
    """In the middle of a peak one sample rises and falls as a whole: entries side by side are correlated."""
    samples = times.samples(1000)
    top = int(np.argmax(times.x))
    assert np.corrcoef(samples[:, top], samples[:, top + 1])[0, 1] > 0.5


def test_records_are_json(found):
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert set(record) == {
        found.grid_name, "x", "interval", "nuisance", "nuisance_std", "noise", "misfit", "checks", "consistent",
        "in_distribution",
    }  # fmt: skip
    np.testing.assert_array_equal(record["x"], found.x)
    np.testing.assert_array_equal(record["interval"], found.interval)
    assert record["consistent"] is found.consistent
    assert set(record["checks"]) == set(NAMES)
    batch = instruments.drt(F, np.stack([Z, 2 * Z])).record()
    assert np.shape(json.loads(json.dumps(batch, allow_nan=False))["nuisance"]["R_inf"]) == (2,)


def test_pickled_and_back(found):
    again = pickle.loads(pickle.dumps(found))
    assert type(again) is type(found)
    assert_same(again, found, rtol=1e-15)
    np.testing.assert_array_equal(again.samples(2), found.samples(2))
    np.testing.assert_array_equal(again.band(0.6), found.band(0.6))


def test_figures(found, tmp_path):
    found.plot().savefig(tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("part", ["both", "real", "imag"])
def test_figures_show_the_parts_that_are_known(part):
    shown = {"both": {"Re", "-Im"}, "real": {"Re"}, "imag": {"-Im"}}[part]
    axes, *_ = instruments.drt(F, Z, part=part).plot().axes
    assert {line.get_label() for line in axes.lines if not line.get_label().startswith("_")} == shown


def test_explanations_name_what_failed(distances):
    """Every check that fails is named; with crossing echoes in the trace one does."""
    assert distances.unlike_noise() == ()
    crossed = V.copy()
    crossed[150:156] += np.array([0.2, -0.3, 0.35, -0.3, 0.2, -0.1])
    found = instruments.deer(T, crossed)
    assert not found.consistent
    failed = found.unlike_noise()
    assert failed
    assert all(not found.limits[name][0] <= found.checks[name] <= found.limits[name][1] for name in failed)
    text = found.explain()
    assert re.search("not consistent", text)
    assert text.count(";") >= len(failed)


# ---------------------------------------------------------------- what does not fit the model

QUIET = 0.003 * RNG.standard_normal(len(T))
GOOD = (0.7 + 0.3 * pairs(T, std=0.2)) * np.exp(-0.1 * np.abs(T))
ARTEFACTS = {
    "crossing echoes": 0.1 * np.exp(-(((T - 2.0) / 0.02) ** 2)) * np.cos(40 * T),
    "overlapping pulses at the end": 0.06 * np.exp((T - T[-1]) / 0.15),
    "one wrong point": 0.1 * (np.arange(len(T)) == 120),
}


@pytest.mark.parametrize("artefact", ARTEFACTS.values(), ids=ARTEFACTS.keys())
def test_artefacts_of_traces_are_flagged(artefact):
    assert instruments.deer(T, GOOD + QUIET).consistent
    found = instruments.deer(T, GOOD + QUIET + artefact)
    assert not found.consistent
    assert found.unlike_noise()


W = 2j * np.pi * F
RELAXING = 10 + 50 / (1 + (W * 1e-2) ** 0.85)
IMPEDANCES = {
    "an inductive loop": RELAXING - 10 / (1 + W),
    "a cell that changes": RELAXING * (1 + 0.1 * np.maximum(-np.log10(F), 0)),
    "a negative resistance": RELAXING - 80 / (1 + W / 2),
}


@pytest.mark.parametrize("impedance", IMPEDANCES.values(), ids=IMPEDANCES.keys())
def test_spectra_that_no_distribution_explains_are_flagged(impedance):
    noise = 1 + 0.005 * (np.random.default_rng(1).standard_normal((2, len(F))).T @ [1, 1j])
    assert instruments.drt(F, RELAXING * noise).consistent
    assert not instruments.drt(F, impedance * noise).consistent


def test_limits_are_those_of_noise(found):
    """However badly a network fits its own family, nothing far from white noise counts as noise; small is no fault."""
    highest = dict(zip(NAMES, FURTHEST, strict=True))
    for name, (low, high) in found.limits.items():
        assert low < high <= highest[name]
    assert found.limits["blocks"][0] == found.limits["outlier"][0] == 0


def test_a_density_in_the_bands_may_fit_where_the_mean_does_not():
    """Of precise data; it is not the mean that the fit of a spectrum shows then."""
    rng = np.random.default_rng(1)
    precise = RELAXING * (1 + 1e-3 * (rng.standard_normal(61) + 1j * rng.standard_normal(61)))
    found = instruments.drt(F, precise)
    assert found.consistent
    assert found.misfit == pytest.approx(1, abs=0.25)
    batch = instruments.drt(F, np.stack([Z, precise]))
    np.testing.assert_allclose(batch.fitted[1], found.fitted, rtol=1e-6)
    np.testing.assert_allclose(batch.fitted[0], instruments.drt(F, Z).fitted, rtol=1e-6)
