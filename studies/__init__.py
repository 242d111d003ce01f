"""Questions about the method, answered by measurements: what reproduces the paper and what goes beyond it."""
