"""Every result in results/ says truly what made it, and from which code; what is wrong with a result is noticed."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from algebraformer import provenance
from studies.harness import evidence
from studies.harness.study import names

ROOT = Path(__file__).resolve().parents[2]
RESULTS = sorted((ROOT / "results").glob("*.json"))
COMMANDS = ("evaluate", "study", "tests.stress")
ABSOLUTE = r"(?<![\w./:)-])/[A-Za-z][\w.-]*(?:/[\w.-]+)*(?=[\s\"'`,;]|$)|\b[A-Z]:\\+\w"
"""A path from the root of one machine, not an address in the web or a fraction."""


def git(*arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=60)


def has_history() -> bool:
    """Say whether this is a checkout with every commit: an archive has none, and a shallow clone only the last."""
    if not (ROOT / ".git").exists():
        return False
    try:
        return git("rev-parse", "--is-shallow-repository").stdout.strip() == "false"
    except OSError:
        return False


def made(command: str) -> set[str]:
    """Return the names of the results that a command makes: of its study or model or script, and of its --output."""
    words = shlex.split(command)
    names = set()
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in COMMANDS:
            names.add(following)
        if word.endswith(".py") or word.endswith(".json"):
            names.add(Path(word.removeprefix("--output=")).stem)
    return names


def wrong(path: Path) -> list[str]:
    """Return what is wrong with a result by its own account."""
    content = json.loads(path.read_text())
    about, command = content["provenance"], content["command"]
    page = path.with_suffix(".md")
    texts = [path.read_text(), page.read_text() if page.exists() else ""]
    found = []
    if made(command) != {path.stem}:
        found.append(f"made by another command: {command}")
    if paths := [match for text in texts for match in re.findall(ABSOLUTE, text, re.MULTILINE)]:
        found.append(f"absolute paths: {', '.join(paths)}")
    if not re.fullmatch("[0-9a-f]{40}", str(about["commit"])):
        found.append(f"measured with changes that are in no commit: {about['commit']}")
    if content.get("quick") or content.get("preset") == "quick":
        found.append("measured with the quick preset")
    if forced := sorted(set(about.get("environment", {})) & set(provenance.KERNELS)):
        found.append(f"measured with forced kernels: {', '.join(forced)}")
    return found


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_say_truly_where_they_come_from(path: Path) -> None:
    assert {"commit", "versions", "processor", "threads"} <= set(json.loads(path.read_text())["provenance"])
    assert wrong(path) == []


@pytest.mark.skipif(not has_history(), reason="the history of this checkout is not there, or not whole")
@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_come_from_this_history(path: Path) -> None:
    commit = json.loads(path.read_text())["provenance"]["commit"].rstrip("+")
    assert git("merge-base", "--is-ancestor", commit, "HEAD").returncode == 0


def test_there_are_results_of_every_study() -> None:
    assert {path.stem for path in RESULTS} >= {*names(), *evidence.OWN, "bench"}


# ---------------------------------------------------------------- what is wrong is noticed

GOOD = {
    "command": "algebraformer study noise --preset cpu --json",
    "provenance": {"commit": 40 * "a", "versions": {}, "processor": "", "threads": 1, "environment": {}},
    "preset": "cpu",
    "conclusions": ["LAPACK / ours is 1/2 and/or more, see https://example.org/a/b and ../results/noise.png"],
}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, ""),
        ({"command": "algebraformer study noisy --preset cpu"}, "another command"),
        ({"command": "algebraformer study noise --output results/noisy.json"}, "another command"),
        ({"command": "algebraformer evaluate noise --output=results/noisy.json"}, "another command"),
        ({"command": "algebraformer evaluate noise --output results/noise.json"}, ""),
        ({"command": "python benchmarks/noise.py"}, ""),
        ({"command": "python benchmarks/bench.py"}, "another command"),
        ({"command": "algebraformer study noise --work /data/x --json"}, "absolute paths: /data/x"),
        ({"data": {"file": "/scratch"}}, "absolute paths: /scratch"),
        ({"data": {"file": r"C:\scratch"}}, "absolute paths: C:"),
        ({"preset": "quick"}, "quick"),
        ({"quick": True}, "quick"),
        ({"provenance": GOOD["provenance"] | {"commit": 40 * "a" + "+"}}, "no commit"),
        ({"provenance": GOOD["provenance"] | {"commit": None}}, "no commit"),
        ({"provenance": GOOD["provenance"] | {"environment": {"OPENBLAS_CORETYPE": "Haswell"}}}, "forced kernels"),
        ({"provenance": GOOD["provenance"] | {"environment": {"OMP_NUM_THREADS": "1"}}}, ""),
    ],
)
def test_wrong_results_are_noticed(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    path = tmp_path / "noise.json"
    path.write_text(json.dumps(GOOD | changes))
    path.with_suffix(".md").write_text("# noise\n\nMade by `algebraformer study noise`; |x| / |b|, 3/4.\n")
    found = wrong(path)
    assert len(found) == bool(word)
    assert all(word in line for line in found)


def test_absolute_paths_in_the_page_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "noise.json").write_text(json.dumps(GOOD))
    (tmp_path / "noise.md").write_text("Made by `algebraformer study noise --work /data/noise`.\n")
    assert wrong(tmp_path / "noise.json") == ["absolute paths: /data/noise"]


# ---------------------------------------------------------------- code that has changed since


@pytest.fixture
def repository(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes files into a new repository and commits them; it returns the commit."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")

    def committed(**files: str) -> str:
        for name, text in files.items():
            path = tmp_path / "src" / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        git("add", "-A", root=tmp_path)
        about = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        assert git(*about, "commit", "-q", "-m", "a change", root=tmp_path).returncode == 0
        return git("rev-parse", "HEAD", root=tmp_path).stdout.strip()

    assert git("init", "-q", root=tmp_path).returncode == 0
    return committed


def test_changed_code_is_found(repository: Callable[..., str], tmp_path: Path) -> None:
    first = repository(solver="1", other="1")
    second = repository(other="2")
    paths = ("src/solver.py", "src/other.py", "src")
    assert evidence.changed_since(first, paths, tmp_path) == ("src/other.py", "src")
    assert evidence.changed_since(first, paths[:1], tmp_path) == ()
    assert evidence.changed_since(second, paths, tmp_path) == ()
    with pytest.raises(LookupError):
        evidence.changed_since(40 * "a", paths, tmp_path)


@pytest.mark.parametrize("name", [path.stem for path in RESULTS])
def test_declared_code_exists(name: str) -> None:
    paths = evidence.sources(name)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert name not in names() or any(path.removesuffix(".py") == f"studies/{name}" for path in paths)


def test_every_study_declares_what_it_depends_on() -> None:
    assert set(evidence.DEPENDS) == {*names(), *evidence.OWN}


def test_results_of_changed_code_are_listed(tmp_path: Path) -> None:
    """No commit of this repository is the first one here."""
    (tmp_path / "noise.json").write_text(json.dumps(GOOD))
    (line,) = evidence.older(tmp_path)
    assert line.startswith("noise, measured at aaaaaaa: ")


@pytest.mark.parametrize(
    ("commit", "start"),
    [
        (40 * "b", "Measured at bbbbbbb on"),
        (40 * "b" + "+", "Measured at bbbbbbb with changes"),
        (None, "Measured outside"),
    ],
)
def test_captions(commit: str | None, start: str) -> None:
    text = evidence.caption({"commit": commit, "processor": "P, 2 cores", "threads": 3})
    assert text.startswith(start)
    assert "P, 2 cores" in text
    assert "3" in text


# ---------------------------------------------------------------- what is recorded


def test_commit_has_a_plus_when_code_differs(
    repository: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`commit` looks two folders above its file; results and documents change while one measures."""
    head = repository(solver="1")
    (tmp_path / "src" / "algebraformer").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "src" / "algebraformer" / "provenance.py"))
    fresh = provenance.commit.__wrapped__
    assert fresh() == head
    for name in ("results", "docs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "new.json").write_text("{}")
    git("add", "-A", root=tmp_path)
    assert fresh() == head
    (tmp_path / "src" / "new.py").write_text("")  # not known to git, but it may be imported
    assert fresh() == f"{head}+"
    (tmp_path / "src" / "new.py").unlink()
    assert fresh() == head
    (tmp_path / "src" / "solver.py").write_text("2")
    assert fresh() == f"{head}+"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the kernels of another processor have other names")
def test_provenance_names_the_kernels_that_ran() -> None:
    """OpenBLAS takes the kernels of an older processor when told to, which every newer one can run."""
    code = "import json, numpy, torch; from algebraformer.provenance import provenance as p; print(json.dumps(p()))"
    environment = {"OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "1"}
    plain = {name: value for name, value in os.environ.items() if name not in provenance.THREADS + provenance.KERNELS}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=plain | environment, capture_output=True, text=True, timeout=600, check=True)
    about = json.loads(done.stdout)
    assert about["environment"] == environment
    assert any(line.startswith("torch") for line in about["kernels"])
    kernels = [line for line in about["kernels"] if line.startswith("openblas")]
    if not kernels:
        pytest.skip("NumPy is built with another BLAS")
    assert all("Nehalem" in line and line.endswith("threads: 1") for line in kernels)
