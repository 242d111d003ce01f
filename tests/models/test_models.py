"""The contract of every kind of network: architecture x encoding x direction x positions, on a few unknowns."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from algebraformer import problems
from algebraformer.checkpoint import load
from algebraformer.errors import ConfigurationError
from algebraformer.models import Algebraformer, EstimateConfig, ModelConfig, OperatorConfig, TokenConfig
from algebraformer.models.bodies import BODIES
from algebraformer.models.config import EstimateEncoding, HeadConfig, head_config, head_names
from algebraformer.models.encodings import ENCODINGS
from algebraformer.models.registry import Registry, ships
from algebraformer.numerics.operator_basis import OperatorBasis
from algebraformer.training import RECIPES
from head_contract import CHECKS, batch, begin, change, tensors
from head_contract import build as build_of
from tests.bases import fit as fit_basis

N = 6
FAMILY = problems.get("reaction-diffusion", n=N)
NOISY = problems.get("deblur", n=N)


def shipped(registry: Registry[Any]) -> list[str]:
    """Return the members that come with the package: test files that register more try these themselves."""
    return [name for name in registry if ships(registry.module(name))]


HEADS: dict[str, list[HeadConfig]] = {
    "token": [TokenConfig(encoding=encoding) for encoding in shipped(ENCODINGS)],
    "operator": [OperatorConfig(rank=4, n_column=4, n_row=3)],
    "estimate": [
        EstimateConfig(encoding=encoding, n_equations=m)
        for encoding, m in itertools.product(typing.get_args(EstimateEncoding), (None, N + 3))
    ],
}
"""Settings that every kind of head is tried with; those of a head that is not named here are its defaults."""


def kinds() -> dict[str, ModelConfig]:
    """Return every kind of network under a readable name: heads x their settings x architectures x their options."""
    found = {}
    for name in head_names():
        if name == "inversion":  # it reads measurements, not systems: see test_inversion_head.py
            continue
        for head in HEADS.get(name) or [head_config(name)]:
            words = [str(value) for value in head.settings().values() if isinstance(value, str)]
            words += ["tall"] if getattr(head, "n_equations", None) else []
            for architecture in (name for name in head.architectures() if name in shipped(BODIES)):
                config = ModelConfig(n=N, architecture=architecture, head=head, n_layer=2, n_head=2, n_embd=8)
                options: dict[str, dict[str, bool]] = {"": {}}
                if architecture == "transformer":
                    options |= {"causal": {"causal": True}, "unplaced": {"positions": False}}
                elif architecture in ("lstm", "gru"):
                    options |= {"bidirectional": {"bidirectional": True}}
                for option, changes in options.items():
                    kind = "-".join((architecture, *words, *([option] if option else [])))
                    found[kind] = dataclasses.replace(config, **changes)
    return found


KINDS = kinds()
TOKEN, OPERATOR, ESTIMATE = (
    [kind for kind, config in KINDS.items() if config.head.name == name] for name in ("token", "operator", "estimate")
)
every_kind = pytest.mark.parametrize("kind", KINDS)
every_token_head = pytest.mark.parametrize("kind", TOKEN)
every_operator_head = pytest.mark.parametrize("kind", OPERATOR)
every_estimate_head = pytest.mark.parametrize("kind", ESTIMATE)


def family(kind: str) -> problems.ProblemFamily:
    """Return the family that this kind of network reads."""
    return dataclasses.replace(NOISY, m=KINDS[kind].n_equations) if KINDS[kind].head.estimates else FAMILY


@functools.cache
def basis() -> OperatorBasis:
    """The basis of the family that all operator heads here have."""
    return fit_basis(FAMILY, rank=4, n_column=4, n_row=3, seed=1, count=64)


def build(kind: str, seed: int = 0) -> Algebraformer:
    """Return a network with random weights that knows its family."""
    return build_of(KINDS[kind], family(kind), seed)


@functools.cache
def shared(kind: str) -> Algebraformer:
    """One network of each kind, for tests that change nothing."""
    return build(kind)


# ---------------------------------------------------------------- answers


@every_kind
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(kind: str, check: Callable[[Algebraformer, problems.ProblemFamily], None]) -> None:
    check(shared(kind), family(kind))


def mean_inverse(A: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inverse of the mean of matrices (B, n, n), each divided by its root mean square, up to signs."""
    size = np.sqrt(np.mean(A**2, axis=(1, 2))) * np.sign(np.sum(A * A.mean(axis=0), axis=(1, 2)))
    found: NDArray[np.float64] = np.linalg.inv((A / size[:, None, None]).mean(axis=0))
    return found


@every_kind
@torch.no_grad()
def test_a_fresh_network_answers_zero_or_the_mean_of_the_inverses(kind: str) -> None:
    A, b, _ = tensors(family(kind).sample(2, seed=4))
    model = begin(Algebraformer(KINDS[kind]), family(kind))
    x = model(A, b)
    if KINDS[kind].head.name == "preconditioned":
        P = mean_inverse(family(kind).sample(64, seed=1).A)  # of what `begin` shows it
        size = np.trace(P @ A.numpy(), axis1=1, axis2=2) / N
        np.testing.assert_allclose(x, b.numpy() @ P.T / size[:, None], rtol=1e-6)
    elif not KINDS[kind].head.is_linear:
        assert not x.any()
    elif KINDS[kind].head.basis_rank is not None:
        T = basis().T_mean @ np.linalg.solve(basis().A_mean, b.numpy().T)  # (n, B)
        mean = T.T / basis().sampler(A.numpy())[1][:, None]
        np.testing.assert_allclose(x, mean, rtol=1e-4, atol=1e-5 * np.abs(mean).max())


# ---------------------------------------------------------------- (c A, d b) gives (d / c) x


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    c=st.integers(-600, 600),
    ratio=st.integers(-300, 300),
    signs=st.tuples(st.sampled_from([1.0, -1.0]), st.sampled_from([1.0, -1.0])),
)
@torch.no_grad()
def test_scaling_by_powers_of_two_is_exact(kind: str, c: int, ratio: int, signs: tuple[float, float]) -> None:
    """Such a scaling rounds nothing, so not one bit of the network's input may change."""
    A, b, _ = tensors(family(kind).sample(4, seed=5))
    scaled = shared(kind)(signs[0] * 2.0**c * A, signs[1] * 2.0 ** (c + ratio) * b)
    assert torch.equal(scaled, signs[0] * signs[1] * 2.0**ratio * shared(kind)(A, b))


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    c=st.floats(1.0, 10.0),
    d=st.floats(1.0, 10.0),
    exponent=st.integers(-200, 200),
    ratio=st.integers(-90, 90),
    signs=st.tuples(st.sampled_from([1.0, -1.0]), st.sampled_from([1.0, -1.0])),
)
@torch.no_grad()
def test_scaling_is_exact_to_rounding(
    kind: str, c: float, d: float, exponent: int, ratio: int, signs: tuple[float, float]
) -> None:
    """The scaling is done in float64; what it rounds may at most turn the last bit of a float32 z-score."""
    A, b, _ = tensors(family(kind).sample(4, seed=6))
    scaled = shared(kind)(signs[0] * c * 10.0**exponent * A, signs[1] * d * 10.0 ** (exponent + ratio) * b)
    assert change(scaled, signs[0] * signs[1] * (d / c) * 10.0**ratio * shared(kind)(A, b)) < 1e-5


@pytest.mark.parametrize("d", [-1.0, 3.0, -7.0, 1 / 3, 1e5 / 7])
@pytest.mark.parametrize("f", [np.copy, lambda x: np.sin(np.pi * x), lambda x: x**3, lambda x: x**2 - np.mean(x**2)])
@torch.no_grad()
def test_scaling_holds_where_the_sign_of_b_is_a_toss_up(f: typing.Callable[[np.ndarray], np.ndarray], d: float) -> None:
    """The entries of an odd source add up to zero, or to rounding of either sign."""
    A, _, _ = tensors(FAMILY.sample(4, seed=6))
    b = torch.from_numpy(f(FAMILY.grid[1:-1])).expand(4, N)
    model = shared("transformer-token-column")
    assert change(model(A, d * b), d * model(A, b)) < 1e-5


# ---------------------------------------------------------------- what a token sees


def beyond_the_first_token(config: ModelConfig, A: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Change everything that token 1 does not hold."""
    A, b = A.clone(), b.clone()
    if config.head.encoding == "row":
        A[:, 1:] += 1
    else:
        A[:, :, 1:] += 1
    if config.head.encoding != "column-b":
        b[:, 1:] += 1
    return A, b


@pytest.mark.parametrize("kind", [kind for kind in TOKEN if KINDS[kind].head.encoding != "entry"])
@torch.no_grad()
def test_who_sees_later_tokens(kind: str) -> None:
    """Behind the scaling, which reads the whole system, x_1 of a causal network depends on token 1 alone."""
    config, model = KINDS[kind], shared(kind)
    one_way = config.causal if config.architecture == "transformer" else not config.bidirectional
    system = torch.randn(3, N, N), torch.randn(3, N)
    others = beyond_the_first_token(config, *system)
    y, other = (model.head(model.encode(model.head.read(*each))) for each in (system, others))
    assert torch.equal(y[:, 0], other[:, 0]) == one_way
    assert (y[:, 1:] != other[:, 1:]).all()


@pytest.mark.parametrize("kind", [k for k in TOKEN if KINDS[k].architecture == "transformer" and not KINDS[k].causal])
@torch.no_grad()
def test_who_knows_the_order(kind: str) -> None:
    """Without positions a permutation of the tokens permutes the answers; with them it gives others."""
    config, model = KINDS[kind], shared(kind)
    A, b, order = torch.randn(3, N, N), torch.randn(3, N), torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = {  # the tokens of row and entry go with an entry of b, and so do those of column
        "column": (A[:, :, order], b[:, order]),
        "column-b": (A[:, :, order], b),
        "row": (A[:, order], b[:, order]),
        "entry": (A[:, :, order], b),
    }[config.head.encoding]
    y, other = (model.head(model.encode(model.head.read(*each))) for each in ((A, b), permuted))
    assert torch.allclose(other, y[:, order], rtol=1e-4, atol=1e-5) != config.positions


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].architecture == "transformer"])
@torch.no_grad()
def test_attention_weights_are_those_of_the_kernel(kind: str) -> None:
    """The kernel of PyTorch, given unit vectors as values, returns the weights it uses."""
    attention = shared(kind).body.blocks[1].attention
    h = torch.randn(3, 7, 8)
    q, k, v = attention.heads(h)
    unit = torch.eye(7).expand(3, 2, 7, 7)
    found = attention.weights(h)
    kernel = torch.nn.functional.scaled_dot_product_attention(q, k, unit, is_causal=attention.causal)
    torch.testing.assert_close(found, kernel, rtol=1e-5, atol=1e-6)
    mixed = (found @ v).transpose(1, 2).reshape(3, 7, 8)
    torch.testing.assert_close(attention.out(mixed), attention(h), rtol=1e-4, atol=1e-5)
    assert bool((found.triu(1) == 0).all()) == attention.causal


def test_column_tokens_by_hand() -> None:
    """The paper's [a_i, b_i]: the first token of [[1, 2], [3, 4]] x = [5, 6] is the first column and 5."""
    A, b = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[5.0, 6.0]])
    assert ENCODINGS["column"].tokens(A, b, torch).tolist() == [[[1, 3, 5], [2, 4, 6]]]


def test_row_tokens_by_hand() -> None:
    """One equation per token: 1 x_1 + 2 x_2 = 5 gives [1, 2, 5]."""
    A, b = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[5.0, 6.0]])
    assert ENCODINGS["row"].tokens(A, b, torch).tolist() == [[[1, 2, 5], [3, 4, 6]]]


def test_column_b_tokens_by_hand() -> None:
    """Every column with all of b."""
    A, b = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[5.0, 6.0]])
    assert ENCODINGS["column-b"].tokens(A, b, torch).tolist() == [[[1, 3, 5, 6], [2, 4, 5, 6]]]


def test_entry_tokens_by_hand() -> None:
    """[a_ij, b_i], rows first."""
    A, b = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[5.0, 6.0]])
    assert ENCODINGS["entry"].tokens(A, b, torch).tolist() == [[[1, 5], [2, 5], [3, 6], [4, 6]]]


@torch.no_grad()
def test_positions_and_read_out_of_entry_tokens_by_hand() -> None:
    """Token i n + j carries row position i and column position j, and x_j is the mean over i."""
    model = build("transformer-token-entry")
    model.tokens.embedding.weight.zero_()
    model.tokens.embedding.bias.zero_()
    row, column = model.tokens.positions
    h = model.tokens(model.head.read(torch.zeros(1, N, N), torch.zeros(1, N)))[0]
    for i, j in itertools.product(range(N), range(N)):
        assert torch.equal(h[i * N + j], row[i] + column[j])
    y = model.head(h[None])[0]
    values = h.numpy() @ model.head.linear.weight.numpy()[0] + model.head.linear.bias.numpy()
    np.testing.assert_allclose(y, values.reshape(N, N).mean(axis=0), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- parameters


def test_parameter_count_of_the_paper() -> None:
    """Counted by hand: embedding, positions, 12 blocks with biases everywhere, final norm, read-out."""
    d, n = 256, 64
    block = (3 * d * d + 3 * d) + (d * d + d) + (4 * d * d + 4 * d) + (4 * d * d + d) + 2 * 2 * d
    expected = ((n + 1) * d + d) + n * d + 12 * block + 2 * d + (d + 1)
    with torch.device("meta"):
        count = Algebraformer(RECIPES["paper"].model).parameter_count()
    assert count == expected == 9_511_169


@pytest.mark.parametrize(
    ("encoding", "tokens", "width"), [("column", 6, 7), ("row", 6, 7), ("column-b", 6, 12), ("entry", 36, 2)]
)
def test_tokens_and_operations_of_an_encoding(encoding: str, tokens: int, width: int) -> None:
    """Operations by hand, two blocks of width 8: q k^T and its product with v are 2 T^2 8 each, three times."""
    config = ModelConfig(n=N, head=TokenConfig(encoding=encoding), n_layer=2, n_head=2, n_embd=8)
    assert (config.n_token, config.token_width) == (tokens, width)
    model = Algebraformer(config)
    block = 8 * 24 + 24 + 8 * 8 + 8 + 8 * 32 + 32 + 32 * 8 + 8 + 4 * 8
    positions = 8 * N * (2 if encoding == "entry" else 1)
    assert model.parameter_count() == (width + 1) * 8 + positions + 2 * block + 2 * 8 + 9
    assert model.training_flops() == 6 * model.parameter_count() * tokens
    assert model.attention_flops() == 2 * 3 * 2 * (2 * tokens**2 * 8)
    unplaced = Algebraformer(dataclasses.replace(config, positions=False))
    assert unplaced.parameter_count() == model.parameter_count() - positions
    assert build("lstm-token-column").attention_flops() == 0


@every_kind
def test_hidden_matrices_are_the_weight_matrices_of_the_body(kind: str) -> None:
    model = shared(kind)
    hidden = list(model.hidden_matrices())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    expected = {
        name
        for name, p in model.body.named_parameters(prefix="body")
        if p.ndim == 2 and not {"reads", "places"} & set(name.split("."))
    }
    assert sorted(names[id(parameter)] for parameter, _ in hidden) == sorted(expected)
    kinds = {"transformer": {1, 3}, "feedback": {1, 3}, "carrier": {1, 3, 4}, "lstm": {4}, "gru": {3}, "mlp": {1}}
    stacked = kinds[KINDS[kind].architecture]
    assert {count for _, count in hidden} == stacked
    assert all(parameter.shape[0] % count == 0 for parameter, count in hidden)


@every_operator_head
@torch.no_grad()
def test_loss_of_an_operator_head_by_hand(kind: str) -> None:
    """Sum over systems of ||T_hat - T||_F^2 / ||T||_F^2 within the span of the basis, relative to zero coefficients."""
    fresh = begin(Algebraformer(KINDS[kind]), FAMILY)
    z, c, weight = batch(fresh, FAMILY, 64, seed=1)  # the sample the basis was fitted on
    assert float(fresh.loss(z, c, weight)) == pytest.approx(1, rel=1e-2)
    model = shared(kind)
    T = model.head(model.head.features(model, z)).numpy().astype(float) @ basis().components.reshape(4, -1)
    error = np.sum((T - c.numpy() @ basis().components.reshape(4, -1)) ** 2, axis=1) * weight.numpy() ** 2
    assert float(model.loss(z, c, weight)) == pytest.approx(
        error.mean() / np.sum(basis().coefficient_rms ** 2), rel=1e-4
    )


@every_operator_head
@torch.no_grad()
def test_an_operator_head_is_linear_in_b(kind: str) -> None:
    A, b, other = tensors(FAMILY.sample(5, seed=6))
    combined = shared(kind)(A, 3 * b - other)
    assert change(3 * shared(kind)(A, b) - shared(kind)(A, other), combined) < 1e-4


@every_token_head
@torch.no_grad()
def test_loss_is_relative_to_answering_zero(kind: str) -> None:
    """A fresh network answers x = 0, which costs 1 on the sample the scaler was fitted on; scaling changes nothing."""
    A, b, x = tensors(FAMILY.sample(64, seed=1))
    fresh = begin(Algebraformer(KINDS[kind]), FAMILY)
    assert float(fresh.loss(A, b, x)) == pytest.approx(1, rel=1e-12)
    model = shared(kind)
    assert float(model.loss(A, b, model(A, b))) < 1e-12
    assert float(model.loss(-4 * A, 2 * b, -x / 2)) == pytest.approx(float(model.loss(A, b, x)), rel=1e-6)


# ---------------------------------------------------------------- the configuration


READ = {"name": "operator", "rank": 3, "n_column": 4, "n_row": 4}


@pytest.mark.parametrize("kind", KINDS)
def test_settings_make_the_same_configuration(kind: str) -> None:
    settings = json.loads(json.dumps(KINDS[kind].settings()))
    assert ModelConfig(**settings) == KINDS[kind]
    assert ModelConfig(**settings).settings() == settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0}, "n must be a whole number"),
        ({"n_layer": 2.0}, "n_layer must be a whole number"),
        ({"n_embd": True}, "n_embd must be a whole number"),
        ({"n_head": 2**20 + 1}, "n_head must be a whole number"),
        ({"n_head": 3, "n_embd": 8}, "n_head must divide n_embd"),
        ({"architecture": "rnn"}, "architecture must be one of"),
        ({"head": {"name": "token", "encoding": "diagonal"}}, "encoding must be one of column, row, column-b, entry"),
        ({"bidirectional": True}, "bidirectional=True is for lstm, gru.*, received 'transformer'"),
        ({"architecture": "gru", "causal": True}, "causal=True is for transformer, feedback.*, received 'gru'"),
        ({"architecture": "lstm", "positions": False}, "positions=False is for transformer, feedback.*'lstm'"),
        ({"architecture": "mlp", "head": READ, "positions": False}, "positions=False is for .*, received 'mlp'"),
        ({"architecture": "mlp", "head": READ, "bidirectional": True}, "bidirectional=True is for .*, received 'mlp'"),
        ({"architecture": "mlp"}, "token heads go with transformer, lstm, gru.*, received 'mlp'"),
        ({"architecture": "feedback", "head": READ}, "operator heads go with transformer, lstm, gru, mlp"),
        ({"head": "matrix"}, "head must be one of token, operator, .*'matrix': import .* register_head first"),
        ({"head": {"rank": 3}}, "head must be one of token, operator"),
        ({"head": {"name": "token", "rank": 3}}, "settings of head 'token' are encoding"),
        ({"head": "operator"}, "settings of head 'operator' are rank, n_column, n_row"),
        ({"head": READ | {"rank": 0}}, "rank must be a whole number from 1 to 4096, received 0"),
        ({"head": READ | {"n_column": 65}}, "n_column must be a whole number from 1 to 64"),
        ({"head": READ | {"n_row": 9}, "n": 8}, "n_row must be a whole number from 1 to 8"),
        ({"head": READ | {"norm": "spectral"}}, "norm must be one of frobenius, weighted"),
        ({"head": READ | {"whiten": 1}}, "whiten must be true or false"),
        ({"head": READ | {"encoding": "row"}}, "settings of head 'operator' are rank"),
        ({"head": {"name": "estimate", "encoding": "row"}}, "encoding must be one of column, column-tikhonov"),
        ({"head": {"name": "estimate", "n_equations": 0}}, "n_equations must be a whole number from 1"),
    ],
)
def test_contradictory_configurations_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ModelConfig(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda model, A: model.approximate_inverse(A), "a token head: only linear heads"),
        (lambda model, A: model.check_linear(), "a token head: only linear heads"),
        (lambda model, A: model.check_estimates(), "a token head: only estimate heads"),
        (lambda model, A: model.head.estimates(model, A, A[:, 0]), "a token head: only estimate heads"),
        (lambda model, A: model.head.fits(model, A[:, 0, 0]), "a token head: only estimate heads"),
        (lambda model, A: model.head.use_basis(model, basis()), "a token head: only operator heads"),
    ],
)
def test_a_head_says_what_it_cannot_do(ask: Callable[[Algebraformer, np.ndarray], object], message: str) -> None:
    model = build_of(ModelConfig(n=N, n_layer=1, n_head=2, n_embd=8), FAMILY)
    with pytest.raises(ConfigurationError, match=message):
        ask(model, FAMILY.sample(3).A)


@pytest.mark.parametrize("fixture", ["operator_run", "estimate_run"])
@pytest.mark.parametrize("which", [0, 1])
def test_heads_without_gradients_say_so(request: pytest.FixtureRequest, fixture: str, which: int) -> None:
    """Else the gradient would be cut without a word."""
    model, info = load(request.getfixturevalue(fixture) / "model")
    systems = info.problem_family().sample(3, seed=1)
    inputs = [torch.from_numpy(systems.A), torch.from_numpy(systems.b)]
    expected = model(*inputs).detach()
    inputs[which].requires_grad_()
    with pytest.raises(ConfigurationError, match="token head"):
        model(*inputs)
    with torch.no_grad():
        assert torch.equal(model(*inputs), expected)
    assert torch.equal(model(*(part.detach() for part in inputs)).detach(), expected)


def test_gradients_of_a_token_head(tiny_run: Path) -> None:
    """By central differences."""
    model, info = load(tiny_run / "model")
    systems = info.problem_family().sample(1, seed=1)
    A, b = torch.from_numpy(systems.A), torch.from_numpy(systems.b).requires_grad_()
    model(A, b).sum().backward()
    step = 1e-2 * torch.randn(b.shape, dtype=b.dtype, generator=torch.Generator().manual_seed(0)) * b.detach().abs()
    with torch.no_grad():
        change = (model(A, b + step) - model(A, b - step)).sum() / 2
    assert float((b.grad * step).sum()) == pytest.approx(float(change), rel=0.05)
