"""Where a result comes from: commit, package versions, processor, threads. Recorded in checkpoints and results."""

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


@functools.cache
def commit() -> str | None:
    """Return the commit of the checkout this package runs from, with "+" if files differ from it, or None."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        run = functools.partial(subprocess.run, cwd=root, capture_output=True, text=True, timeout=10, check=True)
        head = run(["git", "rev-parse", "HEAD"]).stdout.strip()
        changed = run(["git", "status", "--porcelain", "--untracked-files=no", "--", "src"]).stdout.strip()
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
    """Return the versions of Python and of the packages that matter for a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def provenance() -> dict[str, Any]:
    """Return commit, versions, processor and threads as plain JSON values."""
    torch = sys.modules.get("torch")
    return {
        "commit": commit(),
        "versions": versions(),
        "processor": processor(),
        "threads": torch.get_num_threads() if torch else os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }
