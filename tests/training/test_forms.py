"""Which form of the inverse is chosen: what is counted, what is possible, and that recipes follow it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from algebraformer import problems
from algebraformer.errors import ConfigurationError
from algebraformer.models import ModelConfig, OperatorConfig
from algebraformer.models.inference.stored_basis import layout
from algebraformer.numerics import gcr, low_rank_fit, sine_tiles
from algebraformer.training import automatic, forms
from algebraformer.training.forms import Candidate, candidates, fastest

N = 32


@pytest.fixture
def small(monkeypatch):
    """Forms of few components, from few samples, for few unknowns."""
    for name, value in {
        "FORMS_MIN_N": N,
        "RANKS": (8, 16, 24),
        "SHAPES": ((8, 1), (16, 2)),
        "LOW_RANK_SAMPLES": 100,
        "MIN_LOW_RANK_SAMPLES": 100,
        "HELD_OUT": 6,
    }.items():
        monkeypatch.setattr(forms, name, value)


def test_every_form_is_tried(small):
    found = candidates(problems.get("diffusion", n=N), 20, 8)
    dense = [one for one in found if one.form == "dense"]
    low = [one for one in found if one.form == "low-rank"]
    assert [one.rank for one in dense] == [8, 16, 20]  # no more components than the spectrum shows
    assert {(one.p, one.row_terms) for one in low} == {(8, 1), (16, 2)}
    assert {one.rank for one in low} == {8, 16, 20}
    assert all(one.seconds > 0 and 1 <= one.steps <= 1 + forms.MAX_REFINEMENTS for one in found)
    assert dense[0].steps > dense[-1].steps


def test_steps_are_those_of_the_iteration(small):
    """Counted by hand with the same basis: products with A until the certificate."""
    family = problems.get("diffusion", n=N)
    found = next(one for one in candidates(family, 16, 8) if (one.form, one.rank, one.p) == ("low-rank", 16, 8))
    basis = low_rank_fit.snapshots(
        lambda part: family.assembled(part, automatic.SPECTRUM_SEED)[0], N, 16, 2, 8, 8, count=100
    ).basis(16, 8, 1)
    A, b, _ = family.assembled(range(2**20, 2**20 + 6), automatic.SPECTRUM_SEED)
    inverse = basis.inverse_of(basis.coefficients(A)[1], basis.read(A)[1])
    assert found.steps == pytest.approx(
        np.mean(gcr.gcr_restarted(A, b[:, :, None], inverse, None, forms.MAX_REFINEMENTS).refinements + 1)
    )


def test_tiles_stand_for_dense_operators_where_there_are_some(small, monkeypatch):
    family = problems.get("diffusion", n=64)
    plain = [one for one in candidates(family, 8, 8) if one.form == "dense"]
    monkeypatch.setattr(sine_tiles, "MIN_N", 64)
    monkeypatch.setattr(sine_tiles, "TRUNCATION_RTOL", 0.05)
    tiled = [one for one in candidates(family, 8, 8) if one.form == "dense"]
    assert [one.tiled for one in (*plain, *tiled)] == [False, True]


def test_large_dense_operators_are_not_tried(small, monkeypatch):
    monkeypatch.setattr(forms, "MAX_DENSE_BYTES", 1000)
    assert {one.form for one in candidates(problems.get("diffusion", n=N), 16, 8)} == {"low-rank"}


@pytest.mark.parametrize("form", [{}, {"form": "low-rank", "p": 9, "row_terms": 2}])
def test_bytes_are_those_of_a_checkpoint(form):
    config = ModelConfig(n=50, head=OperatorConfig(rank=40, n_column=4, n_row=4, **form), n_embd=16)
    shared = ("rows", "columns", "weight", "mean", "inverse_std", "coefficient_rms", "scale", "scaling_range")
    stored = sum(
        np.dtype(dtype).itemsize * int(np.prod(shape))
        for name, (shape, dtype) in layout(config).items()
        if name not in (*shared, "row_scales")
    )
    counted = forms.low_rank_bytes(50, 40, 9, 2) if form else forms.dense_bytes(50, 40)
    assert counted == stored


def test_forms_stay_below_their_limits():
    """At n = 1024, no dense form, and every shape of low rank with some number of components."""
    assert all(forms.dense_bytes(1024, rank) > forms.MAX_DENSE_BYTES for rank in forms.RANKS)
    for shape in forms.SHAPES:
        assert any(forms.low_rank_bytes(1024, rank, *shape) <= forms.MAX_LOW_RANK_BYTES for rank in forms.RANKS)


def test_the_fastest_and_of_equals_the_smallest():
    slow, fast, same = (Candidate(form="dense", rank=r, seconds=t) for r, t in ((16, 2.0), (64, 1.0), (32, 1.01)))
    assert fastest([slow, fast, same]) is same
    assert fastest([slow, fast]) is fast


def test_recipes_follow_the_choice(monkeypatch):
    chosen = Candidate(form="low-rank", rank=96, p=32, row_terms=2, seconds=1.0)
    monkeypatch.setattr(automatic, "spectrum", lambda family, report: np.ones(300))
    monkeypatch.setattr(automatic, "readings", lambda family, report: {16: 0.0})
    monkeypatch.setattr(
        automatic, "candidates", lambda *args: [chosen, dataclasses.replace(chosen, form="dense", seconds=2.0)]
    )
    head = automatic.recipe_for(problems.get("diffusion", n=128)).model.head
    assert head == OperatorConfig(rank=96, n_column=16, n_row=16, whiten=True, form="low-rank", p=32, row_terms=2)
    assert automatic.recipe_for(problems.get("diffusion", n=64)).model.head.form == "dense"


def test_without_a_mean_for_the_low_rank_form_there_are_dense_operators(small, monkeypatch):
    def singular(*args, **settings):
        raise ConfigurationError("the mean is singular")

    monkeypatch.setattr(low_rank_fit, "snapshots", singular)
    family = problems.get("diffusion", n=N)
    assert {one.form for one in candidates(family, 16, 8)} == {"dense"}
    monkeypatch.setattr(forms, "MAX_DENSE_BYTES", 0)
    with pytest.raises(ConfigurationError):
        candidates(family, 16, 8)
