"""The operations on the CPU, by kernels that numba compiles."""
