"""Very many systems: blocks of them, solved in other processes, with bounded memory."""
