"""Checkpoints: one folder with model.safetensors, config.json and sha256sums.

A folder appears whole or not at all: it is written under a temporary name, flushed to the disk and renamed. Loading
is strict and never executes anything from the file; whatever is wrong with a folder is a `CheckpointError`, and
nothing of it has been loaded then.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from algebraformer.errors import CheckpointError, ConfigurationError, UnknownNameError
from algebraformer.extras import require_torch
from algebraformer.models import HeadConfig, ModelConfig, NumpyNetwork, legacy
from algebraformer.models.inference.answers import AnyNetwork
from algebraformer.models.inference.network import has_numpy_form
from algebraformer.models.own_modules import own_modules, unregistered
from algebraformer.problems import ProblemFamily, from_settings, names
from algebraformer.problems.custom import PREFIX
from algebraformer.provenance import commit, versions

if TYPE_CHECKING:
    from algebraformer.models.network import Algebraformer

Arrays = dict[str, NDArray[Any]]

FORMAT = 2
"""Format of new checkpoints; those of format 1 can be read, see `models.legacy`."""
MODEL, CONFIG, SUMS = "model.safetensors", "config.json", "sha256sums"
MAX_CONFIG_BYTES = 2**20
MAX_MODEL_BYTES = 2**32
OPTIONAL = ("seconds", "threads")
"""Keys of config.json that older checkpoints do not have."""
MODULES = "modules"
"""Key of config.json with the modules that register the body, encoding or head of a network that has one of its own."""
SCALE = ".scale"
"""Tensors that are stored as 16-bit integers have their scales beside them, under their own name and this."""
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
MISSING = (
    "the model {} was trained on a family that is not registered here: import the module that registers it, or, on the "
    "command line, name its file with --family FILE.py:NAME"
)
PRETRAINED = Path(__file__).parent / "pretrained"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What config.json says beside the architecture."""

    name: str
    """[A-Za-z0-9._-]{1,64}"""
    family: dict[str, Any]
    """Settings of the family the network was trained on; `problems.from_settings` reads them."""
    recipe: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The resolved recipe of the training run."""
    scores: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Scores on the frozen test set."""
    seconds: float | None = None
    """Seconds that the steps of the training run took, all of its starts together; None if unknown."""
    threads: int | None = None
    """Threads of torch in that run."""
    commit: str | None = dataclasses.field(default_factory=commit)
    versions: dict[str, str] = dataclasses.field(default_factory=versions)

    def __post_init__(self) -> None:
        check_name(self.name)

    def problem_family(self) -> ProblemFamily:
        """Return the family the network was trained on.

        Raises `UnknownNameError` if the family is not registered in this process: it is a user's own.
        """
        try:
            return from_settings(self.family)
        except UnknownNameError as error:
            raise UnknownNameError(
                "family", str(self.family.get("name")), names(), MISSING.format(self.name)
            ) from error

    @functools.cached_property
    def is_linear_system(self) -> bool:
        """Whether x of its family solves A x = b, as far as this process knows the family."""
        try:
            return self.problem_family().is_linear_system
        except (UnknownNameError, ConfigurationError):
            return True

    @functools.cached_property
    def structure(self) -> str:
        """`ProblemFamily.structure` of its family; "gen" where this process does not know the family."""
        try:
            return self.problem_family().structure
        except (UnknownNameError, ConfigurationError):
            return "gen"

    def unsupported_reason(self, head: HeadConfig) -> str:
        """Return why a model with this head does not solve systems, to follow its name; empty if it solves them."""
        if head.unsupported_reason:
            return head.unsupported_reason
        if not self.is_linear_system:
            family = self.family.get("name")
            return f"learned {family}, where x does not solve A x = b: use predict, or newton.minimize_lp"
        return ""


def check_name(name: object) -> str:
    """Return the name if it is one a checkpoint may have, else raise `CheckpointError`."""
    if not (isinstance(name, str) and NAME.fullmatch(name)) or set(name) == {"."}:
        raise CheckpointError(f"a model's name is 1 to 64 characters of A-Z a-z 0-9 . _ -, received {name!r:.80}")
    return name


def sync_directory(folder: Path) -> None:
    """Flush a directory's entries to the disk, where the system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with naming(folder):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError from inside the name of the file if it has none: writing to a full disk raises one without."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder that appears whole or not at all, with the hashes of its files in sha256sums.

    An older folder of that name is replaced; if the process dies between the two renames of a replacement, the older
    one survives beside it under a name that starts with a dot.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
        for name, data in {**files, SUMS: sums.encode()}.items():
            with naming(folder / name), (temporary / name).open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        temporary.chmod(0o755)
        sync_directory(temporary)
        if folder.exists():
            aside = folder.with_name(f"{temporary.name}.old")
            folder.rename(aside)
            try:
                temporary.rename(folder)
            except BaseException:
                aside.rename(folder)
                raise
            shutil.rmtree(aside)
        else:
            temporary.rename(folder)
        sync_directory(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return the files that sha256sums lists, each checked against its hash."""
    folder = Path(folder)
    try:
        listed = read_limited(folder / SUMS, MAX_CONFIG_BYTES).decode("ascii")
        files = {}
        for line in listed.splitlines():
            digest, _, name = line.partition("  ")
            if not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise CheckpointError(f"{folder / SUMS}: expected lines of a hash and a name, received {line!r:.100}")
            limit = MAX_CONFIG_BYTES if name.endswith(".json") else MAX_MODEL_BYTES
            data = read_limited(folder / check_name(name), limit)
            if hashlib.sha256(data).hexdigest() != digest:
                raise CheckpointError(f"{folder / name}: its contents do not match the hash in {SUMS}")
            files[name] = data
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{folder / SUMS}: expected ASCII text") from error
    if missing := [name for name in (MODEL, CONFIG) if name not in files]:
        raise CheckpointError(f"{folder}: {SUMS} does not list {missing[0]}")
    return files


def read_limited(path: Path, limit: int) -> bytes:
    """Return a file's bytes, at most `limit` of them."""
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > limit:
                raise CheckpointError(f"{path}: {size} bytes, expected at most {limit}")
            return stream.read(limit)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in `data`."""

    def refuse(constant: str) -> None:
        raise ValueError(f"JSON has no {constant}")

    try:
        value = json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: expected a JSON object, received {type(value).__name__}")
    return value


def dump_json(value: Mapping[str, Any]) -> bytes:
    """Return JSON that a person can read."""
    return (json.dumps(value, indent=1, sort_keys=False, allow_nan=False) + "\n").encode()


def pack(model: AnyNetwork, info: CheckpointInfo) -> dict[str, bytes]:
    """Return the files of a checkpoint as name: bytes."""
    config = {"format": FORMAT, "model": model.config.settings(), **dataclasses.asdict(info)}
    if modules := own_modules(model.config):
        config[MODULES] = modules
    return {MODEL: safetensors.numpy.save(arrays_of(model)), CONFIG: dump_json(config)}


def arrays_of(model: AnyNetwork) -> Arrays:
    """Return parameters and buffers of a network by name."""
    if isinstance(model, NumpyNetwork):
        return dict(model.arrays)
    tensors = as_module(model).state_dict()
    return {name: np.asarray(tensor.numpy(force=True), order="C") for name, tensor in tensors.items()}


def save(folder: Path | str, model: AnyNetwork, info: CheckpointInfo) -> None:
    """Write a checkpoint folder, atomically.

    Parameters
    ----------
    folder : path
        Where to; a folder of that name is replaced.
    model : Algebraformer or NumpyNetwork
    info : CheckpointInfo

    Raises
    ------
    ConfigurationError
        The network is a module of one's own: a checkpoint holds no code.
    """
    write_folder(Path(folder), pack(model, info))


def load(folder: Path | str) -> tuple[Algebraformer, CheckpointInfo]:
    """Read a checkpoint folder, to train, fine-tune or change the network: as a module of torch.

    Parameters
    ----------
    folder : path

    Returns
    -------
    model : Algebraformer
        On the CPU, in evaluation mode.
    info : CheckpointInfo

    Raises
    ------
    CheckpointError
        Something is missing, damaged, altered, unknown or not finite; the message says what.
    MissingExtraError
        There is no torch here.
    """
    return unpack(read_folder(Path(folder)), str(folder))


def load_network(folder: Path | str) -> tuple[AnyNetwork, CheckpointInfo]:
    """Read a checkpoint folder, to solve: without torch, if `inference.network.has_numpy_form` says so.

    A head of one's own answers through torch, and so does a body of one's own that is registered in torch alone.

    Parameters, results and exceptions are those of `load`; the network is a `NumpyNetwork` where it can be one.
    """
    files, where = read_folder(Path(folder)), str(folder)
    config, arrays, info = parse(files, where)
    if not has_numpy_form(config):
        return _module(config, arrays, where), info
    try:
        return NumpyNetwork(config, arrays), info
    except ConfigurationError as error:
        raise CheckpointError(f"{where}/{MODEL}: {error}") from error


def unpack(files: Mapping[str, bytes], where: str) -> tuple[Algebraformer, CheckpointInfo]:
    """Return model and info from the files of a checkpoint; `where` names it in messages."""
    config, arrays, info = parse(files, where)
    return _module(config, arrays, where), info


def parse(files: Mapping[str, bytes], where: str) -> tuple[ModelConfig, Arrays, CheckpointInfo]:
    """Return configuration, arrays and info from the files of a checkpoint; the arrays are finite."""
    settings = parse_json(files[CONFIG], f"{where}/{CONFIG}")
    old = settings.get("format") == 1
    config, info = parse_config(settings, f"{where}/{CONFIG}")
    arrays = widened(parse_arrays(files[MODEL], f"{where}/{MODEL}"))
    if old:
        arrays = legacy.convert_tensors(arrays, config.head.name)
    arrays = legacy.completed_tensors(arrays, config.head.name)
    if config.n_layer > len(arrays):  # before a hostile configuration builds a million blocks
        raise CheckpointError(f"{where}: config.json says {config.n_layer} layers, the file has {len(arrays)} tensors")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CheckpointError(f"{where}/{MODEL}: {name} is not finite")
    return config, arrays, info


def as_module(model: AnyNetwork) -> Algebraformer:
    """Return a network as a module of torch: itself, or a copy; `ConfigurationError` for a module of one's own."""
    if isinstance(model, NumpyNetwork):
        return _module(model.config, model.arrays, "")
    model.config.settings()  # which a module of one's own does not have
    return cast("Algebraformer", model)


def _module(config: ModelConfig, arrays: Mapping[str, NDArray[Any]], where: str) -> Algebraformer:
    """Return the network as a module of torch; `CheckpointError` if the arrays are not its parameters and buffers."""
    require_torch("a network that is trained, changed or on another device")
    from algebraformer.models.network import from_arrays

    try:
        return from_arrays(config, arrays)
    except ConfigurationError as error:
        raise CheckpointError(f"{where}/{MODEL}: {error}") from error


def parse_config(settings: dict[str, Any], where: str) -> tuple[ModelConfig, CheckpointInfo]:
    """Return architecture and info from config.json; unknown and missing keys are errors, but for `OPTIONAL` ones."""
    settings = dict.fromkeys(OPTIONAL) | settings
    modules = settings.pop(MODULES, {})
    if not isinstance(modules, dict) or not all(isinstance(module, str) for module in modules.values()):
        raise CheckpointError(f"{where}: {MODULES} must be an object with texts")
    version = settings.pop("format", None)
    if type(version) is not int or version not in (1, FORMAT):
        raise CheckpointError(f"{where}: expected format 1 or {FORMAT}, received {version!r:.80}")
    fields = {field.name for field in dataclasses.fields(CheckpointInfo)} | {"model"}
    if set(settings) != fields:
        odd = sorted(set(settings) ^ fields)[0]
        raise CheckpointError(f"{where}: key {odd!r:.80} is {'missing' if odd in fields else 'unknown'}")
    model = settings.pop("model")
    known = legacy.FIELDS if version == 1 else {field.name for field in dataclasses.fields(ModelConfig)}
    if not isinstance(model, dict) or set(model) != known:
        raise CheckpointError(f"{where}: model must have exactly the keys {', '.join(sorted(known))}")
    for what, value, module in unregistered(model, modules):
        owner = "the script that registers it" if module == "__main__" else f"{module.removeprefix(PREFIX):.200}"
        raise CheckpointError(
            f"{where}: the {what} {value!r:.80} is not registered in this process: import {owner} first; on the "
            "command line, name its file with --family FILE.py:NAME"
        )
    for name in ("family", "recipe", "scores", "versions"):
        if not isinstance(settings[name], dict):
            raise CheckpointError(f"{where}: {name} must be an object, received {type(settings[name]).__name__}")
    for name in OPTIONAL:
        value = settings[name]
        if value is not None and (type(value) not in (int, float) or not 0 <= value < math.inf):
            raise CheckpointError(f"{where}: {name} must be a number >= 0 or null, received {value!r:.80}")
    try:
        if version == 1:
            model, settings["recipe"] = legacy.convert_model(model), legacy.convert_recipe(settings["recipe"])
        config = ModelConfig(**model)
        needed = set(config.head.settings()) - set(config.head.added)
        if not (isinstance(model["head"], dict) and needed <= set(model["head"])):
            raise ConfigurationError(f"head must have exactly the keys {', '.join(config.head.settings())}")
        return config, CheckpointInfo(**settings)
    except (ConfigurationError, TypeError, KeyError) as error:
        raise CheckpointError(f"{where}: {error}") from error


def parse_arrays(data: bytes, where: str) -> Arrays:
    """Return the arrays of a safetensors file."""
    try:
        # Copies: the file may place arrays at any byte, which NumPy and BLAS read slowly.
        return {name: array.copy() for name, array in safetensors.numpy.load(data).items()}
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{where}: not a valid safetensors file ({' '.join(str(error).split())})") from error


def widened(arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return the arrays with scaled integers as the float32 they stand for: scale Q, one scale per first index.

    Q is int16 of shape (rows, ...), its scale float32 of shape (rows,). Any other pair is left as it is, and then is no
    tensor of a model.
    """
    found = dict(arrays)
    for name, Q in arrays.items():
        scale = arrays.get(name + SCALE)
        if scale is None or (Q.dtype, scale.dtype, scale.shape) != (np.int16, np.float32, Q.shape[:1]):
            continue
        del found[name + SCALE]
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused later
            found[name] = Q * scale.reshape(-1, *[1] * (Q.ndim - 1))
    return found


def pretrained_names() -> list[str]:
    """Return the names of the models that ship with the package."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"[!.]*/{CONFIG}"))


def solver_names() -> list[str]:
    """Return those of `pretrained_names()` that a `LearnedSolver` loads: networks of instruments read measurements."""
    return [name for name in pretrained_names() if _config(PRETRAINED / name / CONFIG).head.reads_systems]


def _config(path: Path) -> ModelConfig:
    return parse_config(parse_json(path.read_bytes(), str(path)), str(path))[0]


def resolve(name_or_folder: str | Path) -> Path:
    """Return the folder of a shipped model, a checkpoint folder, or the newest checkpoint of a training run."""
    if isinstance(name_or_folder, str) and name_or_folder in pretrained_names():
        return PRETRAINED / name_or_folder
    folder = Path(name_or_folder)
    try:
        exists = folder.is_dir()
    except OSError:  # longer than a name may be
        exists = False
    if not exists:
        raise UnknownNameError("model or checkpoint folder", str(name_or_folder), pretrained_names())
    candidates = [folder, folder / "model", *step_folders(folder)]
    found = next((candidate for candidate in candidates if (candidate / CONFIG).exists()), None)
    if found is None:
        raise CheckpointError(f"{folder}: no checkpoint here (expected {CONFIG}, a folder model/ or folders step-*)")
    return found


def step_folders(run: Path) -> list[Path]:
    """Return the checkpoint folders of a training run, newest first."""
    return sorted((p for p in run.glob("step-*") if p.is_dir()), reverse=True)


def finite_scores(scores: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Yield scores rounded to four digits, leaving out what is not finite: JSON has no infinity."""
    for key, value in scores.items():
        if math.isfinite(value):
            yield key, float(f"{value:.4g}")
