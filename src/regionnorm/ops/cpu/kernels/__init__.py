"""The CPU kernels, in numba. Imported at the first call of one, because that takes time."""
