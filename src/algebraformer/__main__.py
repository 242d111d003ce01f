"""`python -m algebraformer` is the command `algebraformer`."""

import gc
import sys

# The imports of a command make half a million objects that live to its end. Python's collector would look through them
# again and again while they are made, and once more at the exit: a quarter of the seconds that `solve` takes.
gc.set_threshold(100_000)

from algebraformer.cli import main as command_line  # noqa: E402


def main() -> int:
    """Run the command line as a process of its own; return its exit code."""
    code = command_line()
    gc.freeze()
    return code


if __name__ == "__main__":
    sys.exit(main())
