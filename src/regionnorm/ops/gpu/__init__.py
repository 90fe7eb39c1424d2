"""The operations on GPUs, by kernels that Triton compiles."""
