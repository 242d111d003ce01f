"""Provenance of checkpoints and results: commit, versions, processor, kernels and threads."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("algebraformer", "torch", "numpy", "scipy", "safetensors")
NO_CODE = ("results", "docs", "README.md", "CHANGELOG.md", "LOG.md")
"""Files that may change between measurements, since no result depends on them."""
IMPORTED = ("src", "studies", "benchmarks", "examples")
"""Folders in which files that git does not track yet may affect a result."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
KERNELS = (
    "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA", "NPY_DISABLE_CPU_FEATURES",
)  # fmt: skip
"""Environment variables that select the kernels or the block sizes of another processor."""


@functools.cache
def commit() -> str | None:
    """Return the commit of the checkout this package runs from, with "+" if code differs from it, or None.

    Cached by the first call of a process: code that is committed during a long run is not what ran.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        run = functools.partial(subprocess.run, cwd=root, capture_output=True, text=True, timeout=10, check=True)
        head = run(["git", "rev-parse", "HEAD"]).stdout.strip()
        code = [".", *(f":(exclude){name}" for name in NO_CODE)]
        changed = run(["git", "status", "--porcelain", "--untracked-files=no", "--", *code]).stdout.strip()
        changed += run(["git", "ls-files", "--others", "--exclude-standard", "--", *IMPORTED]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "")


@functools.cache
def processor() -> str:
    """Return the processor's name, its number of cores and its widest vector instructions."""
    name, flags = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = value
                break
    widest = next((label for label in ("avx512f", "avx2", "avx") if label in flags.split()), "")
    return f"{name}, {os.cpu_count()} cores" + (f", {widest}" if widest else "")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def kernels() -> list[str]:
    """Return the kernels and threads of every loaded BLAS library and of torch."""
    from threadpoolctl import threadpool_info  # not needed to load a model

    found = []
    for library in threadpool_info():
        if library["user_api"] == "blas":
            name = " ".join(
                str(library[key]) for key in ("internal_api", "version", "architecture") if library.get(key)
            )
            found.append(f"{name}, threads: {library['num_threads']}")
    if torch := sys.modules.get("torch"):
        found.append(f"torch {torch.backends.cpu.get_cpu_capability()}, threads: {torch.get_num_threads()}")
    return found


def provenance() -> dict[str, Any]:
    """Return commit, versions, processor, kernels, threads and the variables that set them as plain JSON values."""
    torch = sys.modules.get("torch")
    return {
        "commit": commit(),
        "versions": versions(),
        "processor": processor(),
        "threads": torch.get_num_threads() if torch else os.cpu_count(),
        "kernels": kernels(),
        "environment": {name: os.environ[name] for name in THREADS + KERNELS if name in os.environ},
    }
