"""Checkpoints: what is saved comes back bit for bit, and whatever is wrong with a folder is a `CheckpointError`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import re
import shutil
import typing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from algebraformer import checkpoint, problems
from algebraformer.checkpoint import CONFIG, MODEL, SUMS, CheckpointInfo
from algebraformer.errors import CheckpointError, UnknownNameError
from algebraformer.models import (
    Algebraformer,
    EstimateConfig,
    ModelConfig,
    OperatorConfig,
    PreconditionedConfig,
    TokenConfig,
    legacy,
)
from algebraformer.training import Recipe
from tests.bases import fit as fit_basis

SOURCE = Path(checkpoint.__file__).parent
INFO = CheckpointInfo(
    name="tiny-4",
    family={"name": "diffusion", "n": 4, "f_modes": 8, "alpha": [0.0, 0.9], "omega": [0.0, 2.0]},
    recipe={"steps": 3},
    scores={"normalized_mse": 0.25},
)


def network(kind: str = "transformer", seed: int = 0) -> Algebraformer:
    """A network of a few hundred random weights, buffers included; an operator head has a basis instead."""
    architecture, _, head = kind.partition("-")
    reading = {
        "": TokenConfig(),
        "operator": OperatorConfig(rank=15, n_column=3, n_row=2),
        "estimate": EstimateConfig(encoding="column-tikhonov", n_equations=5),
        "preconditioned": PreconditionedConfig(),
    }[head]
    config = ModelConfig(n=4, architecture=architecture, head=reading, n_layer=2, n_head=1, n_embd=4)  # type: ignore[arg-type]
    torch.manual_seed(seed)
    model = Algebraformer(config).eval()
    with torch.no_grad():
        for tensor in model.parameters() if head == "operator" else model.state_dict().values():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    if head == "operator":
        family = problems.get("random-diffusion", n=4)
        model.operator_head.set_basis(fit_basis(family, 15, 3, 2, seed, count=50))
    return model


def sign(folder: Path) -> None:
    """Rebuild sha256sums as coreutils writes it, as someone would who alters a checkpoint on purpose."""
    names = sorted(path.name for path in folder.iterdir() if path.name != SUMS)
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / SUMS).write_text("".join(lines))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good checkpoint."""
    checkpoint.save(tmp_path / "tiny", network(), INFO)
    return tmp_path / "tiny"


def same_weights(a: Algebraformer, b: Algebraformer) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------- there and back


OPERATORS = [f"{name}-operator" for name in OperatorConfig.architectures()]
KINDS = ["transformer", "lstm", "gru", *OPERATORS, "feedback-estimate", "carrier-preconditioned"]


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_is_exact(tmp_path: Path, kind: str) -> None:
    model = network(kind)
    checkpoint.save(tmp_path / "m", model, INFO)
    loaded, info = checkpoint.load(str(tmp_path / "m"))
    assert info == INFO
    assert loaded.config == model.config
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert same_weights(loaded, model)
    m = model.config.n_equations
    A, b = torch.rand(3, m, 4, dtype=torch.float64), torch.rand(3, m, dtype=torch.float64)
    assert torch.equal(loaded(A, b), model(A, b))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("head.rows", torch.tensor([0, 4]), "rows of an operator head must be from 0 to 3"),
        ("head.columns", torch.tensor([-1, 0, 1]), "columns of an operator head must be from 0 to 3"),
        ("head.A_mean", torch.zeros(4, 4, dtype=torch.float64), "mean matrix of an operator head is singular"),
        ("head.others", torch.zeros(1, 4, 4, dtype=torch.float16), "head.others has shape"),
    ],
)
def test_a_basis_that_makes_no_sense(tmp_path: Path, name: str, value: torch.Tensor, message: str) -> None:
    checkpoint.save(tmp_path / "m", network("mlp-operator"), INFO)
    tensors = safetensors.torch.load_file(tmp_path / "m" / MODEL)
    tensors[name] = value
    (tmp_path / "m" / MODEL).write_bytes(safetensors.torch.save(tensors))
    sign(tmp_path / "m")
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(tmp_path / "m")


def test_a_folder_is_plain_files_that_coreutils_can_check(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted([MODEL, CONFIG, SUMS])
    before = (folder / SUMS).read_text()
    sign(folder)
    assert sorted((folder / SUMS).read_text().splitlines()) == sorted(before.splitlines())
    config = json.loads((folder / CONFIG).read_text())
    assert config["model"] == network().config.settings()
    assert config["format"] == 2


def test_scaled_integers_are_read_as_the_numbers_they_stand_for(folder: Path) -> None:
    """Scale times integer, one scale per row: a float32 tensor like any other afterwards."""
    alter_tensors(lambda t: t.update(scaled_by(torch.tensor([2.0**-10]))))(folder)
    sign(folder)
    loaded, _ = checkpoint.load(folder)
    weight = loaded.state_dict()[WEIGHT]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, torch.tensor([[-32767.0, 0.0, 1.0, 32767.0]]) / 1024)
    assert loaded.state_dict().keys() == network().state_dict().keys()
    checkpoint.save(folder, loaded, INFO)  # as float32 again
    assert same_weights(checkpoint.load(folder)[0], loaded)


def test_the_cost_of_training_is_kept_and_older_checkpoints_do_not_have_it(folder: Path, tmp_path: Path) -> None:
    info = dataclasses.replace(INFO, seconds=12.5, threads=2)
    checkpoint.save(tmp_path / "new", network(), info)
    assert checkpoint.load(tmp_path / "new")[1] == info
    alter_config(lambda c: (c.pop("seconds"), c.pop("threads")))(folder)
    sign(folder)
    found = checkpoint.load(folder)[1]
    assert (found.seconds, found.threads) == (None, None)


def test_info_knows_its_family() -> None:
    assert INFO.problem_family().settings() == {**INFO.family, "alpha": (0.0, 0.9), "omega": (0.0, 2.0)}


# ---------------------------------------------------------------- format 1


@pytest.mark.parametrize("name", ["diffusion-64", "diffusion-64-token", "deblur-64"])
def test_checkpoints_of_format_1_are_read(name: str, tmp_path: Path) -> None:
    """The shipped ones: with today's settings, tensors and recipes, and saved again in today's format."""
    written = json.loads((checkpoint.resolve(name) / CONFIG).read_text())
    assert written["format"] == 1
    model, info = checkpoint.load(checkpoint.resolve(name))
    assert model.config.head.name == written["model"]["head"]
    assert ModelConfig(**info.recipe["model"]) == model.config
    assert info.recipe["lr"] == written["recipe"]["lr"]
    assert Recipe(**info.recipe | {"model": model.config}).model == model.config
    checkpoint.save(tmp_path / "again", model, info)
    again, info_again = checkpoint.load(tmp_path / "again")
    assert (again.config, info_again) == (model.config, info)
    assert same_weights(again, model)


def test_settings_of_format_1() -> None:
    shared = {
        "n": 8, "architecture": "mlp", "n_layer": 2, "n_head": 1, "n_embd": 4, "causal": False, "positions": True,
        "bidirectional": False,
    }  # fmt: skip
    own = {"rank": 3, "n_column": 2, "n_row": 4, "whiten": True, "balance": True, "encoding": "column"}
    found = legacy.convert_model({**shared, **own, "head": "operator"})
    head = OperatorConfig(rank=3, n_column=2, n_row=4, whiten=True, norm="weighted")
    assert ModelConfig(**found) == ModelConfig(n=8, architecture="mlp", n_layer=2, n_head=1, n_embd=4, head=head)
    none = dict.fromkeys(own, 0) | {"encoding": "column-tikhonov"}
    for n_row, m in ((0, None), (5, 5)):
        flat = {**shared, **none, "architecture": "feedback", "head": "estimate", "n_row": n_row}
        assert ModelConfig(**legacy.convert_model(flat)).head == EstimateConfig(
            encoding="column-tikhonov", n_equations=m
        )
    recipe = {"lr": 1.0, "model": flat, "start": {"name": "x", "recipe": {"model": flat}}}
    converted = legacy.convert_recipe(recipe)
    assert converted["model"] == converted["start"]["recipe"]["model"] == legacy.convert_model(flat)
    assert legacy.convert_recipe(converted) == converted


# ---------------------------------------------------------------- damage


def alter_config(change: Callable[[dict[str, typing.Any]], object]) -> Callable[[Path], None]:
    """Return a damage that edits config.json."""

    def damage(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        change(config)
        (folder / CONFIG).write_text(json.dumps(config))

    return damage


def alter_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Return a damage that edits model.safetensors."""

    def damage(folder: Path) -> None:
        tensors = safetensors.torch.load_file(folder / MODEL)
        change(tensors)
        safetensors.torch.save_file(tensors, folder / MODEL)

    return damage


def rewrite(folder: Path, old: str, new: str) -> None:
    """Replace a text that is in config.json once."""
    text = (folder / CONFIG).read_text()
    assert text.count(old) == 1
    (folder / CONFIG).write_text(text.replace(old, new))


def write(name: str, data: bytes) -> Callable[[Path], None]:
    """Return a damage that replaces a file."""
    return lambda folder: (folder / name).write_bytes(data) and None  # type: ignore[return-value]


WEIGHT = "head.linear.weight"
BAD_NAMES = ["../x", "a/b", "/etc/passwd", "", "x" * 65, ".", "..", "a\nb", "ä", None, 3]

INTEGERS = torch.tensor([[-32767, 0, 1, 32767]], dtype=torch.int16)


def scaled_by(scale: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the weight as scaled integers."""
    return {WEIGHT: INTEGERS, f"{WEIGHT}.scale": scale}


SIGNED_DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "unknown key": (alter_config(lambda c: c.update(zeta=1)), "'zeta' is unknown"),
    "missing key": (alter_config(lambda c: c.pop("family")), "'family' is missing"),
    "no format": (alter_config(lambda c: c.pop("format")), "expected format 1 or 2"),
    "other format": (alter_config(lambda c: c.update(format=3)), "expected format 1 or 2"),
    "unknown model key": (alter_config(lambda c: c["model"].update(zeta=1)), "exactly the keys"),
    "missing model key": (alter_config(lambda c: c["model"].pop("n_layer")), "exactly the keys"),
    "head is a name": (alter_config(lambda c: c["model"].update(head="token")), "head must have exactly the keys"),
    "head is a list": (alter_config(lambda c: c["model"].update(head=[])), "head must be one of"),
    "unknown head": (alter_config(lambda c: c["model"]["head"].update(name="zeta")), "head must be one of"),
    "unknown head key": (alter_config(lambda c: c["model"]["head"].update(zeta=1)), "settings of head 'token' are"),
    "missing head key": (alter_config(lambda c: c["model"]["head"].pop("encoding")), "head must have exactly the keys"),
    "format is true": (alter_config(lambda c: c.update(format=True)), "expected format 1 or 2"),
    "format 1 with new settings": (alter_config(lambda c: c.update(format=1)), "exactly the keys"),
    "model is a list": (alter_config(lambda c: c.update(model=[])), "exactly the keys"),
    "family is a string": (alter_config(lambda c: c.update(family="diffusion")), "family must be an object"),
    "n_layer is text": (alter_config(lambda c: c["model"].update(n_layer="2")), "n_layer must be a whole number"),
    "huge n_layer": (alter_config(lambda c: c["model"].update(n_layer=2**20)), "1048576 layers"),
    "astronomic n_layer": (alter_config(lambda c: c["model"].update(n_layer=10**30)), "n_layer must be"),
    "huge n_embd": (alter_config(lambda c: c["model"].update(n_embd=2**20)), "expected"),
    "huge n": (alter_config(lambda c: c["model"].update(n=2**20)), "expected"),
    "causal is a number": (alter_config(lambda c: c["model"].update(causal=1e300)), "causal must be true or false"),
    "positions is text": (alter_config(lambda c: c["model"].update(positions="no")), "positions must be true or false"),
    "other architecture": (alter_config(lambda c: c["model"].update(architecture="lstm")), "is missing"),
    "not JSON": (write(CONFIG, b"{"), "not valid JSON"),
    "not text": (write(CONFIG, b"\xff\xfe\x00{"), "not valid JSON"),
    "a list": (write(CONFIG, b"[1]"), "expected a JSON object, received list"),
    "NaN": (alter_config(lambda c: c["scores"].update(mse=float("nan"))), "JSON has no NaN"),
    "seconds is text": (alter_config(lambda c: c.update(seconds="9")), "seconds must be a number"),
    "negative seconds": (alter_config(lambda c: c.update(seconds=-1.0)), "seconds must be a number"),
    "threads is true": (alter_config(lambda c: c.update(threads=True)), "threads must be a number"),
    "endless threads": (lambda f: rewrite(f, '"threads": null', '"threads": 1e999'), "threads must be a number"),
    "deep": (write(CONFIG, b'{"a":' * 100_000 + b"}" * 100_000), "not valid JSON"),
    "too long a number": (write(CONFIG, b"9" * 10_000), "not valid JSON"),
    "too large a config": (write(CONFIG, b" " * (2**20 + 1)), "expected at most"),
    "unknown tensor": (alter_tensors(lambda t: t.update(zeta=torch.zeros(1))), "unknown tensor 'zeta'"),
    "missing tensor": (alter_tensors(lambda t: t.pop(WEIGHT)), f"'{WEIGHT}' is missing"),
    "missing buffer": (alter_tensors(lambda t: t.pop("head.scaler.A_mean")), "'head.scaler.A_mean' is missing"),
    "wrong shape": (alter_tensors(lambda t: t.update({WEIGHT: torch.zeros(4)})), "has shape"),
    "wrong dtype": (alter_tensors(lambda t: t.update({WEIGHT: torch.zeros(1, 4).double()})), "has shape"),
    "NaN weight": (alter_tensors(lambda t: t[WEIGHT].__setitem__((0, 1), torch.nan)), "is not finite"),
    "infinite buffer": (alter_tensors(lambda t: t["head.scaler.x_rms"].__setitem__(0, torch.inf)), "is not finite"),
    "integers without a scale": (alter_tensors(lambda t: t.update({WEIGHT: INTEGERS})), "has shape"),
    "scale of other rows": (
        alter_tensors(lambda t: t.update(scaled_by(torch.ones(4)))),
        f"{WEIGHT} has shape",
    ),
    "scale of doubles": (alter_tensors(lambda t: t.update(scaled_by(torch.ones(1).double()))), "has shape"),
    "scale without integers": (alter_tensors(lambda t: t.update({f"{WEIGHT}.scale": torch.ones(1)})), "unknown tensor"),
    "infinite scale": (alter_tensors(lambda t: t.update(scaled_by(torch.tensor([torch.inf])))), "is not finite"),
    "scaled too far": (alter_tensors(lambda t: t.update(scaled_by(torch.tensor([3e38])))), "is not finite"),
    "integers of another shape": (
        alter_tensors(lambda t: t.update({**scaled_by(torch.ones(1)), WEIGHT: INTEGERS[:, :3]})),
        "has shape",
    ),
    "scaled doubles": (
        alter_tensors(
            lambda t: t.update(
                {"head.scaler.A_mean": torch.ones(4, 4, dtype=torch.int16), "head.scaler.A_mean.scale": torch.ones(4)}
            )
        ),
        "head.scaler.A_mean has shape",
    ),
    "empty": (write(MODEL, b""), "not a valid safetensors file"),
    "giant header": (write(MODEL, (2**62).to_bytes(8, "little") + b"{}"), "not a valid safetensors file"),
    "header is no JSON": (write(MODEL, (2).to_bytes(8, "little") + b"{{"), "not a valid safetensors file"),
    "pickle": (write(MODEL, pickle.dumps({"weight": 1})), "not a valid safetensors file"),
    **{f"name {name!r:.8}": (alter_config(lambda c, name=name: c.update(name=name)), "name is") for name in BAD_NAMES},
}


@pytest.mark.parametrize("kind", SIGNED_DAMAGE)
def test_altered_checkpoints_with_good_hashes_are_refused(folder: Path, kind: str) -> None:
    damage, message = SIGNED_DAMAGE[kind]
    damage(folder)
    sign(folder)
    for load in (checkpoint.load, checkpoint.load_network):
        with pytest.raises(CheckpointError, match=re.escape(message)):
            load(folder)


def outside(folder: Path) -> str:
    """A good hash of a file that is not in the folder."""
    (folder.parent / "secret").write_text("secret")
    return hashlib.sha256(b"secret").hexdigest()


UNSIGNED_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "No such file"),
    "no sums": (lambda f: (f / SUMS).unlink(), "No such file"),
    "no model": (lambda f: (f / MODEL).unlink(), "No such file"),
    "no config": (lambda f: (f / CONFIG).unlink(), "No such file"),
    "model is a folder": (lambda f: ((f / MODEL).unlink(), (f / MODEL).mkdir()), "Is a directory"),
    "truncated model": (lambda f: os.truncate(f / MODEL, 1000), "do not match the hash"),
    "truncated config": (lambda f: os.truncate(f / CONFIG, 100), "do not match the hash"),
    "edited config": (alter_config(lambda c: c.update(name="other")), "do not match the hash"),
    "empty sums": (write(SUMS, b"\n"), "expected lines of a hash and a name"),
    "no lines": (lambda f: os.truncate(f / SUMS, 0), f"does not list {MODEL}"),
    "binary sums": (write(SUMS, b"\xff" * 70), "expected ASCII text"),
    "model not listed": (lambda f: (f / SUMS).write_text((f / SUMS).read_text().splitlines()[1]), "does not list"),
    "path in sums": (lambda f: (f / SUMS).write_text(f"{outside(f)}  ../secret\n"), "name is"),
    "absolute path": (lambda f: (f / SUMS).write_text(f"{outside(f)}  {f.parent}/secret\n"), "name is"),
}


@pytest.mark.parametrize("kind", UNSIGNED_DAMAGE)
def test_damaged_folders_are_refused(folder: Path, kind: str) -> None:
    damage, message = UNSIGNED_DAMAGE[kind]
    damage(folder)
    for load in (checkpoint.load, checkpoint.load_network):
        with pytest.raises(CheckpointError, match=re.escape(message)):
            load(folder)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_cannot_be_saved(name: object) -> None:
    with pytest.raises(CheckpointError, match="name is 1 to 64 characters"):
        dataclasses.replace(INFO, name=name)


@pytest.mark.parametrize("resigned", [False, True])
def test_fuzzed_folders_are_refused_or_harmless(tmp_path: Path, folder: Path, resigned: bool) -> None:
    """With the old hashes nothing but the original may load; with new ones nothing that is not finite."""
    original, refused = network(), 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        shutil.copytree(folder, fuzzed := tmp_path / f"{resigned}-{seed}")
        target = fuzzed / (rng.choice([MODEL, CONFIG]) if resigned else rng.choice([MODEL, CONFIG, SUMS]))
        data = bytearray(target.read_bytes())
        if rng.random() < 0.2:
            del data[rng.integers(len(data)) :]
        else:  # most flips into the first part: a safetensors file begins with its header
            for _ in range(rng.integers(1, 4)):
                data[int(len(data) * rng.random() ** 2)] ^= 1 << int(rng.integers(8))
        target.write_bytes(data)
        if resigned:
            sign(fuzzed)
        try:
            loaded, _ = checkpoint.load(fuzzed)
        except CheckpointError:
            refused += 1
        else:
            assert all(torch.isfinite(tensor).all() for tensor in loaded.state_dict().values()), seed
            assert resigned or same_weights(loaded, original), seed
    assert refused >= 50


# ---------------------------------------------------------------- replacing a folder


def test_a_folder_is_replaced(folder: Path) -> None:
    other = network(seed=1)
    checkpoint.save(folder, other, INFO)
    assert same_weights(checkpoint.load(folder)[0], other)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(("function", "nth"), [("fsync", n) for n in range(4)] + [("rename", 0), ("rename", 1)])
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_a_failed_replacement_leaves_the_old_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, function: str, nth: int, error: BaseException
) -> None:
    owner: typing.Any = os if function == "fsync" else Path
    real, calls = getattr(owner, function), iter(range(100))

    def fail(*args: object) -> object:
        if next(calls) == nth:
            raise error
        return real(*args)

    monkeypatch.setattr(owner, function, fail)
    with pytest.raises(type(error)):
        checkpoint.save(folder, network(seed=1), INFO)
    monkeypatch.undo()
    assert same_weights(checkpoint.load(folder)[0], network())
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_failed_first_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(OSError, match="no"):
        checkpoint.save(tmp_path / "tiny", network(), INFO)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- never executed


class Payload:
    """Leaves a mark when unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize("name", [MODEL, CONFIG, SUMS])
def test_pickles_are_not_executed(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    pickle.loads(pickle.dumps(Payload()))
    Path("executed").unlink()  # the payload works
    (folder / name).write_bytes(pickle.dumps(Payload()))
    if name != SUMS:
        sign(folder)
    with pytest.raises(CheckpointError):
        checkpoint.load(folder)
    assert not Path("executed").exists()


def test_the_source_never_unpickles() -> None:
    unpickling = (
        r"(?<!safetensors\.)torch\.load\(|allow_pickle\s*=\s*True|^\s*(import|from) (pickle|shelve|dill|joblib)"
    )
    forbidden = re.compile(unpickling, re.M)
    found = [path.name for path in SOURCE.rglob("*.py") if forbidden.search(path.read_text())]
    assert found == []
    assert forbidden.search("x = torch.load(path)")
    assert forbidden.search("    import pickle")


# ---------------------------------------------------------------- names and folders


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped models with tiny-4 in it."""
    monkeypatch.setattr(checkpoint, "PRETRAINED", tmp_path / "pretrained")
    checkpoint.save(tmp_path / "pretrained" / "tiny-4", network(), INFO)
    return tmp_path / "pretrained"


def test_shipped_names(shipped: Path) -> None:
    shutil.copytree(shipped / "tiny-4", shipped / ".tiny-4.abcd.old")  # what a killed replacement leaves
    (shipped / "empty").mkdir()
    assert checkpoint.pretrained_names() == ["tiny-4"]
    assert checkpoint.resolve("tiny-4") == shipped / "tiny-4"


def test_folders_and_runs(tmp_path: Path, folder: Path) -> None:
    assert checkpoint.resolve(folder) == checkpoint.resolve(str(folder)) == folder
    run = tmp_path / "run"
    for name in ("step-000000900", "step-000001000", ".step-000002000.abcd", ".step-000002000.abcd.old"):
        shutil.copytree(folder, run / name)
    (run / "step-000003000").mkdir()
    (run / "step-999999999").write_text("not a folder")
    assert checkpoint.resolve(run) == run / "step-000001000"
    shutil.copytree(folder, run / "model")
    assert checkpoint.resolve(run) == run / "model"


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        checkpoint.resolve(tmp_path)


@pytest.mark.parametrize("name", ["no-such-model", "tiny-5", "x" * 5000, "a\0b", "../tiny-4"])
def test_unknown_names_list_the_known_ones(shipped: Path, name: str) -> None:
    with pytest.raises(UnknownNameError, match="known: tiny-4"):
        checkpoint.resolve(name)
