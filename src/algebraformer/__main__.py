"""`python -m algebraformer` is the command `algebraformer`."""

import sys

from algebraformer.cli import main

if __name__ == "__main__":
    sys.exit(main())
