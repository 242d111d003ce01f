"""Checkpoints that were damaged or forged: refused with a typed error, or harmless.

A mutation either leaves sha256sums as it was, as damage does, or writes new hashes, as a forger would. What may load
after it is decided so:

- With the old hashes nothing but the original: every listed file has the original's bytes, and the network answers with
  the same bits.
- With new hashes, or a new config.json, a whole checkpoint of another network: every tensor is finite, has the shape
  that its own configuration asks for, and the result of `solve` for a system is measured again and true.

Nothing is executed: some files are pickles that would create a file. Nothing is left half done: the folder holds the
same files as before, and a solver that was loaded earlier, torch's generator and its settings are the same afterwards.
"""

from __future__ import annotations

import hashlib
import json
import struct
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from algebraformer.checkpoint import CONFIG, MODEL, SUMS, load, read_folder, resolve
from algebraformer.errors import CheckpointError
from algebraformer.linalg import STABILITY_FACTOR
from algebraformer.solver import LearnedSolver
from tests import fakes
from tests.stress.base import Check
from tests.stress.certificates import exact_measures

MODELS = ("diffusion-64-token", "diffusion-64")
Files = dict[str, bytes]
Mutation = Callable[[Files, np.random.Generator, Path], Files]


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header of a safetensors file, and the data behind it."""
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def with_header(header: dict[str, Any], data: bytes) -> bytes:
    """Return a safetensors file."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def flipped(data: bytes, rng: np.random.Generator, low: int, high: int) -> bytes:
    """Return data with one to three bits changed between two positions."""
    changed = bytearray(data)
    for at in rng.integers(low, max(high, low + 1), rng.integers(1, 4)):
        changed[min(int(at), len(changed) - 1)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def chosen_tensor(header: dict[str, Any], rng: np.random.Generator) -> str:
    """Return the name of a tensor that has entries."""
    return str(rng.choice(sorted(name for name, entry in header.items() if name != "__metadata__" and entry["shape"])))


def bits_of_weights(files: Files, rng: np.random.Generator, _: Path) -> Files:
    data = files[MODEL]
    return files | {MODEL: flipped(data, rng, 8 + struct.unpack("<Q", data[:8])[0], len(data))}


def bits_of_header(files: Files, rng: np.random.Generator, _: Path) -> Files:
    return files | {MODEL: flipped(files[MODEL], rng, 0, 8 + struct.unpack("<Q", files[MODEL][:8])[0])}


def bits_of_config(files: Files, rng: np.random.Generator, _: Path) -> Files:
    return files | {CONFIG: flipped(files[CONFIG], rng, 0, len(files[CONFIG]))}


def truncated(files: Files, rng: np.random.Generator, _: Path) -> Files:
    name = str(rng.choice([MODEL, CONFIG]))
    return files | {name: files[name][: int(rng.integers(len(files[name])))]}


def longer(files: Files, rng: np.random.Generator, _: Path) -> Files:
    name = str(rng.choice([MODEL, CONFIG]))
    return files | {name: files[name] + rng.bytes(int(rng.integers(1, 100)))}


def wrong_shape(files: Files, rng: np.random.Generator, _: Path) -> Files:
    header, data = header_of(files[MODEL])
    entry = header[chosen_tensor(header, rng)]
    shape = entry["shape"]
    entry["shape"] = [shape[::-1], [1, *shape], [int(np.prod(shape))], [2 * shape[0], *shape[1:]], []][rng.integers(5)]
    return files | {MODEL: with_header(header, data)}


def wrong_dtype(files: Files, rng: np.random.Generator, _: Path) -> Files:
    header, data = header_of(files[MODEL])
    header[chosen_tensor(header, rng)]["dtype"] = str(rng.choice(["F16", "BF16", "F64", "I32", "I64", "BOOL", "X99"]))
    return files | {MODEL: with_header(header, data)}


def wrong_offsets(files: Files, rng: np.random.Generator, _: Path) -> Files:
    header, data = header_of(files[MODEL])
    entry = header[chosen_tensor(header, rng)]
    begin, end = entry["data_offsets"]
    entry["data_offsets"] = [[begin, 2**60], [-1, end], [end, begin], [begin + 4, end + 4], [0, end - begin]][
        rng.integers(5)
    ]
    return files | {MODEL: with_header(header, data)}


def lying_length(files: Files, rng: np.random.Generator, _: Path) -> Files:
    size = (0, 1, 2**20, 2**40, 2**62, 2**64 - 1)[rng.integers(6)]
    return files | {MODEL: struct.pack("<Q", size) + files[MODEL][8:]}


def not_finite(files: Files, rng: np.random.Generator, _: Path) -> Files:
    header, data = header_of(files[MODEL])
    kinds = {"F16": (np.float16, 2), "F32": (np.float32, 4), "F64": (np.float64, 8)}
    names = [name for name, e in header.items() if e.get("dtype") in kinds and np.prod(e["shape"], dtype=int) > 0]
    entry = header[str(rng.choice(sorted(names)))]
    dtype, size = kinds[entry["dtype"]]
    begin, end = entry["data_offsets"]
    at = begin + size * int(rng.integers((end - begin) // size))
    value = np.array(rng.choice([np.nan, np.inf, -np.inf]), dtype).tobytes()
    return files | {MODEL: with_header(header, data[:at] + value + data[at + size :])}


def other_tensor(files: Files, rng: np.random.Generator, _: Path) -> Files:
    header, data = header_of(files[MODEL])
    name = chosen_tensor(header, rng)
    new = str(rng.choice(["../x", "zeta", name + ".", "__class__", "head.linear.weight.0", ""]))
    entry = header[name] if rng.random() < 0.5 else header.pop(name)
    return files | {MODEL: with_header({**header, new: entry}, data)}


def config_key(files: Files, rng: np.random.Generator, _: Path) -> Files:
    config = json.loads(files[CONFIG])
    part = config["model"] if rng.random() < 0.5 else config
    key = str(rng.choice(sorted(part)))
    match rng.integers(4):
        case 0:
            del part[key]
        case 1:
            part[str(rng.choice(["../x", "__class__", "zeta", key.upper()]))] = part[key]
        case 2:
            part[key] = [None, [], {}, "../x", -1, 0, 10**30, 1e300, True, "x" * 1000][rng.integers(10)]
        case 3 if isinstance(part[key], int):
            part[key] = int(part[key]) + int(rng.integers(-2, 3))
    return files | {CONFIG: json.dumps(config).encode()}


def name_that_leads_away(files: Files, rng: np.random.Generator, _: Path) -> Files:
    config = json.loads(files[CONFIG])
    config["name"] = str(rng.choice(["../x", "a/b", "/etc/passwd", "", ".", "..", "a\nb", "x" * 65]))
    return files | {CONFIG: json.dumps(config).encode()}


def listed_elsewhere(files: Files, rng: np.random.Generator, folder: Path) -> Files:
    secret = folder.parent / "secret"
    line = f"{hashlib.sha256(secret.read_bytes()).hexdigest()}  "
    line += str(rng.choice(["../secret", str(secret), "./../secret", "a/../../secret"]))
    lines = files[SUMS].decode().splitlines()
    at = int(rng.integers(len(lines) + 1))
    return files | {SUMS: "\n".join([*lines[:at], line, *lines[at:]]).encode() + b"\n"}


def bits_of_sums(files: Files, rng: np.random.Generator, _: Path) -> Files:
    return files | {SUMS: flipped(files[SUMS], rng, 0, len(files[SUMS]))}


def missing_file(files: Files, rng: np.random.Generator, _: Path) -> Files:
    name = str(rng.choice([MODEL, CONFIG, SUMS]))
    return {key: data for key, data in files.items() if key != name}


def pickled(files: Files, rng: np.random.Generator, folder: Path) -> Files:
    """Protocol 0, by hand: os.system("touch executed"), and a file of PyTorch would do the same."""
    code = b"cos\nsystem\n(S'touch " + str(folder.parent / "executed").encode() + b"'\ntR."
    name = str(rng.choice([MODEL, CONFIG, SUMS]))
    return files | {name: code}


MUTATIONS: dict[str, Mutation] = {
    "bits of weights": bits_of_weights,
    "bits of the header": bits_of_header,
    "bits of config.json": bits_of_config,
    "bits of sha256sums": bits_of_sums,
    "truncated": truncated,
    "longer": longer,
    "wrong shape": wrong_shape,
    "wrong dtype": wrong_dtype,
    "wrong offsets": wrong_offsets,
    "wrong length of the header": lying_length,
    "NaN or infinity": not_finite,
    "other tensors": other_tensor,
    "keys of config.json": config_key,
    "name that leads away": name_that_leads_away,
    "file listed elsewhere": listed_elsewhere,
    "missing file": missing_file,
    "pickle": pickled,
}
KEEPS_SUMS = ("bits of sha256sums", "file listed elsewhere", "missing file")
"""Mutations of the list of hashes itself; the others come with the old hashes or with new ones."""


def hashes(files: Files) -> bytes:
    """Return sha256sums for the files."""
    return "".join(f"{hashlib.sha256(d).hexdigest()}  {n}\n" for n, d in files.items() if n != SUMS).encode()


def check(count: int, models: Sequence[str] = MODELS) -> Check:
    """Load mutated copies of shipped checkpoints."""
    failures: list[str] = []
    counts: Counter[str] = Counter()
    by_kind: dict[str, Counter[str]] = {kind: Counter() for kind in MUTATIONS}
    before = state_outside(models)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        folder = root / "model"
        folder.mkdir()
        (root / "secret").write_text("secret")
        originals = {name: read_folder(resolve(name)) for name in models}
        originals = {name: files | {SUMS: hashes(files)} for name, files in originals.items()}
        for number in range(count):
            rng = np.random.default_rng(number)
            name, kind = models[number % len(models)], str(rng.choice(list(MUTATIONS)))
            files = MUTATIONS[kind](originals[name], rng, folder)
            signed = kind not in KEEPS_SUMS and rng.random() < 0.7 and files[SUMS] == originals[name][SUMS]
            if signed:
                files = files | {SUMS: hashes(files)}
            for old in folder.iterdir():
                old.unlink()
            for file, data in files.items():
                (folder / file).write_bytes(data)
            outcome, wrong = loaded(folder, files, originals[name], signed, fakes.shipped(name))
            by_kind[kind][outcome] += 1
            counts[outcome] += 1
            if {path.name for path in folder.iterdir()} != set(files) or len(list(root.iterdir())) != 2:
                wrong = [*wrong, "files appeared or vanished"]
            failures += [f"{name}, number {number}, {kind}, {'new' if signed else 'old'} hashes: {w}" for w in wrong]
    if state_outside(models) != before:
        failures.append("a solver that was loaded before, or torch's state, is another one")
    claim = "a damaged or forged checkpoint is a CheckpointError, or harmless; nothing is executed or left half done"
    kinds = {kind: dict(counter) for kind, counter in by_kind.items()}
    return Check("checkpoints", claim, count, failures, dict(counts), {"kinds": kinds})


def state_outside(models: Sequence[str]) -> tuple[Any, ...]:
    """Return the bits of the answers of the loaded solvers, and torch's state."""
    A, b = np.eye(64) + 1 / (1 + np.add.outer(np.arange(64), np.arange(64))), np.arange(64.0)
    answers = tuple(fakes.shipped(name).predict(A, b).tobytes() for name in models)
    return answers, torch.get_rng_state().numpy().tobytes(), torch.get_default_dtype(), torch.get_num_threads()


def loaded(folder: Path, files: Files, original: Files, signed: bool, shipped: LearnedSolver) -> tuple[str, list[str]]:
    """Load a folder; return the result and what is wrong with it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model, info = load(folder)
    except CheckpointError as error:
        message = str(error)
        return "refused", [] if message.startswith(("a model's name", str(folder))) else [f"says {message!r:.200}"]
    except Exception as error:  # noqa: BLE001 anything else is what is looked for
        return "another error", [f"{type(error).__name__}: {error}"[:300]]
    states = model.state_dict(), shipped.model.state_dict()
    same = states[0].keys() == states[1].keys() and all(
        torch.equal(t, states[1][name]) for name, t in states[0].items()
    )
    if not signed and files.get(CONFIG) == original[CONFIG] and files.get(MODEL) == original[MODEL]:
        return "loaded, the same network", [] if same else ["other weights from the same bytes"]
    if not signed:
        return "loaded, another network", ["loaded against its hashes"]
    wrong = [f"{name} is not finite" for name, tensor in states[0].items() if not torch.isfinite(tensor).all()]
    n = model.config.n
    A, b = np.eye(n) + np.tri(n) / n, np.ones(n)
    try:
        with np.errstate(all="ignore"):
            result = LearnedSolver(model, info).solve(A, b)
    except Exception as error:  # noqa: BLE001 anything at all is what is looked for
        return "loaded, and of no use", [f"solve: {type(error).__name__}: {error}"[:300]]
    relative, omega, _ = exact_measures(A, b, result.x)
    if not (result.certified and (relative <= 1.01e-10 or omega <= 1.01 * STABILITY_FACTOR * n * np.finfo(float).eps)):
        wrong.append(f"a system is {result.status.name}, with a residual of {float(relative):.1e}")
    return f"loaded, {'the same' if same else 'another'} network", wrong
