"""Fork safety: in a process that was forked, torch runs on one thread.

OpenMP's threads do not survive `os.fork`, which is how multiprocessing starts processes on Linux up to Python 3.13. The
child's copy of the thread pool still lists them, so the first parallel region of torch would wait for them forever. On
one thread torch opens no parallel region.
"""

import os
import sys


def use_one_thread() -> None:
    """Make torch run on one thread, if this process has imported it."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):  # else a thread of the parent was still importing it
        torch.set_num_threads(1)


def protect_children() -> None:
    """Call `use_one_thread` in every process that is forked from this one; torch itself is not imported."""
    if hasattr(os, "register_at_fork"):  # POSIX only
        os.register_at_fork(after_in_child=use_one_thread)
