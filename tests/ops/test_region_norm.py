"""The equations of the paper, on both implementations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from regionnorm import ops
from regionnorm.nn import RegionNorm2d
from regionnorm.ops.backend import backend

EPS = 1e-5


@pytest.fixture(params=["plain", "numba"])
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    with backend(request.param):
        yield request.param


def naive_region_norm(
    x: Tensor, labels: Tensor, weight: Tensor | None, bias: Tensor | None, stats: str
) -> Tensor:
    """Eq. 8-13 as loops over float64 numbers."""
    values, regions = x.double().numpy(), labels.expand(x.shape[0], -1, -1, -1).numpy()
    samples, channels, height, width = x.shape
    result = np.empty_like(values)
    kind, _, count = stats.partition(":")
    size = channels // int(count) if count else channels
    key = {
        "instance": lambda n, c: (n, c),
        "batch": lambda n, c: c,
        "layer": lambda n, c: n,
        "group": lambda n, c: (n, c // size),
    }[kind]
    places: dict[object, list[tuple[int, int, int, int]]] = {}
    for n, c, i, j in np.ndindex(samples, channels, height, width):
        places.setdefault((key(n, c), regions[n, 0, i, j]), []).append((n, c, i, j))
    for members in places.values():
        mean = math.fsum(values[place] for place in members) / len(members)
        variance = math.fsum((values[place] - mean) ** 2 for place in members) / len(members)
        for n, c, i, j in members:
            k = regions[n, 0, i, j]
            scaled = (values[n, c, i, j] - mean) / math.sqrt(variance + EPS)
            scaled *= 1 if weight is None else weight[k, c].item()
            result[n, c, i, j] = scaled + (0 if bias is None else bias[k, c].item())
    return torch.from_numpy(result)


def half_mask(samples: int, height: int, width: int) -> Tensor:
    """An irregular mask with some of both regions in every sample."""
    generator = torch.Generator().manual_seed(5)
    mask = torch.rand((samples, 1, height, width), generator=generator) > 0.6
    mask[:, :, 0, 0], mask[:, :, -1, -1] = False, True
    return mask


@pytest.mark.parametrize("stats", ["instance", "batch", "layer", "group:2"])
@pytest.mark.parametrize("regions", [2, 4, 20])
def test_equals_the_equations(implementation: str, stats: str, regions: int) -> None:
    x = torch.randn(2, 4, 7, 5) * 3 + 2
    labels = torch.randint(0, regions, (2, 1, 7, 5))
    weight, bias = torch.randn(regions, 4), torch.randn(regions, 4)
    result = ops.region_norm(x, labels, weight, bias, stats=stats)
    expected = naive_region_norm(x, labels, weight, bias, stats)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=2e-6)


def test_float_bool_and_label_masks_mean_the_same(implementation: str) -> None:
    x, mask = torch.randn(2, 3, 6, 8), half_mask(2, 6, 8)
    expected = ops.region_norm(x, mask)
    for same in (mask.float(), mask.float() * 0.51, mask.bfloat16(), mask.long(), mask.byte()):
        assert torch.equal(ops.region_norm(x, same), expected)


def test_half_is_known_and_more_is_hole(implementation: str) -> None:
    x = torch.randn(1, 1, 2, 2)
    mask = torch.tensor([0.5, 0.50001, 0.0, 1.0]).view(1, 1, 2, 2)
    expected = ops.region_norm(x, torch.tensor([0, 1, 0, 1]).view(1, 1, 2, 2))
    assert torch.equal(ops.region_norm(x, mask), expected)


def test_one_mask_serves_a_batch(implementation: str) -> None:
    x, mask = torch.randn(3, 2, 6, 8), half_mask(1, 6, 8)
    weight, bias = torch.randn(2, 2), torch.randn(2, 2)
    shared = ops.region_norm(x, mask, weight, bias)
    assert torch.equal(shared, ops.region_norm(x, mask.expand(3, -1, -1, -1), weight, bias))


def test_one_region_is_instance_norm(implementation: str) -> None:
    x, weight, bias = torch.randn(2, 6, 9, 7), torch.randn(1, 6), torch.randn(1, 6)
    expected = F.instance_norm(x, weight=weight[0], bias=bias[0], eps=EPS)
    torch.testing.assert_close(ops.region_norm(x, None, weight, bias), expected)


def test_one_region_is_batch_norm_in_training(implementation: str) -> None:
    x, weight, bias = torch.randn(2, 6, 9, 7), torch.randn(1, 6), torch.randn(1, 6)
    expected = F.batch_norm(x, None, None, weight[0], bias[0], training=True, eps=EPS)
    torch.testing.assert_close(ops.region_norm(x, None, weight, bias, stats="batch"), expected)


def test_one_region_is_layer_norm(implementation: str) -> None:
    x = torch.randn(2, 6, 9, 7)
    expected = F.layer_norm(x, x.shape[1:], eps=EPS)
    torch.testing.assert_close(ops.region_norm(x, None, stats="layer"), expected)


def test_one_region_is_group_norm(implementation: str) -> None:
    x, weight, bias = torch.randn(2, 6, 9, 7), torch.randn(1, 6), torch.randn(1, 6)
    expected = F.group_norm(x, 3, weight[0], bias[0], eps=EPS)
    torch.testing.assert_close(ops.region_norm(x, None, weight, bias, stats="group:3"), expected)


@pytest.mark.parametrize("fill", [False, True])
def test_an_empty_region_changes_nothing(implementation: str, fill: bool) -> None:
    x = torch.randn(2, 3, 5, 4, requires_grad=True)
    mask = torch.full((2, 1, 5, 4), fill)
    weight = torch.randn(2, 3, requires_grad=True)
    bias = torch.randn(2, 3, requires_grad=True)
    result = ops.region_norm(x, mask, weight, bias)
    row = slice(int(fill), int(fill) + 1)
    torch.testing.assert_close(result, ops.region_norm(x, None, weight[row], bias[row]))
    result.square().sum().backward()
    for tensor in (x, weight, bias):
        assert tensor.grad is not None and tensor.grad.isfinite().all()
    assert weight.grad is not None and not weight.grad[1 - int(fill)].any()


def test_a_region_of_one_pixel_becomes_its_bias(implementation: str) -> None:
    x = (torch.randn(1, 3, 5, 4) + 1e4).requires_grad_()
    mask = torch.zeros(1, 1, 5, 4)
    mask[0, 0, 2, 1] = 1
    bias = torch.randn(2, 3)
    result = ops.region_norm(x, mask, torch.ones(2, 3), bias)
    assert torch.equal(result[0, :, 2, 1], bias[1])
    result[0, :, 2, 1].sum().backward()
    assert x.grad is not None and not x.grad[0, :, 2, 1].any()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_region_never_sees_the_other_ones_values(
    implementation: str, layout: torch.memory_format
) -> None:
    mask = half_mask(2, 17, 19)
    x = torch.randn(2, 20, 17, 19)
    other = torch.where(mask, torch.randn_like(x) * 50 - 1e3, x)
    results = []
    for values in (x, other):
        values = values.to(memory_format=layout).requires_grad_()
        out = ops.region_norm(values, mask, activation="relu")
        known = out.masked_select(~mask)
        (gradient,) = torch.autograd.grad(known.square().sum(), values)
        results.append((known, gradient.masked_select(~mask), gradient.masked_select(mask)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert not results[1][2].any()


@pytest.mark.parametrize("spread", [1.0, 0.05, 1e-2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_statistics_stay_right_when_the_mean_is_huge(
    implementation: str, spread: float, layout: torch.memory_format
) -> None:
    x = (torch.randn(2, 16, 64, 48) * spread + 1e4).to(memory_format=layout)
    mask = half_mask(2, 64, 48)
    result = ops.region_norm(x, mask)
    with backend("plain"):
        expected = ops.region_norm(x.double(), mask)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("stats", ["instance", "batch", "group:2"])
def test_many_regions_are_as_exact_as_each_by_itself(stats: str) -> None:
    x = torch.randn(2, 4, 96, 80) + 1e3
    labels = torch.randint(0, 9, (2, 1, 96, 80))
    labels[:, :, 8:] = 3  # nearly all of it
    x = torch.where(labels == 5, torch.nan, x).requires_grad_()
    with backend("plain"):
        result = ops.region_norm(x, labels, stats=stats)
        expected = ops.region_norm(x.detach().double(), labels, stats=stats)
        two = ops.region_norm(x.detach(), labels == 3, stats=stats)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-5, equal_nan=True)
    largest = (labels == 3).expand_as(x)
    torch.testing.assert_close(result[largest], two[largest], rtol=0, atol=1e-5)
    (gradient,) = torch.autograd.grad(result[labels.expand_as(x) != 5].sin().sum(), x)
    assert gradient[labels.expand_as(x) != 5].isfinite().all()


class Passes(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_more_regions_are_no_more_passes_over_the_features() -> None:
    x, counts = torch.randn(1, 2, 8, 8), []
    for regions in (4, 64):
        labels = torch.randint(0, regions, (1, 1, 8, 8))
        affine = torch.randn(2, regions, 2)
        with backend("plain"), Passes() as passes:
            ops.region_norm(x, labels, *affine)
        counts.append(passes.count)
    assert counts[0] == counts[1]


def test_relu_is_the_relu_of_the_result(implementation: str) -> None:
    x, mask = torch.randn(2, 3, 6, 8), half_mask(2, 6, 8)
    scale, shift = torch.randn(2, 1, 6, 8), torch.randn(2, 1, 6, 8)
    fused = ops.region_norm(x, mask, activation="relu")
    assert torch.equal(fused, ops.region_norm(x, mask).relu())
    fused = ops.region_norm_per_pixel(x, mask, scale, shift, activation="relu")
    assert torch.equal(fused, ops.region_norm_per_pixel(x, mask, scale, shift).relu())


def test_scale_and_shift_of_pixels_apply_to_all_channels(implementation: str) -> None:
    x, mask = torch.randn(2, 3, 6, 8), half_mask(2, 6, 8)
    scale, shift = torch.randn(2, 1, 6, 8), torch.randn(2, 1, 6, 8)
    expected = ops.region_norm(x, mask) * scale + shift
    result = ops.region_norm_per_pixel(x, mask, scale, shift)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)


def test_mean_and_maximum_over_channels(implementation: str) -> None:
    x = torch.randn(2, 5, 6, 8)
    result = ops.channel_mean_max(x)
    torch.testing.assert_close(result[:, 0], x.mean(1))
    assert torch.equal(result[:, 1], x.amax(1))


def test_equal_maxima_share_the_gradient(implementation: str) -> None:
    x = torch.tensor([1.0, 3.0, 3.0, 2.0]).view(1, 4, 1, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(ops.channel_mean_max(x)[0, 1, 0, 0], x)
    assert gradient.flatten().tolist() == [0, 0.5, 0.5, 0]


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_learnable_region_norm_is_its_parts(implementation: str, kernel_size: int) -> None:
    x = torch.randn(2, 6, 11, 13)
    response_weight = torch.randn(1, 2, kernel_size, kernel_size) / kernel_size
    affine_weight = torch.randn(2, 1, kernel_size, kernel_size) / kernel_size
    affine_bias = torch.randn(2)
    summary = torch.stack((x.mean(1), x.amax(1)), 1)
    response = F.conv2d(summary, response_weight, padding=kernel_size // 2).sigmoid()
    gamma, beta = F.conv2d(response, affine_weight, affine_bias, padding=kernel_size // 2).chunk(
        2, 1
    )
    expected = ops.region_norm(x, response > 0.7) * (1 + gamma) + beta
    result = ops.learnable_region_norm(
        x, response_weight, affine_weight, affine_bias, threshold=0.7
    )
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stats", ["instance", "batch", "layer", "group:2"])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_gradients_of_region_norm(stats: str, activation: str | None) -> None:
    torch.manual_seed(3)
    x = torch.randn(2, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    labels = torch.randint(0, 3, (2, 1, 3, 4))

    def function(*inputs: Tensor) -> Tensor:
        x, weight, bias = inputs
        return ops.region_norm(x, labels, weight, bias, stats=stats, activation=activation)

    assert torch.autograd.gradcheck(function, (x, weight, bias))
    if activation is None:
        assert torch.autograd.gradgradcheck(function, (x, weight, bias))


def test_gradients_of_region_norm_per_pixel() -> None:
    torch.manual_seed(3)
    x = torch.randn(2, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    maps = [torch.randn(2, 1, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    mask = half_mask(2, 3, 4)
    assert torch.autograd.gradcheck(
        lambda *inputs: ops.region_norm_per_pixel(inputs[0], mask, *inputs[1:]), (x, *maps)
    )


def test_gradients_of_learnable_region_norm() -> None:
    torch.manual_seed(3)
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    first = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    second = torch.randn(2, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ops.learnable_region_norm, (x, first, second, bias))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtype_and_shape_are_those_of_the_input(implementation: str, dtype: torch.dtype) -> None:
    x, mask = torch.randn(2, 3, 6, 8).to(dtype), half_mask(2, 6, 8)
    weight, bias = torch.randn(2, 3), torch.randn(2, 3)
    result = ops.region_norm(x, mask, weight, bias)
    assert result.dtype == dtype and result.shape == x.shape
    expected = ops.region_norm(x.double(), mask, weight, bias)
    torch.testing.assert_close(result.double(), expected, rtol=1e-2, atol=1e-2)
    assert ops.channel_mean_max(x).dtype == dtype


def test_nothing_in_is_nothing_out(implementation: str) -> None:
    assert ops.region_norm(torch.zeros(0, 3, 4, 4), torch.zeros(0, 1, 4, 4)).shape == (0, 3, 4, 4)


X = torch.zeros(2, 4, 3, 5)
MASK = torch.zeros(2, 1, 3, 5)


@pytest.mark.parametrize(
    ("x", "mask", "options", "words"),
    [
        (X[0], MASK, {}, r"\[4, 3, 5\]"),
        (X.int(), MASK, {}, "int32"),
        (X, MASK[..., :4], {}, r"\[2, 1, 3, 4\].*\[2, 1, 3, 5\]"),
        (X, MASK[:1].expand(3, -1, -1, -1), {}, "batch of 3, x a batch of 2"),
        (X, MASK, {"stats": "sample"}, "'sample'; expected one of instance, batch"),
        (X, MASK, {"stats": "group:3"}, "3 does not divide 4"),
        (X, MASK, {"activation": "gelu"}, "'gelu'; expected None or 'relu'"),
        (X, MASK, {"weight": torch.ones(2, 3)}, r"\[2, 3\]; expected \[K, 4\]"),
        (X, MASK, {"weight": torch.ones(3, 4)}, "two-region mask.*3 regions"),
        (X, None, {"bias": torch.ones(2, 4)}, "no mask.*2 regions"),
        (X, MASK, {"weight": torch.ones(2, 4), "bias": torch.ones(3, 4)}, "one shape"),
        (X, MASK.long() + 2, {"weight": torch.ones(2, 4)}, "labels range from 2 to 2; expected 0"),
        (X, MASK.long() - 1, {}, "labels range from -1"),
    ],
)
def test_errors_say_what_came_and_what_would_work(
    implementation: str, x: Tensor, mask: Tensor, options: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        ops.region_norm(x, mask, **options)  # type: ignore[arg-type]


def test_shapes_of_the_other_operations_are_checked() -> None:
    with pytest.raises(ValueError, match=r"scale has shape \[2, 4, 3, 5\]"):
        ops.region_norm_per_pixel(X, MASK, X, MASK)
    with pytest.raises(ValueError, match=r"response_weight has shape \[1, 2, 4, 4\].*odd"):
        bias = torch.zeros(2)
        ops.learnable_region_norm(X, torch.zeros(1, 2, 4, 4), torch.zeros(2, 1, 4, 4), bias)
    with pytest.raises(ValueError, match=r"x has shape \[4, 3, 5\]"):
        ops.channel_mean_max(X[0])


# --- what is no number, or would not fit ----------------------------------------------------------

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stats", ["instance", "batch", "group:2"])
def test_nan_in_the_hole_stays_there(
    implementation: str, stats: str, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    mask = half_mask(2, 6, 8)
    weight, bias = torch.randn(2, 4), torch.randn(2, 4)
    known = ~mask.expand(-1, 4, -1, -1)
    results, gradients = [], []
    for under in (0.0, torch.nan):
        x = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
        x = torch.where(known, x, under).contiguous(memory_format=layout).requires_grad_()
        result = ops.region_norm(x, mask, weight, bias, stats=stats)
        (gradient,) = torch.autograd.grad(result.float().sin().sum(), x)
        results.append(result[known])
        gradients.append(gradient[known])
    assert torch.equal(*results)
    assert torch.equal(*gradients)


class Products(TorchDispatchMode):
    """Counts matrix products, whose precision is a setting of the process."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "mm" in str(func):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_statistics_do_not_obey_the_precision_of_matrix_products(implementation: str) -> None:
    x, labels = torch.randn(2, 4, 6, 8, requires_grad=True), torch.randint(0, 3, (2, 1, 6, 8))
    layers = [
        RegionNorm2d(4, 3),
        RegionNorm2d(4, 3, stats="batch", eps_on="map"),
        RegionNorm2d(4, 3, stats="batch", track_running_stats=True),
    ]
    with Products() as products:
        for layer in layers:
            layer(x, labels).sum().backward()
        layers[-1].eval()(x, labels)
    assert not products.found


@pytest.mark.parametrize("dtypes", [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_features_and_learnable_weights_may_differ_in_dtype(
    implementation: str, dtypes: tuple[str, str]
) -> None:
    ours, theirs = (getattr(torch, name) for name in dtypes)
    x = torch.randn(1, 4, 9, 8).to(ours)
    weights = [torch.randn(shape).to(theirs) for shape in ((1, 2, 3, 3), (2, 1, 3, 3), (2,))]
    result = ops.learnable_region_norm(x, *weights, threshold=0.5)
    exact = [tensor.double() for tensor in (x, *weights)]
    expected = ops.learnable_region_norm(*exact, threshold=0.5)
    assert result.dtype == ours
    torch.testing.assert_close(result.double(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_channel_that_is_nan_makes_the_maximum_nan(
    implementation: str, layout: torch.memory_format
) -> None:
    x = torch.randn(2, 5, 6, 7)
    x[0, 0, 0, 0] = x[0, 2, 1, 1] = x[1, 4, 5, 6] = torch.nan
    x[1, 1, 2, 2], x[1, 3, 2, 2] = torch.inf, -torch.inf  # their mean is NaN, their maximum is not
    found = ops.channel_mean_max(x.contiguous(memory_format=layout))
    torch.testing.assert_close(found[:, 1], x.amax(1), rtol=0, atol=0, equal_nan=True)
    assert found[:, 0].isnan().sum() == 4


FORWARD_DERIVATIVES = "ignore:.*torch.jit.script.*:DeprecationWarning"


@pytest.mark.filterwarnings(FORWARD_DERIVATIVES)
def test_gradients_of_a_batch_of_calls_are_those_of_each_call() -> None:
    x, mask = torch.randn(3, 1, 4, 5, 6), half_mask(3, 5, 6)[:, None]
    weights = torch.randn(1, 2, 3, 3), torch.randn(2, 1, 3, 3), torch.randn(2)
    for function in (
        lambda x, mask: ops.region_norm(x, mask).sin().sum(),
        lambda x, mask: ops.region_norm(x, mask.long()).sin().sum(),
        lambda x, mask: ops.region_norm(x, mask.long(), torch.ones(2, 4)).sin().sum(),
        lambda x, mask: ops.region_norm(x, 3 * mask.long(), torch.ones(4, 4)).sin().sum(),
        lambda x, mask: ops.learnable_region_norm(x, *weights, threshold=0.5).sin().sum(),
    ):
        found = torch.vmap(torch.func.grad(function))(x, mask)
        expected = [torch.func.grad(function)(*each) for each in zip(x, mask, strict=True)]
        torch.testing.assert_close(found, torch.stack(expected))


def test_labels_out_of_range_are_refused_in_a_batch_of_calls_too() -> None:
    x, labels = torch.randn(3, 1, 4, 2, 2), torch.full((3, 1, 1, 2, 2), 2)
    with pytest.raises(ValueError, match="labels range from 2 to 2; expected 0 to 1"):
        torch.vmap(lambda x, labels: ops.region_norm(x, labels, torch.ones(2, 4)))(x, labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("label", [3, -1, 256])
def test_compiled_code_refuses_labels_out_of_range(label: int, dtype: torch.dtype) -> None:
    layer = torch.compile(RegionNorm2d(4, 3), backend="aot_eager", fullgraph=True)
    x, labels = torch.randn(1, 4, 3, 3).to(dtype), torch.tensor([0, 1, 2] * 3).view(1, 1, 3, 3)
    assert layer(x, labels).isfinite().all()
    labels[..., 1, 1] = label
    with pytest.raises(RuntimeError, match="a label is out of range; expected 0 to 2"):
        layer(x, labels)


@pytest.mark.parametrize("operation", ["affine", "pixel", "learned"])
def test_gradients_that_can_be_differentiated_again_count_every_way_once(
    implementation: str, operation: str
) -> None:
    x = torch.randn(2, 4, 9, 7, requires_grad=True)
    mask = half_mask(2, 9, 7)
    weights = torch.randn(1, 2, 3, 3), torch.randn(2, 1, 3, 3), torch.randn(2)
    mean = x.mean((0, 2, 3)).expand(2, -1)
    result = {
        "affine": lambda: ops.region_norm(x, mask, mean, mean.sin()),
        "pixel": lambda: ops.region_norm_per_pixel(
            x, mask, x.mean(1, keepdim=True).sigmoid(), x.amax(1, keepdim=True)
        ),
        "learned": lambda: ops.learnable_region_norm(x, x.mean() * weights[0], *weights[1:]),
    }[operation]()
    loss = result.pow(3).sum()
    (once,) = torch.autograd.grad(loss, x, retain_graph=True)
    (again,) = torch.autograd.grad(loss, x, create_graph=True)
    torch.testing.assert_close(again, once, rtol=1e-3, atol=1e-3)


def test_the_number_of_regions_can_be_given() -> None:
    x, labels = torch.randn(2, 4, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.long)
    expected = ops.region_norm(x, None)
    torch.testing.assert_close(ops.region_norm(x, labels, num_regions=3), expected)
    with pytest.raises(ValueError, match="labels range from 3 to 3; expected 0 to 2"):
        ops.region_norm(x, labels + 3, num_regions=3)
    with pytest.raises(ValueError, match="a two-region mask, but 3 regions"):
        ops.region_norm(x, labels > 0, num_regions=3)
    with pytest.raises(ValueError, match="num_regions is 3, but affine parameters of 2 regions"):
        ops.region_norm(x, labels, torch.ones(2, 4), num_regions=3)


@pytest.mark.parametrize("regions", [2, 3])
@pytest.mark.parametrize("stats", ["instance", "batch", "layer", "group:2"])
def test_an_empty_batch_gives_an_empty_batch(implementation: str, stats: str, regions: int) -> None:
    x, labels = torch.zeros(0, 4, 8, 8), torch.zeros(0, 1, 8, 8, dtype=torch.long)
    affine = torch.ones(regions, 4)
    assert ops.region_norm(x, labels, affine, affine, stats=stats).shape == x.shape
