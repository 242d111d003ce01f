"""Files that were damaged, forged or made to unpack to far more than they say: refused before memory grows.

Files of all formats are put together here byte by byte. `check` reads them in a process of its own and watches its
resident memory, which counts what zlib takes as well.
"""

from __future__ import annotations

import gzip
import io
import json
import resource
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse
from numpy.typing import NDArray

from algebraformer.errors import InputFormatError
from algebraformer.io import read_array
from tests.stress.base import Check

BANNER = "%%MatrixMarket matrix "
MEGABYTE = 2**20
RANDOM = np.random.default_rng(1).standard_normal((5, 5))
BOMB = 150
"""Megabytes a bomb would unpack to."""
GROWTH = 100
"""Megabytes that memory may grow by."""
SUFFIXES = (".npy", ".npz", ".mtx", ".mtx.gz", ".mat")
PROMISED = 2**40
"""Entries that forged headers promise."""


def held(write: Callable[..., Any], *arguments: Any, **options: Any) -> bytes:
    """Return the bytes a NumPy or SciPy writer produces."""
    stream = io.BytesIO()
    write(stream, *arguments, **options)
    return stream.getvalue()


# ---------------------------------------------------------------- .npy


def npy_with(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """Return a .npy file with any header."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + data


def npy_header(descr: str = "'<f8'", shape: str = "(2, 2)", order: str = "False") -> str:
    """Return the header of a .npy file."""
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


# ---------------------------------------------------------------- .mat


def mat5_part(kind: int, data: bytes) -> bytes:
    """Return a tagged part of a MATLAB 5 file."""
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def mat5_element(
    dims: tuple[int, ...], *parts: tuple[int, bytes], kind: int = 6, name: bytes = b"x", flags: int = 0
) -> bytes:
    """Return a matrix element of a MATLAB 5 file; the parts are pairs of type and bytes."""
    content = mat5_part(6, struct.pack("<II", kind | flags, 1)) + mat5_part(5, np.array(dims, "<i4").tobytes())
    content += mat5_part(1, name) + b"".join(mat5_part(*part) for part in parts)
    return struct.pack("<II", 14, len(content)) + content


def mat5_struct(*fields: bytes) -> bytes:
    """Return a struct s with these matrix elements as its fields A, B, ..., however long they say they are."""
    names = b"".join(bytes([65 + k, 0, 0, 0]) for k in range(len(fields)))
    content = mat5_part(6, struct.pack("<II", 2, 0)) + mat5_part(5, struct.pack("<ii", 1, 1)) + mat5_part(1, b"s")
    content += struct.pack("<HHi", 5, 4, 4) + mat5_part(1, names) + b"".join(fields)
    return struct.pack("<II", 14, max(len(content), BOMB * MEGABYTE)) + content


def mat5(*elements: bytes, version: bytes = b"\0\1IM") -> bytes:
    """Return a MATLAB 5 file."""
    return b"MATLAB 5.0 MAT-file".ljust(124) + version + b"".join(elements)


def doubles(*values: float) -> tuple[int, bytes]:
    """Return a part of numbers."""
    return 9, np.array(values, "<f8").tobytes()


GOOD_MAT = mat5_element((2, 2), doubles(1, 2, 3, 4))

# ---------------------------------------------------------------- bombs


def deflated(first: bytes, block: bytes, wbits: int) -> bytes:
    """Return `first` and then a block many times, compressed, without ever holding or packing all of it.

    After a full flush nothing refers back, so the compressed block can be repeated; only the checksum is missing.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    start = packer.compress(first) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + (packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)) * BOMB


def zip_bomb(first: bytes, declared: int | None = None) -> bytes:
    """Return a .npz whose one member unpacks to 150 MB; the directory may declare another size."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as member:
            member.write(first)
            for _ in range(BOMB):
                member.write(bytes(MEGABYTE))
        if declared is not None:
            archive.getinfo("x.npy").file_size = declared
    return stream.getvalue()


def mat_bomb(element: bytes) -> bytes:
    """Return a compressed .mat file that begins with an element."""
    packed = deflated(element, bytes(MEGABYTE), wbits=15)
    return mat5(struct.pack("<II", 15, len(packed)) + packed)


def gz_bomb(first: str, block: bytes) -> bytes:
    """Return a compressed text."""
    return deflated(first.encode(), block * (MEGABYTE // len(block)), wbits=31)


def bombs() -> dict[str, bytes]:
    """Return small files that unpack to 150 MB."""
    small = npy_with(npy_header())
    text = BANNER + "array real general\n2 2\n"
    promised = mat5_element((BOMB * MEGABYTE // 8, 1), (9, b""))[:-4] + struct.pack("<I", BOMB * MEGABYTE)
    field = mat5_struct(struct.pack("<II", 14, BOMB * MEGABYTE) + GOOD_MAT[8:])
    indices = {"format": b"coo", "shape": (2, 2), "data": np.ones(1), "row": np.zeros(BOMB * MEGABYTE // 8, np.int64)}
    return {
        "header.npz": zip_bomb(npy_with(npy_header(shape=f"({BOMB}, {MEGABYTE // 8})"))),
        "longer-than-header.npz": zip_bomb(small),
        "lying-directory.npz": zip_bomb(small, declared=len(small) + 32),
        "long-line.mtx.gz": gz_bomb(text, b"1"),
        "blank-lines.mtx.gz": gz_bomb(text, b"\n"),
        "entries.mtx.gz": gz_bomb(text, b"1\n"),
        "comments.mtx.gz": gz_bomb(BANNER + "array real general\n", b"%\n"),
        "zeros.mtx.gz": gz_bomb("", b"\0"),
        "header.mat": mat_bomb(promised),
        "element.mat": mat_bomb(struct.pack("<II", 14, BOMB * MEGABYTE) + GOOD_MAT[8:]),
        "longer-than-element.mat": mat_bomb(GOOD_MAT),
        "zeros.mat": mat_bomb(b""),
        "field.mat": mat_bomb(field),
        "sparse.npz": held(np.savez_compressed, col=np.zeros(1, np.int64), **indices),
    }


def forged() -> dict[str, bytes]:
    """Return files whose headers promise what is not there: far too much, less than nothing, or other types."""
    line = f"{PROMISED} {PROMISED}"
    npz = held(np.savez, x=RANDOM)
    four = held(scipy.io.savemat, {"x": RANDOM}, format="4")
    return {
        "entries.npy": npy_with(npy_header(shape=f"({PROMISED}, {PROMISED})")),
        "negative.npy": npy_with(npy_header(shape="(-1, 2)")),
        "objects.npy": npy_with(npy_header(descr="'|O'"), bytes(32)),
        "code.npy": npy_with("__import__('os').abort()"),
        "header.npy": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1),
        "entries.npz": npz.replace(b"'shape': (5, 5)", b"'shape': (9e9,)"),
        "sparse.npz": held(np.savez, format="csr", shape=(PROMISED, PROMISED), data=[1.0], indices=[0], indptr=[0, 1]),
        "directory.npz": npz[:-10] + b"\xff" * 10,
        "array.mtx": f"{BANNER}array real general\n{line}\n".encode(),
        "coordinate.mtx": f"{BANNER}coordinate real general\n{line} {PROMISED}\n".encode(),
        "sparse.mtx": f"{BANNER}coordinate real general\n{line} 1\n1 1 1.0\n".encode(),
        "digits.mtx": f"{BANNER}array real general\n{'9' * 5000} 1\n".encode(),
        "array.mtx.gz": gzip.compress(f"{BANNER}array real general\n{line}\n".encode()),
        "dimensions.mat": mat5(mat5_element((2**31 - 1, 2**31 - 1), doubles(1, 2, 3, 4))),
        "negative.mat": mat5(mat5_element((-2, -2), doubles(1, 2, 3, 4))),
        "element.mat": mat5(struct.pack("<II", 14, 2**32 - 8) + GOOD_MAT[8:]),
        "four.mat": four[:4] + struct.pack("<II", 2**31 - 1, 2**31 - 1) + four[12:],
    }


# ---------------------------------------------------------------- damage


def fuzz_seeds() -> dict[str, bytes]:
    """Return one small valid file of each kind, as the other libraries write them."""
    sparse = scipy.sparse.coo_array(RANDOM * (RANDOM > 0))
    text = held(scipy.io.mmwrite, RANDOM, precision=17)
    cells = np.array([[1, "two"]], dtype=object)
    fields = {"title": "text", "A": RANDOM, "notes": cells, "aux": {"kind": "text"}}
    return {
        "x.npy": held(np.save, RANDOM),
        "stored.npz": held(np.savez, x=RANDOM),
        "deflated.npz": held(np.savez_compressed, x=RANDOM),
        "array.mtx": text,
        "sparse.mtx": held(scipy.io.mmwrite, sparse),
        "symmetric.mtx": held(scipy.io.mmwrite, RANDOM + RANDOM.T, symmetry="symmetric"),
        "complex.mtx": held(scipy.io.mmwrite, scipy.sparse.coo_array(RANDOM * (1 + 1j))),
        "x.mtx.gz": gzip.compress(text),
        "five.mat": held(scipy.io.savemat, {"x": RANDOM, "note": "text"}),
        "compressed.mat": held(scipy.io.savemat, {"x": RANDOM}, do_compression=True),
        "sparse.mat": held(scipy.io.savemat, {"x": sparse.tocsc()}),
        "complex.mat": held(scipy.io.savemat, {"x": RANDOM * 1j}),
        "four.mat": held(scipy.io.savemat, {"x": RANDOM}, format="4"),
        "struct.mat": held(scipy.io.savemat, {"Problem": fields}),
        "struct-compressed.mat": held(
            scipy.io.savemat, {"Problem": fields | {"A": sparse.tocsc()}}, do_compression=True
        ),
        **{f"{kind}.npz": held(scipy.sparse.save_npz, sparse.asformat(kind)) for kind in ("csr", "coo", "bsr", "dia")},
        "csc.npz": held(scipy.sparse.save_npz, sparse.tocsc(), compressed=False),
        "sparse-four.mat": held(scipy.io.savemat, {"x": sparse.tocsc()}, format="4"),
    }


def mutations(content: bytes, rng: np.random.Generator, truncations: int = 40, flips: int = 200) -> Iterator[bytes]:
    """Yield the content cut short, and with a few bytes changed: anywhere, or where headers are."""
    for end in np.unique(np.linspace(0, len(content) - 1, truncations).astype(int)):
        yield content[:end]
    for k in range(flips):
        changed = bytearray(content)
        reach = len(content) if k % 2 else min(len(content), 200)
        for at in rng.integers(0, reach, size=rng.integers(1, 4)):
            changed[at] = rng.choice([0, 1, 45, 48, 57, 127, 128, 255]) if k % 4 < 2 else rng.integers(256)
        yield bytes(changed)


def read_or_refused(path: Path, max_bytes: int = MEGABYTE) -> tuple[NDArray[Any] | None, list[str]]:
    """Return the numbers in a file, None if it is refused in one line, and whatever else happened."""
    wrong = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            got = read_array(path, max_bytes=max_bytes)
        except InputFormatError as problem:
            got, message = None, str(problem)
            if not (message.startswith(f"{path}: ") and message.isprintable()):
                wrong.append(f"says {message!r:.200}")
        except Exception as error:  # noqa: BLE001 anything else is what is looked for
            return None, [f"{type(error).__name__}: {error}"[:300]]
    wrong += [f"warns: {w.message}" for w in caught]
    if got is not None and (got.dtype.kind not in "biufc" or got.nbytes > max_bytes):
        wrong.append(f"gives {got.nbytes} bytes of {got.dtype}")
    return got, wrong


# ---------------------------------------------------------------- the check


def resident() -> float:
    """Return the largest resident memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else MEGABYTE)


def attack(flips: int, garbage: int) -> dict[str, Any]:
    """Read all of it in this process; return counts, failures and by how many megabytes memory grew."""
    failures: list[str] = []
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        root, hostile, seeds = Path(folder), {"bomb": bombs(), "forged": forged()}, fuzz_seeds()
        for name, content in seeds.items():  # what is set up once is there before the measurement
            (root / name).write_bytes(content)
            read_array(root / name)
        before = resident()

        def tried(kind: str, name: str, content: bytes, must_fail: bool, max_bytes: int = MEGABYTE) -> None:
            path = root / name
            path.write_bytes(content)
            got, wrong = read_or_refused(path, max_bytes)
            counts[f"{kind}: {'refused' if got is None else 'read'}"] += 1
            if must_fail and got is not None:
                wrong.append("is read")
            if resident() - before > GROWTH:
                wrong.append(f"memory grew by {resident() - before:.0f} MB")
            failures.extend(f"{kind} {name}: {text}" for text in wrong)

        for kind, files in hostile.items():
            for name, content in files.items():
                tried(kind, name, content, True, 50 * MEGABYTE)
        for name, content in seeds.items():
            for damaged in mutations(content, np.random.default_rng(zlib.crc32(name.encode())), flips=flips):
                tried("damaged", name, damaged, False)
        rng = np.random.default_rng(0)
        for suffix in SUFFIXES:
            for _ in range(garbage):
                tried("garbage", f"x{suffix}", rng.bytes(int(rng.integers(300))), False)
        return {"failures": failures, "counts": dict(counts), "growth": resident() - before}


def check(flips: int, garbage: int) -> Check:
    """Read bombs, forged, damaged and random files in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", __name__, str(flips), str(garbage)], capture_output=True, text=True, check=False
    )
    if run.returncode != 0:
        found: dict[str, Any] = {"failures": [f"the process ended: {run.stderr[-500:]}"], "counts": {}, "growth": 0.0}
    else:
        found = json.loads(run.stdout)
    counts = found["counts"]
    claim = f"files of every format are read or InputFormatError, before memory grows by {GROWTH} MB"
    data = {"growth_mb": found["growth"]}
    return Check("files", claim, sum(counts.values()), found["failures"], counts, data)


if __name__ == "__main__":
    print(json.dumps(attack(*map(int, sys.argv[1:]))))
