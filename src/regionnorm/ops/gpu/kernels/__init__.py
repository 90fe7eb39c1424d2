"""GPU kernels for two regions, in Triton.

Features are seen as ``[N, C, L]`` with L = H * W pixels, and a program works on tiles of some
channels and some pixels of one sample. So the same kernels read contiguous and channels-last
(``LAST``) features. Arithmetic is in float32 and every sum has a fixed order: results are the same
each time.

Where a plane fits into the registers of a program, one kernel does all. Else the pixels are shared
out in chunks: partial results go to a small buffer, a second kernel combines them, and a third one
walks through the features again.

The statistics of an operation are float32 ``[4, N, 2, C]``: the mean as a sum of two numbers (one
alone would be off by half a thousandth at a mean of 1e4), 1 / std, and the number of values.
"""

from regionnorm.ops.gpu.kernels.backward import (
    chunk_sums,
    combine_sums,
    gradient,
    planes_backward,
)
from regionnorm.ops.gpu.kernels.channels import mean_max, mean_max_backward
from regionnorm.ops.gpu.kernels.forward import (
    chunk_moments,
    combine_moments,
    normalise,
    planes_forward,
)

__all__ = [
    "chunk_moments",
    "chunk_sums",
    "combine_moments",
    "combine_sums",
    "gradient",
    "mean_max",
    "mean_max_backward",
    "normalise",
    "planes_backward",
    "planes_forward",
]
