"""The CPU kernels against the plain implementation in float64."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regionnorm import ops
from regionnorm.nn import LearnableRegionNorm2d, RegionNorm2d
from regionnorm.ops.backend import backend
from regionnorm.ops.cpu import operators as library
from regionnorm.ops.cpu import threads as pools

BFLOAT16 = 2.0**-8  # relative rounding error


@dataclass(frozen=True)
class Case:
    """Inputs that hypothesis can name; the numbers follow from the seed."""

    shape: tuple[int, int, int, int]
    regions: int | None  # None: a two-region mask of bool
    fill: str
    stats: str
    relu: bool
    affine: bool
    layout: str
    offset: float
    seed: int

    def tensors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None, list[Tensor | None]]:
        """Features, mask and affine parameters."""
        generator = torch.Generator().manual_seed(self.seed)
        samples, channels, height, width = self.shape
        x = torch.randn(self.shape, generator=generator) + self.offset
        count = self.regions or 2
        size = (samples, 1, height, width)
        labels = torch.randint(0, count, size, generator=generator)
        if self.fill == "empty":
            labels.zero_()
        elif self.fill == "full":
            labels.fill_(count - 1)
        elif self.fill == "pixel":
            labels.zero_()[:, :, -1, -1] = count - 1
        elif self.fill == "box":
            labels.zero_()[:, :, : height // 2, : width // 2] = count - 1
        mask = labels.bool() if self.regions is None else None if count == 1 else labels
        parameters: list[Tensor | None] = [None, None]
        if self.affine:
            parameters = [torch.randn(count, channels, generator=generator) for _ in range(2)]
        return arrange(x.to(dtype), self.layout), mask, parameters


def arrange(x: Tensor, layout: str) -> Tensor:
    """The same values in another memory layout."""
    if layout == "channels_last":
        return x.to(memory_format=torch.channels_last)
    if layout == "sliced":
        return torch.stack((x, -x), dim=-1).flatten(3)[..., ::2]
    if layout == "transposed":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    return x


cases = st.builds(
    Case,
    shape=st.tuples(
        st.integers(1, 3), st.sampled_from([2, 4, 18, 40]), st.integers(1, 23), st.integers(1, 23)
    ),
    regions=st.sampled_from([None, None, 1, 2, 3, 5]),
    fill=st.sampled_from(["random", "random", "empty", "full", "pixel", "box"]),
    stats=st.sampled_from(["instance", "instance", "batch", "layer", "group:2"]),
    relu=st.booleans(),
    affine=st.booleans(),
    layout=st.sampled_from(["contiguous", "channels_last", "channels_last", "sliced"]),
    offset=st.sampled_from([0.0, 3.0, 1e4]),
    seed=st.integers(0, 1000),
)
quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def assert_near(actual: Tensor, expected: Tensor, scale: float, dtype: torch.dtype) -> None:
    """Compare with an error relative to ``scale``, plus the rounding of the dtype."""
    rounding = BFLOAT16 * expected.abs() if dtype == torch.bfloat16 else 0.0
    error = (actual.double() - expected).abs() - rounding
    assert error.max() <= 1e-5 * scale, f"off by {error.max().item():.1e} at scale {scale:.1e}"


def compare(function: Any, inputs: list[Tensor], dtype: torch.dtype, slope: float) -> None:
    """Results and gradients of the kernels against float64; ``slope`` bounds d result / d x."""
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    with backend("numba"):
        result = function(*inputs)
    with backend("plain"):
        expected = function(*exact)
    assert result.dtype == dtype and result.shape == inputs[0].shape
    assert_near(result, expected.detach(), expected.abs().max().item() + 1, dtype)
    grad = torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = torch.autograd.grad(result, inputs, grad)
    wanted = torch.autograd.grad(expected, exact, grad.double())
    assert_near(found[0], wanted[0], 5 * slope, dtype)
    for actual, gradient in zip(found[1:], wanted[1:], strict=True):
        assert_near(actual, gradient, gradient.abs().max().item() + 20, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@quick
@given(case=cases)
def test_region_norm_agrees_with_float64(dtype: torch.dtype, case: Case) -> None:
    x, mask, parameters = case.tensors(dtype)
    given_parameters = [parameter for parameter in parameters if parameter is not None]
    activation = "relu" if case.relu else None

    def function(x: Tensor, *affine: Tensor) -> Tensor:
        # eps keeps the slope of tiny regions, and so their rounding errors, within bounds
        return ops.region_norm(x, mask, *affine, stats=case.stats, eps=0.1, activation=activation)

    compare(function, [x, *given_parameters], dtype, slope=12.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@quick
@given(case=cases)
def test_region_norm_per_pixel_agrees_with_float64(dtype: torch.dtype, case: Case) -> None:
    x, mask, _ = case.tensors(dtype)
    if mask is None or (case.regions or 2) > 2:
        mask = torch.zeros(x.shape[0], 1, *x.shape[2:])
    generator = torch.Generator().manual_seed(case.seed)
    maps = torch.randn((x.shape[0], 2, *x.shape[2:]), generator=generator)
    scale, shift = maps.chunk(2, 1) if case.affine else (maps[:, :1].clone(), maps[:, 1:].clone())
    activation = "relu" if case.relu else None

    def function(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return ops.region_norm_per_pixel(
            x, mask, scale, shift, stats=case.stats, eps=0.1, activation=activation
        )

    compare(function, [x, scale, shift], dtype, slope=12.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
@pytest.mark.parametrize("stats", ["instance", "batch"])
@pytest.mark.parametrize("size", [(7, 2, 18, 33, 40), (3, 3, 40, 9, 70), (1, 1, 5, 16, 16)])
def test_learnable_region_norm_agrees_with_float64(
    dtype: torch.dtype, layout: str, stats: str, size: tuple[int, int, int, int, int]
) -> None:
    kernel_size, *shape = size
    generator = torch.Generator().manual_seed(7)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    x = arrange(random(*shape).to(dtype), layout)
    first = random(1, 2, kernel_size, kernel_size) / kernel_size
    second = random(2, 1, kernel_size, kernel_size) / kernel_size

    def function(*inputs: Tensor) -> Tensor:
        return ops.learnable_region_norm(
            *inputs, threshold=0.6, stats=stats, eps=0.1, activation="relu"
        )

    # in bfloat16 the gradient of x is rounded twice: it is the sum of two
    slope = 50.0 if dtype == torch.float32 else 500.0
    compare(function, [x, first, second, random(2)], dtype, slope)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@quick
@given(case=cases)
def test_channel_mean_max_agrees_with_float64(dtype: torch.dtype, case: Case) -> None:
    x = case.tensors(dtype)[0].requires_grad_()
    exact = x.detach().double().requires_grad_()
    with backend("numba"):
        result = ops.channel_mean_max(x)
    with backend("plain"):
        expected = ops.channel_mean_max(exact)
    assert_near(result, expected.detach(), expected.abs().max().item(), dtype)
    grad = torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    (found,) = torch.autograd.grad(result, x, grad)
    (wanted,) = torch.autograd.grad(expected, exact, grad.double())
    assert_near(found, wanted, 1.0, dtype)


LAYOUTS = ["contiguous", "channels_last"]


def everything(x: Tensor) -> list[Tensor]:
    """Results and gradients of all operations, for bitwise comparison."""
    generator = torch.Generator().manual_seed(2)
    parameters = [
        torch.randn(shape, generator=generator).requires_grad_()
        for shape in ((2, 20), (2, 20), (1, 2, 7, 7), (2, 1, 7, 7), (2,))
    ]
    mask = torch.rand((x.shape[0], 1, *x.shape[2:]), generator=generator) > 0.5
    x = x.detach().requires_grad_()
    results = [
        ops.region_norm(x, mask, *parameters[:2], activation="relu"),
        ops.region_norm(x, mask.long() * 2, stats="batch"),
        ops.learnable_region_norm(x, *parameters[2:]),
        ops.channel_mean_max(x),
    ]
    total = sum(result.float().square().sum() for result in results)
    return [*results, *torch.autograd.grad(total, [x, *parameters])]


@pytest.fixture
def restore_threads() -> Any:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pool", ["openmp", "python"])
def test_results_do_not_depend_on_threads(
    layout: str, pool: str, monkeypatch: pytest.MonkeyPatch, restore_threads: None
) -> None:
    if pool == "python":
        monkeypatch.setattr(pools, "_openmp_parallel", lambda: None)
    x = arrange(torch.randn(3, 20, 41, 37), layout)
    torch.set_num_threads(1)
    expected = everything(x)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        for actual, value in zip(everything(x), expected, strict=True):
            assert torch.equal(actual, value)


def test_several_callers_at_once_do_not_disturb_each_other() -> None:
    x = torch.randn(2, 20, 64, 64)
    expected = everything(x)
    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(everything, [x] * 8):
            assert all(map(torch.equal, results, expected))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_is_kept(layout: str) -> None:
    x = arrange(torch.randn(2, 20, 8, 8), layout).requires_grad_()
    result = ops.region_norm(x, torch.rand(2, 1, 8, 8).round())
    assert result.stride() == x.stride()
    (grad,) = torch.autograd.grad(result.sum(), x)
    assert grad.stride() == x.stride()


def test_result_is_the_same_with_and_without_gradients() -> None:
    x = torch.randn(2, 20, 16, 16)
    with torch.no_grad():
        bare = ops.region_norm(x, None)
    assert torch.equal(bare, ops.region_norm(x.requires_grad_(), None))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_keeps_little_more_than_its_input_for_the_backward_pass(
    dtype: torch.dtype,
) -> None:
    x = torch.randn(2, 64, 32, 32, dtype=dtype, requires_grad=True)
    mask = torch.rand(2, 1, 32, 32) > 0.5
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        ops.region_norm(x, mask, torch.ones(2, 64), torch.zeros(2, 64), activation="relu")
    assert sum(kept) < 1.06 * x.numel() * x.element_size()


def test_second_derivatives_are_those_of_the_plain_implementation() -> None:
    weights = torch.randn(1, 2, 3, 3), torch.randn(2, 1, 3, 3), torch.randn(2)
    maps = torch.randn(2, 1, 6, 8), torch.randn(2, 1, 6, 8)
    mask = torch.rand(2, 1, 6, 8) > 0.5
    x = torch.randn(2, 4, 6, 8)
    for function in (
        lambda x: ops.region_norm(x, mask),
        lambda x: ops.region_norm_per_pixel(x, mask, *maps),
        lambda x: ops.learnable_region_norm(x, *weights),
        lambda x: ops.channel_mean_max(x),
    ):
        found = []
        for name in ("numba", "plain"):
            with backend(name):
                value = x.clone().requires_grad_()
                (first,) = torch.autograd.grad(
                    function(value).sin().sum(), value, create_graph=True
                )
                found.append(torch.autograd.grad(first.square().sum(), value)[0])
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


class Layers(torch.nn.Module):
    """All operations one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 4))
        self.bias = torch.nn.Parameter(torch.zeros(2, 4))
        self.first = torch.nn.Parameter(torch.randn(1, 2, 3, 3))
        self.second = torch.nn.Parameter(torch.randn(2, 1, 3, 3))
        self.third = torch.nn.Parameter(torch.randn(2))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = ops.region_norm(x, mask, self.weight, self.bias, activation="relu")
        x = ops.learnable_region_norm(x, self.first, self.second, self.third)
        mean, most = ops.channel_mean_max(x).chunk(2, 1)
        return ops.region_norm_per_pixel(x, mask, mean, most, stats="batch")


def operators(graph: torch.fx.Graph) -> set[str]:
    """Names of this package's operators in a graph."""
    return {str(node.target) for node in graph.nodes if "regionnorm" in str(node.target)}


def test_compiled_code_keeps_the_kernels_without_a_graph_break() -> None:
    graphs: list[torch.fx.Graph] = []

    def note(module: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(module.graph)
        return module

    layers, x, mask = Layers(), torch.randn(2, 4, 9, 8), torch.rand(2, 1, 9, 8).round()
    compiled = torch.compile(layers, backend=note, fullgraph=True)
    assert torch.equal(compiled(x, mask), layers(x, mask))
    assert len(operators(graphs[0])) == 4


def test_compiled_code_has_the_same_gradients() -> None:
    layers, mask = Layers(), torch.rand(2, 1, 9, 8).round()
    x = torch.randn(2, 4, 9, 8).to(memory_format=torch.channels_last).requires_grad_()
    compiled = torch.compile(layers, backend="aot_eager", fullgraph=True)
    leaves = [x, *layers.parameters()]
    expected = torch.autograd.grad(layers(x, mask).square().sum(), leaves)
    found = torch.autograd.grad(compiled(x, mask).square().sum(), leaves)
    for actual, gradient in zip(found, expected, strict=True):
        torch.testing.assert_close(actual, gradient)


def test_exported_programs_hold_plain_operations_only() -> None:
    layers, x, mask = Layers(), torch.randn(2, 4, 9, 8), torch.rand(2, 1, 9, 8).round()
    program = torch.export.export(layers, (x, mask))
    assert not operators(program.graph)
    torch.testing.assert_close(program.module()(x, mask), layers(x, mask), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_functional_transforms_take_the_plain_path() -> None:
    x, mask = torch.randn(3, 1, 4, 5, 6), torch.rand(1, 1, 5, 6).round()
    found = torch.vmap(lambda x: ops.region_norm(x, mask))(x)
    torch.testing.assert_close(found, torch.stack([ops.region_norm(each, mask) for each in x]))
    gradient = torch.func.grad(lambda x: ops.region_norm(x, mask).sin().sum())(x[0])
    assert gradient.isfinite().all()
    _, tangent = torch.func.jvp(lambda x: ops.region_norm(x, mask), (x[0],), (x[1],))
    assert tangent.isfinite().all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_operators_keep_the_rules_of_the_library(layout: str) -> None:
    x = arrange(torch.randn(2, 4, 5, 6), layout).requires_grad_()
    labels = torch.randint(0, 2, (2, 30), dtype=torch.uint8)
    options = ("instance", 1, 1e-5, True)
    maps = [torch.randn(2, 1, 5, 6, requires_grad=True) for _ in range(2)]
    affine = [torch.randn(2, 4, requires_grad=True) for _ in range(2)]
    learned = [
        torch.randn(shape, requires_grad=True) for shape in ((1, 2, 3, 3), (2, 1, 3, 3), (2,))
    ]
    for name, arguments in (
        ("region_norm", (x, labels, *affine, 2, *options)),
        ("per_pixel", (x, labels, *maps, *options)),
        ("learnable", (x, *learned, 0.6, *options)),
        ("mean_max", (x,)),
    ):
        torch.library.opcheck(
            library.OPERATORS[name].default,
            arguments,
            test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
        )


def test_importing_the_package_does_not_import_numba() -> None:
    code = "import sys, regionnorm.ops; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_compiler_is_told_the_layout_of_the_gradients_of_channels_last_weights() -> None:
    x, grad = torch.randn(2, 1, 4, 9, 9)
    layout = torch.channels_last
    weights = torch.randn(1, 2, 7, 7), torch.randn(2, 1, 7, 7)
    first, second = (weight.contiguous(memory_format=layout) for weight in weights)
    options = (0.5, "instance", 1, 1e-5, False)
    bias = torch.randn(2)
    _, *kept = library.OPERATORS["learnable"](x, first, second, bias, *options)
    arguments = (grad, x, first, second, bias, *kept, *options)
    real = library.IMPLEMENTATIONS["learnable_backward"](*arguments)
    fake = library.FAKES["learnable_backward"](*arguments)
    assert [tensor.stride() for tensor in fake] == [tensor.stride() for tensor in real]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("what", ["dtype", "device"])
def test_kernels_do_not_obey_the_defaults_for_new_tensors(
    what: str, layout: torch.memory_format
) -> None:
    """Half of the memory that a kernel writes into would be of another's."""
    x = torch.randn(2, 8, 32, 32).to(memory_format=layout)
    mask = torch.rand(2, 1, 32, 32) > 0.5
    basic, tracked = (RegionNorm2d(8, stats="batch", track_running_stats=t) for t in (False, True))
    learned = LearnableRegionNorm2d(8)

    def run() -> list[Tensor]:
        given = x.clone().requires_grad_()
        results = [basic(given, mask), tracked.eval()(given, mask), learned(given)]
        total = torch.stack([result.square().sum() for result in results]).sum()
        return [*results, *torch.autograd.grad(total, [given, *learned.parameters()])]

    expected = run()
    try:
        if what == "dtype":
            torch.set_default_dtype(torch.float64)
        else:
            torch.set_default_device("meta")
        found = run()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
