"""Gradients of solutions and estimates for tensors of torch: imported where a gradient is wanted, and nowhere else."""
