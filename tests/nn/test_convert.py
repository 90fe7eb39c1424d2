"""RN layers in networks of other packages."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest
import torch
from monai.networks.nets import UNet
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from regionnorm import ops
from regionnorm.nn import ConvertedNetwork, LearnableRegionNorm2d, RegionNorm2d, convert_region_norm


class Block(nn.Module):
    def __init__(self, before: int, after: int, norm: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(before, after, 3, padding=1, stride=2), norm)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x))


class Network(nn.Module):
    """Encoder with a norm used twice, decoder with a nested norm."""

    def __init__(self, norm: Any = nn.InstanceNorm2d, reentrant: bool | None = None) -> None:
        super().__init__()
        shared = norm(6, affine=True)
        self.encoder = nn.ModuleDict(
            {
                "first": Block(3, 6, shared),
                "second": Block(6, 6, shared),
                "third": Block(6, 8, norm(8)),
            }
        )
        self.decoder = nn.Sequential(nn.Upsample(scale_factor=8), nn.Conv2d(8, 4, 1), norm(4))
        self.output = nn.Conv2d(4, 3, 1)
        self.reentrant = reentrant
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.InstanceNorm2d | nn.BatchNorm2d) and module.affine:
                    nn.init.normal_(module.weight, 1, 0.3)
                    nn.init.normal_(module.bias, 0, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.encoder.values():
            if self.reentrant is None:
                x = block(x)
            else:
                x = checkpoint(block, x, use_reentrant=self.reentrant)
        output: Tensor = self.output(self.decoder(x))
        return output


def batch(count: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, 32, 24, generator=random)
    mask = torch.zeros(count, 1, 32, 24)
    mask[:, :, 8 + seed : 24, 6:20] = 1
    return x, mask


def kinds(net: ConvertedNetwork) -> list[str]:
    return [what.split(" -> ")[1] for what in net.converted.values()]


def parameters(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def monai_unet(norm: str = "instance") -> UNet:
    return UNet(
        spatial_dims=2,
        in_channels=3,
        out_channels=3,
        channels=(4, 8, 8),
        strides=(2, 2),
        num_res_units=1,
        norm=(norm, {"affine": True}),
    )


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_monai_unet_becomes_rn_b_down_and_rn_l_up(norm: str) -> None:
    net = convert_region_norm(monai_unet(norm), encoder="model.1.submodule.1.submodule")
    assert kinds(net) == ["RN-B"] * 3 + ["RN-L"] * 3
    assert not any(isinstance(m, nn.InstanceNorm2d | nn.BatchNorm2d) for m in net.modules())
    x, mask = batch()
    output = net(x, mask)
    assert output.shape == x.shape
    output.square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert net.summary().count("\n") == 5
    assert "model.0.conv.unit0.adn.N" in net.summary()


def test_monai_unet_learns_to_fill() -> None:
    net = convert_region_norm(monai_unet())
    x, mask = batch()
    target = nn.functional.avg_pool2d(x, 9, stride=1, padding=4)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        loss = (net(target * (1 - mask) + mask, mask) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_layers_up_to_the_end_of_a_module_become_rn_b_and_later_ones_rn_l() -> None:
    net = convert_region_norm(Network(), encoder="encoder")
    assert net.converted == {
        "encoder.first.body.1": "InstanceNorm2d(6) -> RN-B",
        "encoder.third.body.1": "InstanceNorm2d(8) -> RN-B",
        "decoder.2": "InstanceNorm2d(4) -> RN-L",
    }
    inside: Any = net.net
    assert isinstance(inside.encoder["third"].body[1], RegionNorm2d)
    assert isinstance(inside.decoder[2], LearnableRegionNorm2d)


@pytest.mark.parametrize(
    ("encoder", "learnable", "expected"),
    [
        (None, True, ["RN-B", "RN-B", "RN-L"]),
        (1, True, ["RN-B", "RN-L", "RN-L"]),
        (0, True, ["RN-L", "RN-L", "RN-L"]),
        (3, True, ["RN-B", "RN-B", "RN-B"]),
        (2, False, ["RN-B", "RN-B"]),
        ("encoder.first", True, ["RN-B", "RN-L", "RN-L"]),
        (["encoder.third", "decoder"], True, ["RN-L", "RN-B", "RN-B"]),
        (["encoder.first"], "decoder", ["RN-B", "RN-L"]),
        (lambda name: "third" in name, lambda name: "decoder" in name, ["RN-B", "RN-L"]),
    ],
)
def test_the_point_is_a_number_a_name_names_or_a_function(
    encoder: Any, learnable: Any, expected: list[str]
) -> None:
    assert kinds(convert_region_norm(Network(), encoder=encoder, learnable=learnable)) == expected


def test_a_shared_layer_is_converted_once() -> None:
    inside: Any = convert_region_norm(Network()).net
    assert inside.encoder["first"].body[1] is inside.encoder["second"].body[1]


def test_a_network_that_is_one_layer_is_converted() -> None:
    net = convert_region_norm(nn.BatchNorm2d(3))
    x, mask = batch()
    expected = ops.region_norm(x, mask, stats="batch")
    torch.testing.assert_close(net(x, mask), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d, nn.BatchNorm2d])
def test_without_a_hole_the_converted_network_starts_as_the_original(norm: Any) -> None:
    original = Network(norm)
    net = convert_region_norm(original, encoder=3)
    x, mask = batch()
    torch.testing.assert_close(net(x, 0 * mask), original(x), rtol=1e-4, atol=1e-4)


def test_with_running_statistics_evaluation_starts_as_the_original_with_any_hole() -> None:
    original = Network(nn.BatchNorm2d)
    for seed in range(3):
        original(batch(seed=seed)[0])
    original.eval()
    net = convert_region_norm(original, encoder=3)
    assert not net.net.training and not net.net.encoder["third"].body[1].training
    x, mask = batch()
    torch.testing.assert_close(net(x, mask), original(x), rtol=1e-4, atol=1e-4)
    dropped = convert_region_norm(original, encoder=3, stats="instance")
    assert not any("running" in name for name in dropped.state_dict())


def test_affine_weights_are_kept() -> None:
    original = Network()
    inside: Any = convert_region_norm(original, encoder="encoder").net
    old, new = original.encoder["first"].body[1], inside.encoder["first"].body[1]
    for name in ("weight", "bias"):
        assert torch.equal(getattr(new, name), getattr(old, name).expand(2, -1))
    affine = convert_region_norm(nn.Sequential(nn.BatchNorm2d(3)), encoder=0)
    layer: Any = affine.net[0]
    nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
    x, mask = batch()
    regions = ops.region_norm(x, layer.region_mask(layer.spatial_response(x)), stats="batch")
    expected = regions * layer.weight[:, None, None] + layer.bias[:, None, None]
    torch.testing.assert_close(affine(x, mask), expected, rtol=1e-4, atol=1e-4)


def test_device_dtype_mode_and_frozen_parameters_are_kept() -> None:
    original = Network().double().eval()
    original.decoder.requires_grad_(False)
    original.encoder["third"].body[1].weight = None
    original.encoder["first"].body[1].requires_grad_(False)
    inside: Any = convert_region_norm(original, encoder="encoder").net
    layer = inside.encoder["first"].body[1]
    assert layer.weight.dtype == torch.float64
    assert not layer.weight.requires_grad and not layer.training


def test_the_original_is_left_alone_unless_inplace() -> None:
    original = Network()
    before = [type(module) for module in original.modules()]
    convert_region_norm(original)
    assert [type(module) for module in original.modules()] == before
    assert convert_region_norm(original, inplace=True).net is original
    assert not any(type(m) is nn.InstanceNorm2d for m in original.modules())


def test_rn_b_sees_the_mask_resized_once_for_each_resolution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from regionnorm.nn import convert

    sizes: list[tuple[int, int]] = []
    resize = convert.resize_mask

    def counted(mask: Tensor, size: tuple[int, int]) -> Tensor:
        sizes.append(size)
        return resize(mask, size)

    monkeypatch.setattr(convert, "resize_mask", counted)
    norms = [nn.InstanceNorm2d(3) for _ in range(4)]
    net = convert_region_norm(
        nn.Sequential(norms[0], norms[1], nn.AvgPool2d(2), norms[2], norms[3]), encoder=4
    )
    x, mask = batch()
    found = net(x, mask)
    assert sizes == [(32, 24), (16, 12)]
    first = ops.region_norm(ops.region_norm(x, mask), mask)
    half = mask[:, :, ::2, ::2]
    expected = nn.functional.avg_pool2d(first, 2)
    for _ in range(2):
        expected = ops.region_norm(expected, half)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_copies_and_pickled_state_dicts_give_the_same_outputs() -> None:
    net = convert_region_norm(Network(nn.BatchNorm2d))
    x, mask = batch()
    net(x, mask)
    net.eval()
    expected = net(x, mask)
    assert torch.equal(copy.deepcopy(net)(x, mask), expected)
    other = convert_region_norm(Network(nn.BatchNorm2d)).eval()
    other.load_state_dict(pickle.loads(pickle.dumps(net.state_dict())))
    assert torch.equal(other(x, mask), expected)
    assert torch.equal(pickle.loads(pickle.dumps(net))(x, mask), expected)


class Waits(nn.Module):
    """Lets the forward passes of two threads meet in the middle of the network."""

    barrier: threading.Barrier | None = None

    def forward(self, x: Tensor) -> Tensor:
        if Waits.barrier is not None:
            Waits.barrier.wait(timeout=60)
        return x


def test_two_forward_passes_at_once_keep_to_their_masks() -> None:
    norms = [nn.InstanceNorm2d(3) for _ in range(3)]
    net = convert_region_norm(nn.Sequential(norms[0], Waits(), norms[1], Waits(), norms[2]))
    batches = [batch(seed=0), batch(seed=5)]
    expected = [net(*given) for given in batches]
    results: list[Tensor | None] = [None, None]

    def run(index: int) -> None:
        results[index] = net(*batches[index])

    Waits.barrier = threading.Barrier(2)
    try:
        threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        Waits.barrier = None
    for found, right in zip(results, expected, strict=True):
        assert found is not None and torch.equal(found, right)


def test_torch_compile_gives_the_same_outputs_and_gradients_without_a_graph_break() -> None:
    net = convert_region_norm(Network(nn.BatchNorm2d))
    compiled = torch.compile(copy.deepcopy(net), backend="aot_eager", fullgraph=True)
    for seed in (0, 5):  # the mask must not be burnt into the graph
        x, mask = batch(seed=seed)
        results = []
        for module in (net, compiled):
            module.zero_grad()
            output = module(x, mask)
            output.square().sum().backward()
            gradients = {
                name.removeprefix("_orig_mod."): g for name, g in parameters(module).items()
            }
            results.append((output.detach(), gradients))
        torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_gives_the_same_gradients(reentrant: bool) -> None:
    plain = convert_region_norm(Network(nn.BatchNorm2d), encoder=1)
    checkpointed = copy.deepcopy(plain)
    checkpointed.net.reentrant = reentrant
    found = []
    for net in (plain, checkpointed):
        # Two passes with masks of their own, differentiated at once.
        outputs = []
        for seed in (0, 5):
            x, mask = batch(seed=seed)
            outputs.append(net(x.requires_grad_(), mask))
        (outputs[0].square().sum() + outputs[1].sin().sum()).backward()
        found.append(parameters(net))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-4)
    for name, value in plain.named_buffers():  # the second run is not counted again
        torch.testing.assert_close(dict(checkpointed.named_buffers())[name], value)


def test_a_converted_network_inside_a_reentrant_checkpoint_works() -> None:
    net = convert_region_norm(Network(reentrant=False))
    x, mask = batch()
    x.requires_grad_()
    net(x, mask).square().sum().backward()
    expected = x.grad
    x.grad = None
    checkpoint(net, x, mask, use_reentrant=True).square().sum().backward()
    assert expected is not None and x.grad is not None
    torch.testing.assert_close(x.grad, expected)


def test_no_mask_outlives_the_backward_pass() -> None:
    from regionnorm.nn import convert

    net = convert_region_norm(Network(reentrant=False))
    x, mask = batch()
    net(x.requires_grad_(), mask).sum().backward()
    assert not convert._current.backward and convert._current.masks is None


def test_a_checkpoint_that_cannot_know_the_mask_is_refused() -> None:
    taken = []
    network = Network(reentrant=False)
    net = convert_region_norm(network)
    inside: Any = net.net
    inside.encoder["third"].register_forward_hook(lambda *given: taken.append(given[2]))
    x, mask = batch()
    net(x.requires_grad_(), mask)
    with pytest.raises(ValueError, match="let the loss depend on what that call returns"):
        taken[0].sum().backward()


def test_outputs_of_any_structure_are_handed_on() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.InstanceNorm2d(3, affine=True)

        def forward(self, x: Tensor, *, scale: float) -> dict[str, Any]:
            y = self.norm(x) * scale
            return {"y": y, "pair": (y.detach(), [y + 1, "text"])}

    net = convert_region_norm(Several())
    x, mask = batch()
    output = net(x, mask, scale=2.0)
    assert output["pair"][1][1] == "text" and output["pair"][0].grad_fn is None
    torch.testing.assert_close(output["pair"][1][0], output["y"] + 1)
    output["pair"][1][0].sum().backward()
    assert net.net.norm.bias.grad is not None


def test_a_subclass_with_more_in_its_forward_stays() -> None:
    class WithActivation(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).relu()

    net = convert_region_norm(nn.Sequential(WithActivation(3), nn.InstanceNorm2d(3)))
    assert list(net.converted) == ["1"]


def test_what_cannot_be_converted_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="Sequential has no InstanceNorm2d or BatchNorm2d"):
        convert_region_norm(nn.Sequential(nn.Conv2d(3, 3, 1)))
    with pytest.raises(ValueError, match="at its top are encoder, decoder, output"):
        convert_region_norm(Network(), encoder="enc")
    with pytest.raises(ValueError, match="encoder is 4, but the network has 3 norm layers"):
        convert_region_norm(Network(), encoder=4)
    with pytest.raises(ValueError, match="choose no layer"):
        convert_region_norm(Network(), encoder=0, learnable=False)
    with pytest.raises(ValueError, match="converted already"):
        convert_region_norm(convert_region_norm(Network()))
    with pytest.raises(ValueError, match="does not know its channels yet"):
        convert_region_norm(nn.Sequential(nn.LazyBatchNorm2d()))
    net = convert_region_norm(Network())
    x, mask = batch()
    with pytest.raises(ValueError, match=r"mask has shape \[2, 32, 24\]"):
        net(x, mask[:, 0])
    with pytest.raises(ValueError, match="call the converted network as net"):
        net.net(x)


def pretrained(norm: nn.Module, batches: int) -> nn.Module:
    """A layer whose running mean is 5, from a file that says how many batches it has seen."""
    layer: Any = norm
    layer.running_mean.fill_(5)
    layer.num_batches_tracked.fill_(batches)
    return nn.Sequential(layer)


@pytest.mark.parametrize("momentum", [0.1, 0.0, None])
@pytest.mark.parametrize("batches", [0, 3, 1000])
@pytest.mark.parametrize("encoder", [0, 1])
def test_pretrained_running_statistics_move_as_those_of_batch_norm(
    encoder: int, batches: int, momentum: float | None
) -> None:
    original = pretrained(nn.BatchNorm2d(3, momentum=momentum), max(batches, momentum is None))
    net = convert_region_norm(original, encoder=encoder)
    x, mask = batch()
    original(x), net(x, mask)
    layers: list[Any] = [original[0], net.net[0]]  # type: ignore[index]
    expected, found = (layer.running_mean.expand(2, -1) for layer in layers)
    assert (expected > 2).all()
    # Regions have means of their own, near that of all pixels; those not found stay as they are.
    assert (found > expected - 0.3).all()


def test_running_statistics_of_a_new_network_follow_the_first_batches_at_once() -> None:
    net = convert_region_norm(nn.Sequential(nn.BatchNorm2d(3)))
    x, mask = batch()
    net(x + 7, mask)
    layer: Any = net.net[0]  # type: ignore[index]
    assert (layer.running_mean > 7).all()


def test_sync_batch_norm_is_batch_norm() -> None:
    net = convert_region_norm(nn.SyncBatchNorm.convert_sync_batchnorm(Network(nn.BatchNorm2d)))
    assert kinds(net) == ["RN-B", "RN-B", "RN-L", "RN-L"]
    layer: Any = net.net.encoder["first"].body[1]  # type: ignore[index,union-attr]
    assert layer.stats == "batch" and layer.track_running_stats
    x, mask = batch()
    assert net(x, mask).isfinite().all()


class BatchNormAct2d(nn.BatchNorm2d):
    """What timm's layer of that name does: normalise, drop, activate."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.PReLU(init=0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("encoder", [0, 1])
def test_batch_norms_with_an_activation_keep_it(encoder: int) -> None:
    original = nn.Sequential(BatchNormAct2d(3))
    original(batch(seed=3)[0])
    original.eval()
    net = convert_region_norm(original, encoder=encoder)
    x, mask = batch()
    torch.testing.assert_close(net(x, mask), original(x), rtol=1e-4, atol=1e-4)
    assert (net(x, mask) < 0).any()
    assert "net.0.act.weight" in net.state_dict()


def test_outputs_can_be_changed_in_place() -> None:
    net = convert_region_norm(Network(), encoder=1)
    x, mask = batch()
    expected = torch.autograd.grad(net(x, mask).clamp(-0.5, 0.5).sum(), net.parameters())
    found = torch.autograd.grad(net(x, mask).clamp_(-0.5, 0.5).sum(), net.parameters())
    torch.testing.assert_close(found, expected)


def test_layers_without_parameters_get_the_networks_device_and_dtype() -> None:
    layers = [nn.InstanceNorm2d(3), nn.Conv2d(3, 8, 3), nn.ReLU(), nn.InstanceNorm2d(8)]
    net = convert_region_norm(nn.Sequential(*layers).to("meta", torch.float64), encoder=0)
    assert {(p.device.type, p.dtype) for p in net.parameters()} == {("meta", torch.float64)}
