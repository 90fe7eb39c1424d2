"""The numbers of the paper's tables (Yu et al., AAAI 2020), to stand beside our own."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ALL", "PUBLISHED", "Scores"]

Scores = Mapping[str, Mapping[str, float]]
"""Metric (``"psnr"`` in dB, ``"ssim"``, ``"l1"`` in percent) to hole interval to value."""

ALL = "all"  # holes of 0 to 60 %
_FOUR = ("10-20 %", "20-30 %", "30-40 %", "40-50 %", ALL)
_SIX = ("0-10 %", "10-20 %", "20-30 %", "30-40 %", "40-50 %", "50-60 %")


def _all(psnr: float, ssim: float, l1: float) -> Scores:
    return {"psnr": {ALL: psnr}, "ssim": {ALL: ssim}, "l1": {ALL: l1}}


def _table1(psnr: list[float], ssim: list[float], l1: list[float]) -> Scores:
    columns = (("psnr", psnr), ("ssim", ssim), ("l1", l1))
    return {metric: dict(zip(_FOUR, values, strict=True)) for metric, values in columns}


def _l1(values: list[float]) -> Scores:
    return {"l1": dict(zip(_SIX, values, strict=True))}


#: Table to row to scores. Tables 1, 2, 3 and 6 are on Places2, Table 5 on CelebA.
PUBLISHED: Mapping[str, Mapping[str, Scores]] = {
    "table1": {
        "CA": _table1(
            [24.45, 21.14, 19.16, 17.81, 21.60],
            [0.891, 0.811, 0.729, 0.651, 0.767],
            [1.81, 3.24, 4.81, 6.30, 4.21],
        ),
        "PC": _table1(
            [28.02, 24.90, 22.45, 20.86, 24.82],
            [0.869, 0.777, 0.685, 0.589, 0.724],
            [1.14, 1.98, 3.02, 4.11, 2.80],
        ),
        "GC": _table1(
            [26.65, 24.79, 23.09, 21.72, 24.53],
            [0.882, 0.836, 0.782, 0.721, 0.807],
            [3.01, 3.54, 4.25, 4.99, 3.79],
        ),
        "EC": _table1(
            [27.46, 24.53, 22.52, 20.90, 24.39],
            [0.920, 0.859, 0.794, 0.723, 0.814],
            [1.58, 2.71, 3.93, 5.32, 2.83],
        ),
        "baseline": _table1(
            [27.28, 24.35, 22.33, 20.96, 24.37],
            [0.914, 0.851, 0.784, 0.711, 0.806],
            [1.24, 2.17, 3.19, 4.36, 2.95],
        ),
        "RN": _table1(
            [28.16, 25.06, 22.94, 21.21, 25.10],
            [0.926, 0.868, 0.804, 0.734, 0.823],
            [1.10, 1.96, 2.90, 4.00, 2.70],
        ),
    },
    "table2": {
        "baseline": _all(24.37, 0.806, 2.95),
        "Arch. 1": _all(24.88, 0.814, 2.77),
        "Arch. 2": _all(24.41, 0.810, 2.90),
        "Arch. 3": _all(24.59, 0.812, 2.85),
        "Arch. 4": _all(25.02, 0.823, 2.71),
        "Arch. 5 (RN)": _all(25.10, 0.823, 2.70),
        "Arch. 6": _all(24.53, 0.812, 2.86),
    },
    "table3": {
        "None": _all(24.47, 0.811, 2.91),
        "IN": _all(24.37, 0.806, 2.95),
        "BN": _all(24.24, 0.806, 2.98),
        "RN": _all(25.10, 0.823, 2.70),
    },
    "table4": {
        "Places2, t = 0.5": {"psnr": {ALL: 23.85}},
        "Places2, t = 0.6": {"psnr": {ALL: 24.90}},
        "Places2, t = 0.7": {"psnr": {ALL: 24.96}},
        "Places2, t = 0.8": {"psnr": {ALL: 25.10}},
        "Places2, t = 0.9": {"psnr": {ALL: 24.93}},
        "CelebA, t = 0.5": {"psnr": {ALL: 27.36}},
        "CelebA, t = 0.6": {"psnr": {ALL: 27.92}},
        "CelebA, t = 0.7": {"psnr": {ALL: 28.45}},
        "CelebA, t = 0.8": {"psnr": {ALL: 28.51}},
        "CelebA, t = 0.9": {"psnr": {ALL: 23.73}},
    },
    "table5": {
        "baseline": _l1([0.26, 0.69, 1.28, 2.02, 2.92, 4.83]),
        "RN": _l1([0.23, 0.62, 1.18, 1.85, 2.68, 4.52]),
    },
    "table6": {
        "CA": _all(21.60, 0.767, 4.21),
        "RN-CA": _all(24.12, 0.842, 3.17),
        "PC": _all(24.82, 0.724, 2.80),
        "RN-PC": _all(25.32, 0.829, 2.61),
        "GC": _all(24.53, 0.807, 3.79),
        "RN-GC": _all(24.55, 0.807, 3.75),
    },
}
