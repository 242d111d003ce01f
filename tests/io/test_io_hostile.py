"""Files of all formats that unpack to far more than they say, and files damaged at random."""

from __future__ import annotations

import tempfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from algebraformer.io import read_array
from files import quick, refused
from tests.stress.files import MEGABYTE, SUFFIXES, bombs, fuzz_seeds, mutations, read_or_refused

# ------------------------------------------------------------------------------------------------------------ bombs


@pytest.fixture(scope="module")
def bomb_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bombs")
    for name, content in bombs().items():
        assert len(content) < 2 * MEGABYTE
        (folder / name).write_bytes(content)
    return folder


def test_bombs_do_not_go_off(bomb_folder):
    paths = sorted(bomb_folder.iterdir())
    assert len(paths) == 14
    for path in paths:
        tracemalloc.start()
        refused(path, "expected", max_bytes=50 * MEGABYTE)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10 * MEGABYTE, path.name


# ------------------------------------------------------------------------------------------------------------- fuzz


@pytest.mark.parametrize("name", fuzz_seeds())
def test_damaged_files_are_read_or_refused(name, tmp_path):
    content = fuzz_seeds()[name]
    path = tmp_path / name
    path.write_bytes(content)
    assert read_array(path).shape == (5, 5)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    answers = []
    for damaged in mutations(content, rng):
        path.write_bytes(damaged)
        got, wrong = read_or_refused(path)
        assert wrong == []
        answers.append(got)
    assert sum(got is None for got in answers) >= 40
    assert all(got is None or got.nbytes <= MEGABYTE for got in answers)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(content=st.binary(max_size=300))
@quick
def test_any_bytes_are_read_or_refused(suffix, content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        path.write_bytes(content)
        assert read_or_refused(path)[1] == []
