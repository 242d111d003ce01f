"""The contract of every kind of network: architecture x encoding x direction x positions, on a few unknowns."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import algebraformer.models.algebraformer as algebraformer_module
from algebraformer import problems
from algebraformer.checkpoint import load
from algebraformer.errors import ConfigurationError
from algebraformer.models import Algebraformer, ModelConfig, predict
from algebraformer.models.config import Architecture, Encoding
from algebraformer.models.encoding import column_b_tokens, column_tokens, entry_tokens, row_tokens
from algebraformer.models.estimate import scaled
from algebraformer.numerics.operator_basis import OperatorBasis
from algebraformer.training import RECIPES
from algebraformer.training.data import examples
from tests.bases import fit as fit_basis

N = 6
FAMILY = problems.get("reaction-diffusion", n=N)
NOISY = problems.get("deblur", n=N)


def kinds() -> dict[str, ModelConfig]:
    """Return every kind of network under a readable name."""
    found = {}
    architectures = [a for a in typing.get_args(Architecture) if a != "feedback"]
    encodings = [e for e in typing.get_args(Encoding) if e != "column-tikhonov"]
    for architecture in architectures:
        found[f"{architecture}-operator"] = ModelConfig(
            n=N, architecture=architecture, head="operator", rank=4, n_column=4, n_row=3, n_layer=2, n_head=2, n_embd=8
        )
    with_tokens = [a for a in architectures if a != "mlp"]
    for architecture, encoding, flag in itertools.product(with_tokens, encodings, (False, True)):
        name = "causal" if architecture == "transformer" else "bidirectional"
        config = ModelConfig(
            n=N, architecture=architecture, encoding=encoding, n_layer=2, n_head=2, n_embd=8, **{name: flag}
        )
        found["-".join((architecture, encoding, *([name] if flag else [])))] = config
    for architecture, encoding in itertools.product([*with_tokens, "feedback"], ("column", "column-tikhonov")):
        for n_row in (0, N + 3) if architecture == "feedback" else (0,):
            found["-".join((architecture, "estimate", encoding, *(["tall"] if n_row else [])))] = ModelConfig(
                n=N, architecture=architecture, head="estimate", encoding=encoding, n_row=n_row, n_layer=2, n_head=2,
                n_embd=8,
            )  # fmt: skip
    without = {f"{name}-unplaced": c for name, c in found.items() if c.architecture == "transformer"}
    return found | {name: dataclasses.replace(config, positions=False) for name, config in without.items()}


KINDS = kinds()
TOKEN = [kind for kind, config in KINDS.items() if config.head == "token"]
OPERATOR = [kind for kind, config in KINDS.items() if config.head == "operator"]
ESTIMATE = [kind for kind, config in KINDS.items() if config.head == "estimate"]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_token_head = pytest.mark.parametrize("kind", TOKEN)
every_operator_head = pytest.mark.parametrize("kind", OPERATOR)
every_estimate_head = pytest.mark.parametrize("kind", ESTIMATE)


def family(kind: str) -> problems.ProblemFamily:
    """Return the family that this kind of network reads."""
    return dataclasses.replace(NOISY, m=KINDS[kind].n_equation) if kind in ESTIMATE else FAMILY


@functools.cache
def basis() -> OperatorBasis:
    """The basis of the family that all operator heads here have."""
    return fit_basis(FAMILY, rank=4, n_column=4, n_row=3, seed=1, count=64)


def fit(model: Algebraformer) -> Algebraformer:
    """Give a network what it learns of the family before training."""
    if model.config.head == "operator":
        model.operator_head.set_basis(basis())
    elif model.config.head == "estimate":
        systems = dataclasses.replace(NOISY, m=model.config.n_equation).sample(64, seed=1)
        model.estimate_head.fit(scaled(systems.A, systems.b))
    else:
        model.scaler.fit(*tensors(FAMILY.sample(64, seed=1)))
    return model


def batch(kind: str, count: int, seed: int) -> tuple[torch.Tensor, ...]:
    """What the loss of this kind of network takes."""
    reader = basis() if kind in OPERATOR else KINDS[kind] if kind in ESTIMATE else None
    return examples(family(kind), reader, range(count), seed)


def tensors(systems: problems.Systems) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A, b and x as tensors."""
    return torch.from_numpy(systems.A), torch.from_numpy(systems.b), torch.from_numpy(systems.x)


def build(kind: str, seed: int = 0) -> Algebraformer:
    """Return a network with a fitted scaler and random weights: a fresh one answers x = 0, which would hide a lot."""
    torch.manual_seed(seed)
    model = fit(Algebraformer(KINDS[kind])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@functools.cache
def shared(kind: str) -> Algebraformer:
    """One network of each kind, for tests that change nothing."""
    return build(kind)


def change(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest relative difference of two batches of solutions."""
    return float(((a - b).norm(dim=1) / b.norm(dim=1)).max())


# ---------------------------------------------------------------- answers


@every_kind
@pytest.mark.parametrize("batch", [1, 5])
@torch.no_grad()
def test_shape_and_dtype(kind: str, batch: int) -> None:
    A, b, _ = tensors(family(kind).sample(batch, seed=2))
    x = shared(kind)(A, b)
    assert (x.shape, x.dtype) == ((batch, N), torch.float64)
    assert torch.isfinite(x).all()


@every_kind
@torch.no_grad()
def test_systems_of_a_batch_do_not_mix(kind: str) -> None:
    """float32 rounding may depend on the size of the batch, and nothing else; NaN stays where it is."""
    A, b, _ = tensors(family(kind).sample(7, seed=3))
    x = shared(kind)(A, b)
    for i in range(7):
        assert change(shared(kind)(A[i : i + 1], b[i : i + 1]), x[i : i + 1]) < 1e-5
    A[2], b[4, 1] = torch.nan, torch.inf  # all of A: an operator head reads some entries only
    with np.errstate(invalid="ignore"):
        finite = torch.isfinite(shared(kind)(A, b)).all(dim=1)
    assert finite.tolist() == [True, True, False, True, False, True, True]


@every_kind
@torch.no_grad()
def test_a_zero_right_hand_side_gives_zero(kind: str) -> None:
    A, b, _ = tensors(family(kind).sample(4, seed=4))
    assert torch.equal(shared(kind)(A, 0 * b), torch.zeros(4, N, dtype=torch.float64))


@every_kind
def test_a_fresh_network_answers_the_same_for_the_same_seed(kind: str) -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        model = Algebraformer(KINDS[kind])
        states.append(model.state_dict())
        A, b, _ = tensors(family(kind).sample(2, seed=4))
        if kind not in OPERATOR:
            assert not model(A, b).any()
        else:  # zero coefficients: the mean of the inverses
            T = basis().T_mean @ np.linalg.solve(basis().A_mean, b.numpy().T)  # (n, B)
            mean = T.T / basis().sampler(A.numpy())[1][:, None]
            np.testing.assert_allclose(fit(model)(A, b), mean, rtol=1e-4, atol=1e-5 * np.abs(mean).max())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])
    assert all(torch.isfinite(tensor).all() for tensor in states[0].values())


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
    model = shared("transformer-column")
    assert change(model(A, d * b), d * model(A, b)) < 1e-5


# ---------------------------------------------------------------- what a token sees


def beyond_the_first_token(config: ModelConfig, A: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Change everything that token 1 does not hold."""
    A, b = A.clone(), b.clone()
    if config.encoding == "row":
        A[:, 1:] += 1
    else:
        A[:, :, 1:] += 1
    if config.encoding != "column-b":
        b[:, 1:] += 1
    return A, b


@pytest.mark.parametrize("kind", [kind for kind in TOKEN if KINDS[kind].encoding != "entry"])
@torch.no_grad()
def test_who_sees_later_tokens(kind: str) -> None:
    """Behind the scaling, which reads the whole system, x_1 of a causal network depends on token 1 alone."""
    config, model = KINDS[kind], shared(kind)
    one_way = config.causal if config.architecture == "transformer" else not config.bidirectional
    system = torch.randn(3, N, N), torch.randn(3, N)
    others = beyond_the_first_token(config, *system)
    y, other = (model.head(model.body(model.tokens(*each))) for each in (system, others))
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
    }[config.encoding]
    y, other = (model.head(model.body(model.tokens(*each))) for each in ((A, b), permuted))
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
    assert column_tokens(A, b).tolist() == [[[1, 3, 5], [2, 4, 6]]]


def test_row_tokens_by_hand() -> None:
    """One equation a token: 1 x_1 + 2 x_2 = 5 gives [1, 2, 5]."""
    A, b = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[5.0, 6.0]])
    assert row_tokens(A, b).tolist() == [[[1, 2, 5], [3, 4, 6]]]


def test_column_b_tokens_by_hand() -> None:
    """Every column with all of b."""
    A, b = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[5.0, 6.0]])
    assert column_b_tokens(A, b).tolist() == [[[1, 3, 5, 6], [2, 4, 5, 6]]]


def test_entry_tokens_by_hand() -> None:
    """[a_ij, b_i], rows first."""
    A, b = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[5.0, 6.0]])
    assert entry_tokens(A, b).tolist() == [[[1, 5], [2, 5], [3, 6], [4, 6]]]


@torch.no_grad()
def test_positions_and_read_out_of_entry_tokens_by_hand() -> None:
    """Token i n + j carries row position i and column position j, and x_j is the mean over i."""
    model = build("transformer-entry")
    model.tokens.embedding.weight.zero_()
    model.tokens.embedding.bias.zero_()
    row, column = model.tokens.positions
    h = model.tokens(torch.zeros(1, N, N), torch.zeros(1, N))[0]
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
def test_tokens_and_operations_of_an_encoding(encoding: Encoding, tokens: int, width: int) -> None:
    """Operations by hand, two blocks of width 8: q k^T and its product with v are 2 T^2 8 each, three times."""
    config = ModelConfig(n=N, encoding=encoding, n_layer=2, n_head=2, n_embd=8)
    assert (config.n_token, config.token_width) == (tokens, width)
    model = Algebraformer(config)
    block = 8 * 24 + 24 + 8 * 8 + 8 + 8 * 32 + 32 + 32 * 8 + 8 + 4 * 8
    positions = 8 * N * (2 if encoding == "entry" else 1)
    assert model.parameter_count() == (width + 1) * 8 + positions + 2 * block + 2 * 8 + 9
    assert model.training_flops() == 6 * model.parameter_count() * tokens
    assert model.attention_flops() == 2 * 3 * 2 * (2 * tokens**2 * 8)
    unplaced = Algebraformer(dataclasses.replace(config, positions=False))
    assert unplaced.parameter_count() == model.parameter_count() - positions
    assert build("lstm-column").attention_flops() == 0


@every_kind
def test_gradients_reach_every_parameter(kind: str) -> None:
    model = build(kind).train()
    model.loss(*batch(kind, 8, seed=7)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@every_kind
def test_hidden_matrices_are_the_weight_matrices_of_the_body(kind: str) -> None:
    model = shared(kind)
    hidden = list(model.hidden_matrices())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    expected = {name for name, p in model.body.named_parameters(prefix="body") if p.ndim == 2 and "reads" not in name}
    assert sorted(names[id(parameter)] for parameter, _ in hidden) == sorted(expected)
    stacked = {"transformer": {1, 3}, "feedback": {1, 3}, "lstm": {4}, "gru": {3}, "mlp": {1}}[KINDS[kind].architecture]
    assert {count for _, count in hidden} == stacked
    assert all(parameter.shape[0] % count == 0 for parameter, count in hidden)


@every_operator_head
@torch.no_grad()
def test_loss_of_an_operator_head_by_hand(kind: str) -> None:
    """Sum over systems of ||T_hat - T||_F^2 / ||T||_F^2 within the span of the basis, relative to zero coefficients."""
    z, c, weight = batch(kind, 64, seed=1)  # the sample the basis was fitted on
    fresh = fit(Algebraformer(KINDS[kind]))
    assert float(fresh.loss(z, c, weight)) == pytest.approx(1, rel=1e-2)
    model = shared(kind)
    T = model.head(model.features(z)).numpy().astype(float) @ basis().components.reshape(4, -1)
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
    fresh = Algebraformer(KINDS[kind])
    fresh.scaler.fit(A, b, x)
    assert float(fresh.loss(A, b, x)) == pytest.approx(1, rel=1e-12)
    model = shared(kind)
    assert float(model.loss(A, b, model(A, b))) < 1e-12
    assert float(model.loss(-4 * A, 2 * b, -x / 2)) == pytest.approx(float(model.loss(A, b, x)), rel=1e-6)


# ---------------------------------------------------------------- predict


@every_kind
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_predict_is_forward_in_chunks(kind: str, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One right-hand side or several: each is answered as if it were alone."""
    monkeypatch.setattr(algebraformer_module, "BATCH_SIZE", batch_size)
    monkeypatch.setattr(algebraformer_module, "systems_at_once", lambda n: batch_size)
    systems = family(kind).sample(7, seed=8)
    b = np.stack((systems.b, systems.b[::-1], -2 * systems.b), axis=2)
    for array in (systems.A, b):
        array.flags.writeable = False  # as np.load(mmap_mode="r") gives them; torch warns about those
    x = predict(shared(kind), systems.A, b)
    assert isinstance(x, np.ndarray)
    assert (x.dtype, x.shape) == (np.float64, (7, N, 3))
    with torch.no_grad():
        for j in range(3):
            forward = shared(kind)(torch.tensor(systems.A), torch.tensor(b[:, :, j]))
            assert change(torch.from_numpy(x[:, :, j]), forward) < 1e-5


@every_kind
def test_predict_nothing(kind: str) -> None:
    m = KINDS[kind].n_equation
    assert predict(shared(kind), np.empty((0, m, N)), np.empty((0, m, 1))).shape == (0, N, 1)


# ---------------------------------------------------------------- the configuration


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0}, "n must be a whole number"),
        ({"n_layer": 2.0}, "n_layer must be a whole number"),
        ({"n_embd": True}, "n_embd must be a whole number"),
        ({"n_head": 2**20 + 1}, "n_head must be a whole number"),
        ({"n_head": 3, "n_embd": 8}, "n_head must divide n_embd"),
        ({"architecture": "rnn"}, "architecture must be one of"),
        ({"encoding": "diagonal"}, "encoding must be one of column, row, column-b, entry"),
        ({"bidirectional": True}, "bidirectional is for lstm and gru"),
        ({"architecture": "gru", "causal": True}, "causal is for the transformer"),
        ({"architecture": "lstm", "positions": False}, "positions=False is for the transformer"),
        ({"architecture": "mlp", "head": "operator", "positions": False}, "positions=False is for the transformer"),
        ({"architecture": "mlp"}, "mlp is for the operator head"),
        ({"head": "matrix"}, "head must be one of token, operator"),
        ({"rank": 3}, "rank must be 0 without an operator head, received 3"),
        ({"head": "operator"}, "rank must be from 1 to 4096, received 0"),
        ({"head": "operator", "rank": 3, "n_column": 65, "n_row": 4}, "n_column must be from 1 to 64"),
        ({"head": "operator", "rank": 3, "n_column": 4, "n_row": 9, "n": 8}, "n_row must be from 1 to 8"),
        ({"head": "operator", "rank": 3, "n_column": 4, "n_row": 4, "encoding": "entry"}, "reads columns"),
        ({"head": "operator", "rank": 3, "n_column": 4, "n_row": 4, "encoding": "row"}, "reads columns"),
    ],
)
def test_contradictory_configurations_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ModelConfig(**changes)  # type: ignore[arg-type]


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
