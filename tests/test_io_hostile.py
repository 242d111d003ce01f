"""Files of all formats that unpack to far more than they say, and files damaged at random."""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
import sys
import tempfile
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from algebraformer.errors import InputFormatError
from algebraformer.io import read_array
from files import (
    BANNER,
    GOOD_MAT,
    MEGABYTE,
    RANDOM,
    SUFFIXES,
    held,
    mat5,
    mat5_element,
    npy_header,
    npy_with,
    quick,
    refused,
)

# ------------------------------------------------------------------------------------------------------------ bombs

ZEROS = bytes(MEGABYTE)
BOMB = 150  # megabytes it would unpack to


def deflated(first, block, wbits):
    """Return `first` and then a block 150 times, compressed, without ever holding or packing all of it.

    After a full flush nothing refers back, so the compressed block can be repeated; only the checksum is missing.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    start = packer.compress(first) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + (packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)) * BOMB


def zip_bomb(first, declared=None):
    """Return a .npz whose one member unpacks to 150 MB; the directory may declare another size."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as member:
            member.write(first)
            for _ in range(BOMB):
                member.write(ZEROS)
        if declared is not None:
            archive.getinfo("x.npy").file_size = declared
    return stream.getvalue()


def mat_bomb(element):
    packed = deflated(element, ZEROS, wbits=15)
    return mat5(struct.pack("<II", 15, len(packed)) + packed)


def gz_bomb(first, block):
    return deflated(first.encode(), block * (MEGABYTE // len(block)), wbits=31)


def bombs():
    small = npy_with(npy_header())
    text = BANNER + "array real general\n2 2\n"
    promised = mat5_element((BOMB * MEGABYTE // 8, 1), (9, b""))[:-4] + struct.pack("<I", BOMB * MEGABYTE)
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
    }


@pytest.fixture(scope="module")
def bomb_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bombs")
    for name, content in bombs().items():
        assert len(content) < 2 * MEGABYTE
        (folder / name).write_bytes(content)
    return folder


def test_bombs_do_not_go_off(bomb_folder):
    paths = sorted(bomb_folder.iterdir())
    assert len(paths) == 12
    for path in paths:
        tracemalloc.start()
        refused(path, "expected", max_bytes=50 * MEGABYTE)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10 * MEGABYTE, path.name


WATCH = """
import pathlib, resource, sys
from algebraformer.errors import InputFormatError
from algebraformer.io import read_array
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform != "darwin" else 2**20)
before = peak()
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        read_array(path, max_bytes=50 * 2**20)
    except InputFormatError:
        print(path.name, peak() - before)
"""


def test_bombs_do_not_go_off_where_python_cannot_see(bomb_folder):
    """zlib's own memory is invisible to tracemalloc: the resident memory of a fresh process counts everything."""
    run = subprocess.run([sys.executable, "-c", WATCH, bomb_folder], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    growth = {line.split()[0]: int(line.split()[1]) for line in run.stdout.splitlines()}
    assert len(growth) == 12
    assert max(growth.values()) < 100


# ------------------------------------------------------------------------------------------------------------- fuzz


def fuzz_seeds():
    """Return one small valid file of each kind, as the other libraries write them."""
    sparse = scipy.sparse.coo_array(RANDOM * (RANDOM > 0))
    text = held(scipy.io.mmwrite, RANDOM, precision=17)
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
        "sparse-four.mat": held(scipy.io.savemat, {"x": sparse.tocsc()}, format="4"),
    }


def mutations(content, rng, truncations=40, flips=200):
    """Yield the content cut short, and with a few bytes changed: anywhere, or where headers are."""
    for end in np.unique(np.linspace(0, len(content) - 1, truncations).astype(int)):
        yield content[:end]
    for k in range(flips):
        changed = bytearray(content)
        reach = len(content) if k % 2 else min(len(content), 200)
        for at in rng.integers(0, reach, size=rng.integers(1, 4)):
            changed[at] = rng.choice([0, 1, 45, 48, 57, 127, 128, 255]) if k % 4 < 2 else rng.integers(256)
        yield bytes(changed)


def read_or_refused(path):
    """Return the numbers in a file, None if it is refused in one line; nothing else may happen."""
    try:
        got = read_array(path, max_bytes=MEGABYTE)
    except InputFormatError as problem:
        message = str(problem)
    else:
        assert got.dtype.kind in "biufc"
        return got
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return None


@pytest.mark.parametrize("name", fuzz_seeds())
def test_damaged_files_are_read_or_refused(name, tmp_path):
    content = fuzz_seeds()[name]
    path = tmp_path / name
    path.write_bytes(content)
    assert read_array(path).shape == (5, 5)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    answers = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for damaged in mutations(content, rng):
            path.write_bytes(damaged)
            answers.append(read_or_refused(path))
    assert sum(got is None for got in answers) >= 40
    assert all(got is None or got.nbytes <= MEGABYTE for got in answers)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(content=st.binary(max_size=300))
@quick
def test_any_bytes_are_read_or_refused(suffix, content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        path.write_bytes(content)
        read_or_refused(path)
