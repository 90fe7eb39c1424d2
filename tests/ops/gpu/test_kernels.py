"""The GPU kernels against the plain path: interpreted on the CPU, and on a GPU where there is one.

Triton runs in processes of its own (``triton_worker.py``), because it decides at its import whether
it interprets. Other processes compile every kernel to machine code, for which no GPU is needed.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from regionnorm.ops import plain
from regionnorm.ops.gpu import autograd, launch

Call = Callable[..., Any]
DEVICES = ["interpreter", *(["cuda"] if torch.cuda.is_available() else [])]
FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
# Small limits make small planes take the way of large ones.
WHOLE_PLANES: dict[str, int] = {}
CHUNKS = {"PLANE_VALUES": 16, "TILE_VALUES": 64, "ENOUGH_PROGRAMS": 4}
SIZES = {"whole planes": WHOLE_PLANES, "chunks": CHUNKS}
KERNELS = {
    "planes_forward",
    "chunk_moments",
    "combine_moments",
    "normalise",
    "planes_backward",
    "chunk_sums",
    "combine_sums",
    "gradient",
    "mean_max",
    "mean_max_backward",
}


class Worker:
    """A process that runs kernels; called with the name of a function and its arguments."""

    def __init__(self, device: str, cache: Path) -> None:
        self.device = device
        interpret = "1" if device == "interpreter" else "0"
        settings = {"TRITON_INTERPRET": interpret, "TRITON_CACHE_DIR": str(cache)}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("triton_worker.py")), device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", **settings},
        )

    def __call__(self, name: str, *arguments: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        pickle.dump((name, arguments), self.process.stdin)
        self.process.stdin.flush()
        result, error = pickle.load(self.process.stdout)
        assert error is None, error
        return result

    def close(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    worker = Worker("none", tmp_path_factory.mktemp("triton"))
    yield worker
    worker.close()


@pytest.fixture(scope="module", params=DEVICES)
def kernels(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Call]:
    worker = Worker(request.param, tmp_path_factory.mktemp("triton"))
    yield worker
    worker.close()


def features(
    *shape: int, dtype: torch.dtype = torch.float32, mean: float = 0.0, layout: str = "contiguous"
) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + mean
    return values.to(dtype).to(memory_format=FORMATS[layout])


def random_labels(samples: int, length: int, share: float = 0.5) -> Tensor:
    return torch.rand(samples, length, generator=torch.Generator().manual_seed(1)) < share


def parameters(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def options(kind: str = "instance", relu: bool = True) -> dict[str, Any]:
    return {"groups": (kind, 1), "eps": 1e-5, "relu": relu}


def relative_error(found: Tensor, expected: Tensor) -> float:
    difference = (found.double() - expected).norm()
    return float(difference / expected.norm()) if expected.norm() > 0 else float(difference)


def assert_agrees(
    kernels: Call,
    operation: str,
    tensors: tuple[Tensor | None, ...],
    given: dict[str, Any],
    limits: dict[str, int] = WHOLE_PLANES,
    tolerance: float = 2e-6,
) -> list[Tensor]:
    """Compare result and gradients with those of the plain path in float64; return them."""
    fixed = 1 if operation.startswith("region_norm") else -1
    reference = [
        None if tensor is None else tensor.double() if i != fixed else tensor
        for i, tensor in enumerate(tensors)
    ]
    inputs = [t.requires_grad_() for i, t in enumerate(reference) if t is not None and i != fixed]
    expected = getattr(plain, operation)(*reference, **given)
    x = tensors[0]
    assert x is not None
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3)).to(x.dtype)
    expected.backward(grad.double())
    found, _ = kernels("differentiate", operation, tensors, fixed, given, grad, limits)
    assert found[0].dtype == x.dtype
    for one, other in zip(found, [expected.detach(), *(t.grad for t in inputs)], strict=True):
        assert bool(one.isfinite().all())
        assert relative_error(one, other) < tolerance
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("kind", ["instance", "batch"])
def test_region_norm_agrees_with_the_plain_path(
    kernels: Call, kind: str, layout: str, size: str
) -> None:
    tensors = (
        features(2, 3, 5, 9, layout=layout),
        random_labels(2, 45),
        parameters(2, 3),
        parameters(2, 3, seed=4),
    )
    given = {"num_regions": 2, **options(kind)}
    found = assert_agrees(kernels, "region_norm", tensors, given, SIZES[size])
    assert all(t.is_contiguous(memory_format=FORMATS[layout]) for t in found[:2])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("kind", ["instance", "batch"])
def test_scale_and_shift_of_each_pixel_agree_with_the_plain_path(
    kernels: Call, kind: str, layout: str, size: str
) -> None:
    tensors = (
        features(2, 3, 5, 9, layout=layout),
        random_labels(2, 45),
        parameters(2, 1, 5, 9),
        parameters(2, 1, 5, 9, seed=4),
    )
    found = assert_agrees(kernels, "region_norm_per_pixel", tensors, options(kind), SIZES[size])
    assert all(t.is_contiguous(memory_format=FORMATS[layout]) for t in found[:2])


def test_no_parameters_no_relu_and_one_mask_for_the_batch_agree(kernels: Call) -> None:
    tensors = (features(2, 3, 4, 5), random_labels(1, 20), None, None)
    given = {"num_regions": 2, **options(relu=False)}
    assert_agrees(kernels, "region_norm", tensors, given)
    assert_agrees(kernels, "region_norm", tensors, given, CHUNKS)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_region_without_pixels_changes_nothing(kernels: Call, share: float, size: str) -> None:
    labels = random_labels(1, 24, share)
    affine = (features(1, 3, 4, 6), labels, parameters(2, 3), parameters(2, 3))
    found = assert_agrees(
        kernels, "region_norm", affine, {"num_regions": 2, **options()}, SIZES[size]
    )
    empty = 1 - round(share)
    assert not found[2][empty].any() and not found[3][empty].any()
    pixel = (features(1, 3, 4, 6), labels, parameters(1, 1, 4, 6), parameters(1, 1, 4, 6))
    assert_agrees(kernels, "region_norm_per_pixel", pixel, options(), SIZES[size])


def test_a_single_pixel_gives_the_shift(kernels: Call) -> None:
    tensors = (features(2, 3, 1, 1), torch.tensor([[False], [True]]), None, parameters(2, 3))
    found = assert_agrees(
        kernels, "region_norm", tensors, {"num_regions": 2, **options(relu=False)}
    )
    assert torch.equal(found[0].flatten(1), parameters(2, 3))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["instance", "batch"])
def test_a_mean_of_ten_thousand_deviations_costs_no_accuracy(
    kernels: Call, kind: str, size: str
) -> None:
    tensors = (features(2, 2, 8, 9, mean=1e4), random_labels(2, 72), None, None)
    given = {"num_regions": 2, **options(kind, relu=False)}
    assert_agrees(kernels, "region_norm", tensors, given, SIZES[size], tolerance=1e-5)


# The interpreter cuts off what bfloat16 cannot hold, where a GPU rounds: an error of 2 ** -8 or so.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 6e-3)])
def test_half_precision_features_cost_only_the_rounding_of_the_results(
    kernels: Call, dtype: torch.dtype, tolerance: float
) -> None:
    x, labels = features(2, 3, 5, 7, dtype=dtype), random_labels(2, 35)
    affine = (x, labels, parameters(2, 3), parameters(2, 3, seed=4))
    given = {"num_regions": 2, **options()}
    for limits in SIZES.values():
        found = assert_agrees(kernels, "region_norm", affine, given, limits, tolerance)
        assert found[2].dtype == torch.float32
    pixel = (x, labels, parameters(2, 1, 5, 7).to(dtype), parameters(2, 1, 5, 7).to(dtype))
    assert_agrees(kernels, "region_norm_per_pixel", pixel, options(), tolerance=tolerance)
    assert_agrees(kernels, "channel_mean_max", (x,), {}, tolerance=tolerance)


def test_features_that_are_not_dense_are_read_rightly(kernels: Call) -> None:
    x = features(2, 6, 8, 8)[:, ::2, 1:6, :7]
    both = parameters(2, 2, 5, 7)
    scale, shift = both.chunk(2, dim=1)
    tensors = (x, random_labels(2, 35), scale, shift)
    assert_agrees(kernels, "region_norm_per_pixel", tensors, options())


@pytest.mark.parametrize("layout", FORMATS)
def test_mean_and_maximum_agree_and_equal_maxima_share_the_gradient(
    kernels: Call, layout: str
) -> None:
    x = (features(2, 70, 3, 5, layout=layout) * 2).round()
    assert bool((x == x.amax(1, keepdim=True)).sum(1).max() > 1)
    assert_agrees(kernels, "channel_mean_max", (x,), {})


@pytest.mark.parametrize("layout", FORMATS)
def test_learnable_region_norm_agrees_with_the_plain_path(kernels: Call, layout: str) -> None:
    tensors = (
        features(2, 5, 6, 7, layout=layout),
        parameters(1, 2, 3, 3),
        parameters(2, 1, 3, 3, seed=4) / 9,
        parameters(2, seed=5),
    )
    given = {"threshold": 0.5, **options()}
    assert_agrees(kernels, "learnable_region_norm", tensors, given, tolerance=1e-5)


@pytest.mark.parametrize("layout", FORMATS)
def test_a_channel_that_is_nan_makes_the_maximum_nan(kernels: Call, layout: str) -> None:
    x = features(1, 5, 3, 4, layout=layout)
    x[0, 0, 0, 0] = x[0, 2, 1, 1] = torch.nan
    x[0, 1, 2, 2], x[0, 3, 2, 2] = torch.inf, -torch.inf
    grad = torch.zeros(1, 2, 3, 4)
    found, _ = kernels("differentiate", "channel_mean_max", (x,), -1, {}, grad, CHUNKS)
    assert torch.equal(found[0][:, 1].isnan(), x.isnan().any(1))
    assert found[0][0, 1, 2, 2] == torch.inf


def test_nothing_of_the_size_of_the_features_is_saved_but_they(kernels: Call) -> None:
    x, labels = features(2, 16, 9, 9), random_labels(2, 81)
    tensors = (x, labels, parameters(2, 16), parameters(2, 16))
    given = {"num_regions": 2, **options()}
    _, saved = kernels("differentiate", "region_norm", tensors, 1, given, x, WHOLE_PLANES)
    assert sum(saved) == labels.numel() + 4 * 2 * 2 * 16


def test_second_derivatives_are_those_of_the_plain_path(kernels: Call) -> None:
    tensors = (features(1, 2, 3, 4), random_labels(1, 12), parameters(2, 2), parameters(2, 2))
    given = {"num_regions": 2, **options(relu=False)}
    x, labels, weight, bias = tensors[0].double(), *tensors[1:]
    x.requires_grad_()
    result = plain.region_norm(x, labels, weight.double(), bias.double(), **given)
    (first,) = torch.autograd.grad(result.pow(3).sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(first.square().sum(), x)
    assert relative_error(kernels("second_derivative", tensors, given), expected) < 1e-4


def test_the_operators_that_torch_compile_sees_pass_its_check(kernels: Call) -> None:
    labels = random_labels(1, 6).to(torch.uint8)
    tensors = (features(1, 2, 2, 3), labels, parameters(2, 2), parameters(2, 2))
    answers = kernels("check_operators", tensors)
    assert answers and set(answers.values()) == {"SUCCESS"}


@pytest.mark.parametrize(
    ("capability", "dtype"), [(75, torch.float16), (80, torch.float32), (90, torch.bfloat16)]
)
def test_every_kernel_compiles_to_machine_code(
    compiler: Call, capability: int, dtype: torch.dtype
) -> None:
    assert compiler("compile_kernels", capability, dtype) == KERNELS


def test_features_on_a_gpu_choose_the_kernels_where_they_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernels = importlib.import_module("regionnorm.ops.region_norm")._kernels
    with FakeTensorMode():
        x = torch.empty(1, 4, 8, 8, device="cuda")
    assert kernels(2, "instance", x) is plain  # a tensor that only looks like one on a GPU
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(launch, "works", lambda *_: False)
    assert kernels(2, "instance", x) is plain
    monkeypatch.setattr(launch, "works", lambda *_: True)
    assert kernels(2, "instance", x) is kernels(2, "batch", x.half()) is autograd
    for others in ((3, "instance", x), (2, "layer", x), (2, "instance", x.double())):
        assert kernels(*others) is plain


def test_a_gpu_on_which_no_kernel_runs_gets_the_plain_path_and_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify one.")

    launch._works.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(launch, "_run", fail)
    with pytest.warns(UserWarning, match=r"do not run here.*: Failed to find C compiler\.$"):
        assert not launch.works(torch.device("cpu"), torch.float32)
    assert not launch.works(torch.device("cpu"), torch.float32)
    launch._works.cache_clear()


if torch.cuda.is_available():

    def test_the_public_function_runs_the_kernels(kernels: Call) -> None:
        if kernels.device == "cuda":  # type: ignore[attr-defined]
            x, labels = features(2, 4, 8, 8), random_labels(2, 64).view(2, 1, 8, 8)
            found, names = kernels("through_public_function", x, labels)
            expected = plain.region_norm(
                x.double(), labels.flatten(1), None, None, num_regions=2, **options(relu=False)
            )
            assert relative_error(found, expected) < 2e-6
            assert names == ["planes_forward"]
