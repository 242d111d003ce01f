"""`python -m studies NAME --preset cpu` is the command `algebraformer study NAME --preset cpu`."""

import sys

from algebraformer.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["study"]
    sys.exit(main())
