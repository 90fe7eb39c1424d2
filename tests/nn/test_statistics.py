"""Statistics that are shared by processes or remembered for test time."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from regionnorm import ops
from regionnorm.nn import LearnableRegionNorm2d, RegionNorm2d
from regionnorm.nn import region_norm as layers
from regionnorm.ops.backend import HAS_NUMBA, set_backend

WORKER = Path(__file__).with_name("two_processes.py")


def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("two_processes", WORKER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """What two processes find, each with half of the batch."""
    folder = tmp_path_factory.mktemp("two_processes")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(rank), str(folder / "rendezvous"), str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def whole() -> dict[str, Tensor]:
    """What one process finds with the whole batch."""
    helper = worker()
    layers = helper.make_layers()
    found: dict[str, Tensor] = helper.run(layers, *helper.make_batch())
    return found


@pytest.mark.parametrize("name", ["y", "z", "x"])
def test_two_processes_give_the_outputs_and_gradients_of_one(
    name: str, halves: list[dict[str, Tensor]], whole: dict[str, Tensor]
) -> None:
    together = torch.cat([half[name] for half in halves])
    torch.testing.assert_close(together, whole[name], rtol=1e-5, atol=1e-5)


def test_parameter_gradients_of_two_processes_add_up_to_those_of_one(
    halves: list[dict[str, Tensor]], whole: dict[str, Tensor]
) -> None:
    names = [name for name in whole if name.startswith("grad ")]
    assert len(names) == 5
    for name in names:
        total = halves[0][name] + halves[1][name]
        torch.testing.assert_close(total, whole[name], rtol=1e-5, atol=1e-5)


def test_all_processes_remember_the_averages_of_the_whole_batch(
    halves: list[dict[str, Tensor]], whole: dict[str, Tensor]
) -> None:
    names = [name for name in whole if "running" in name or "tracked" in name]
    assert len(names) == 6
    for name in names:
        for half in halves:
            torch.testing.assert_close(half[name], whole[name], rtol=1e-5, atol=1e-5)


def test_one_process_evaluates_alone_without_waiting(halves: list[dict[str, Tensor]]) -> None:
    assert torch.isfinite(halves[0]["alone"]).all()
    x, mask = worker().make_batch()
    expected = ops.region_norm(x[:2], mask[:2], stats="batch")
    torch.testing.assert_close(halves[0]["alone untracked"], expected)


def tracked(momentum: float | None = 0.1) -> RegionNorm2d:
    return RegionNorm2d(3, stats="batch", track_running_stats=True, momentum=momentum)


def test_in_evaluation_a_picture_does_not_depend_on_its_neighbours() -> None:
    layer = tracked()
    learnable = LearnableRegionNorm2d(3, threshold=0.5, stats="batch", track_running_stats=True)
    x, mask = torch.randn(4, 3, 6, 5), torch.rand(4, 1, 6, 5).round()
    learnable(layer(x, mask))
    layer.eval(), learnable.eval()
    for alone, together in (
        (layer(x[1:2], mask[1:2]), layer(x, mask)[1:2]),
        (learnable(x[1:2]), learnable(x)[1:2]),
    ):
        torch.testing.assert_close(alone, together)
    untracked = RegionNorm2d(3, stats="batch").eval()
    assert not torch.allclose(untracked(x[1:2], mask[1:2]), untracked(x, mask)[1:2], atol=1e-3)


def test_one_region_averages_as_batch_norm_does() -> None:
    ours = RegionNorm2d(3, 1, stats="batch", track_running_stats=True, momentum=None)
    theirs = nn.BatchNorm2d(3, momentum=None)
    for _ in range(4):
        x = torch.randn(2, 3, 6, 5) * 2 + 1
        labels = torch.zeros(2, 1, 6, 5, dtype=torch.long)
        torch.testing.assert_close(ours(x, labels), theirs(x), rtol=1e-5, atol=1e-5)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(ours, name)[0], getattr(theirs, name))
    torch.testing.assert_close(ours.eval()(x, labels), theirs.eval()(x), rtol=1e-5, atol=1e-5)


def test_each_region_has_its_own_average() -> None:
    layer = tracked(momentum=None)
    mask = torch.rand(2, 1, 6, 5).round()
    batches = [torch.randn(2, 3, 6, 5) + 7 * mask for _ in range(3)]
    for x in batches:
        layer(x, mask)
    hole = (mask > 0).expand(-1, 3, -1, -1)
    assert layer.running_mean is not None and layer.running_var is not None
    for region, inside in enumerate((~hole, hole)):
        values = torch.stack([x.transpose(0, 1)[inside.transpose(0, 1)] for x in batches])
        values = values.view(3, 3, -1)
        torch.testing.assert_close(layer.running_mean[region], values.mean(2).mean(0))
        torch.testing.assert_close(layer.running_var[region], values.var(2).mean(0))


def test_momentum_weighs_later_batches() -> None:
    layer = tracked(momentum=0.25)
    mask = torch.zeros(1, 1, 4, 4)
    means = []
    for step in range(8):
        x = torch.randn(1, 3, 4, 4) + step
        layer(x, mask)
        means.append(x.mean((0, 2, 3)))
    expected = means[0]
    for step, mean in enumerate(means[1:], start=2):
        expected = torch.lerp(expected, mean, max(0.25, 1 / step))
    assert layer.running_mean is not None
    torch.testing.assert_close(layer.running_mean[0], expected)


def test_a_region_that_never_occurred_uses_the_statistics_of_all_pixels() -> None:
    layer = tracked()
    x = torch.randn(2, 3, 6, 5) * 4 + 9
    layer(x, torch.zeros(2, 1, 6, 5))
    assert layer.num_batches_tracked is not None
    assert layer.num_batches_tracked.tolist() == [1, 0]
    filled = layer.eval()(x, torch.ones(2, 1, 6, 5))
    assert abs(filled.mean()) < 1e-4 and abs(filled.std() - 1) < 0.02
    layer.train()(torch.randn(2, 3, 6, 5) - 5, torch.ones(2, 1, 6, 5))
    assert layer.running_mean is not None
    assert (layer.running_mean[1] < -4).all() and (layer.running_mean[0] > 7).all()


def test_averages_are_part_of_the_state_dict_and_change_in_training_only() -> None:
    layer = tracked()
    x, mask = torch.randn(2, 3, 6, 5), torch.rand(2, 1, 6, 5).round()
    layer(x, mask)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    assert {"running_mean", "running_var", "num_batches_tracked"} <= before.keys()
    layer.eval()(x + 3, mask)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])
    copy = tracked()
    copy.load_state_dict(before)
    assert torch.equal(copy.eval()(x, mask), layer(x, mask))


@pytest.mark.parametrize("stats", ["instance", "batch"])
def test_eps_on_the_map_adds_n_over_region_times_eps(stats: str) -> None:
    x, mask = torch.randn(2, 3, 6, 5), torch.zeros(2, 1, 6, 5)
    mask[:, :, :2] = 1
    layer = RegionNorm2d(3, stats=stats, eps=0.1, eps_on="map")
    regions = [ops.region_norm(x, mask, stats=stats, eps=0.1 * 3 / size) for size in (2, 1)]
    torch.testing.assert_close(layer(x, mask), torch.where(mask > 0, regions[1], regions[0]))


def test_plain_and_kernel_statistics_agree_under_autocast() -> None:
    x, mask = torch.randn(2, 3, 6, 5) + 50, torch.rand(2, 1, 6, 5).round()
    layer = RegionNorm2d(3, stats="batch", eps_on="map", eps=1e-12)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x, mask)
    torch.testing.assert_close(found, ops.region_norm(x, mask, stats="batch", eps=1e-12))


def test_settings_without_meaning_are_refused() -> None:
    with pytest.raises(ValueError, match="track_running_stats goes with stats='batch'"):
        RegionNorm2d(3, track_running_stats=True)
    with pytest.raises(ValueError, match="eps_on is 'image'"):
        RegionNorm2d(3, eps_on="image")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="eps_on='map' goes with"):
        LearnableRegionNorm2d(4, stats="group:2", eps_on="map")


def test_a_momentum_of_zero_freezes_the_averages() -> None:
    layer = tracked(momentum=0.0)
    layer(torch.randn(2, 3, 6, 5) + 7, torch.rand(2, 1, 6, 5).round())
    assert layer.running_mean is not None and layer.running_var is not None
    assert not layer.running_mean.any() and (layer.running_var == 1).all()


def test_nan_under_the_hole_leaves_no_trace_in_the_averages() -> None:
    layer = RegionNorm2d(3, 3, stats="batch", track_running_stats=True)
    labels = torch.zeros(2, 1, 6, 5, dtype=torch.long)
    labels[:, :, 3:] = 1
    x = torch.randn(2, 3, 6, 5) + 7
    layer(torch.where(labels == 1, torch.nan, x), labels)
    assert layer.running_mean is not None and layer.running_var is not None
    assert (layer.running_mean > 6).all() and layer.running_var.isfinite().all()
    layer(x - 14, labels)
    assert (layer.running_mean[1] < -6).all()


def test_one_mask_serves_a_batch_in_evaluation_too() -> None:
    layer = tracked()
    x, mask = torch.randn(2, 3, 6, 5), torch.rand(1, 1, 6, 5).round()
    layer(x, mask)
    found = layer.eval()(x, mask)
    torch.testing.assert_close(found, layer(x, mask.expand(2, -1, -1, -1)))


def tracked_kind(kind: str) -> RegionNorm2d | LearnableRegionNorm2d:
    torch.manual_seed(1)
    if kind == "RN-L":
        return LearnableRegionNorm2d(5, threshold=0.5, stats="batch", track_running_stats=True)
    regions = 3 if kind == "three regions" else 2
    return RegionNorm2d(5, regions, stats="batch", track_running_stats=True)


@pytest.mark.skipif(not HAS_NUMBA, reason="needs numba: pip install 'regionnorm[fast]'")
@pytest.mark.parametrize("kind", ["RN-B", "three regions", "RN-L"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_averages_come_from_the_kernels_and_equal_the_plain_ones(
    kind: str, layout: torch.memory_format, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, plain = tracked_kind(kind), tracked_kind(kind)
    for step in range(3):
        x = (torch.randn(3, 5, 12, 9) * 3 + 40).to(dtype).to(memory_format=layout)
        mask = torch.randint(0, 3 if kind == "three regions" else 2, (3, 1, 12, 9))
        if step == 0:
            mask[:] = 0  # a region that does not occur
        given = (x,) if kind == "RN-L" else (x, mask)
        with monkeypatch.context() as patch:
            patch.setattr(layers, "region_moments", None)  # not called beside the kernels
            result = ours(*(t.clone().requires_grad_(t.is_floating_point()) for t in given))
        result.float().sum().backward()
        set_backend("plain")
        try:
            wanted = plain(*given)
        finally:
            set_backend("auto")
        assert torch.allclose(
            result.float(), wanted.float(), atol=2e-4 if dtype.itemsize == 4 else 0.1
        )
    for name, buffer in ours.named_buffers():
        other = plain.get_buffer(name)
        assert torch.allclose(buffer, other, rtol=1e-4, atol=1e-4), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["RN-B", "RN-L"])
def test_layers_in_half_precision_follow_too(kind: str, dtype: torch.dtype) -> None:
    layer, half = tracked_kind(kind), tracked_kind(kind).to(dtype)
    x, mask = torch.randn(3, 5, 12, 9).to(dtype), torch.rand(3, 1, 12, 9).round()
    half(x) if kind == "RN-L" else half(x, mask)
    layer(x.float()) if kind == "RN-L" else layer(x.float(), mask)
    for name, buffer in half.named_buffers():
        assert torch.allclose(buffer.float(), layer.get_buffer(name).float(), atol=0.05), name
