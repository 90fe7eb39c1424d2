from __future__ import annotations

import pytest
import torch
from torch import nn

from regionnorm.nn.convolution import NarrowConv2d, PaddedConv2d


def make_pair(out: int, kernel: int | tuple[int, int], **options: object) -> tuple[nn.Conv2d, ...]:
    narrow = NarrowConv2d(5, out, kernel, **options).double()
    plain = nn.Conv2d(5, out, kernel, **options).double()
    plain.load_state_dict(narrow.state_dict())
    return narrow, plain


@pytest.mark.parametrize("out", [1, 3])
@pytest.mark.parametrize(
    ("kernel", "padding", "mode"),
    [(7, 3, "reflect"), (3, 0, "zeros"), ((5, 3), (2, 1), "zeros"), (1, 0, "zeros")],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_convolution_of_its_name(out, kernel, padding, mode, layout):
    narrow, plain = make_pair(out, kernel, padding=padding, padding_mode=mode)
    x = torch.randn(2, 5, 11, 9).double().contiguous(memory_format=layout)
    assert torch.allclose(narrow(x), plain(x), atol=1e-12)


def test_gradients_are_the_convolutions_own():
    narrow, plain = make_pair(3, 7, padding=3, padding_mode="reflect")
    x = torch.randn(2, 5, 9, 9).double()
    weights = torch.randn(2, 3, 9, 9).double()
    gradients = []
    for layer in (narrow, plain):
        leaf = x.clone().requires_grad_()
        (layer(leaf) * weights).sum().backward()
        gradients.append([leaf.grad, layer.weight.grad, layer.bias.grad])
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_first_and_second_derivatives_are_right():
    narrow, _ = make_pair(2, 3, padding=1)
    x = torch.randn(1, 5, 4, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(narrow, x)
    assert torch.autograd.gradgradcheck(narrow, x)


def test_the_backward_pass_fills_no_map_of_all_rows_for_each_row():
    narrow, _ = make_pair(3, 7, padding=3)
    result = narrow(torch.randn(1, 5, 9, 9).double().requires_grad_())
    with torch.profiler.profile(record_shapes=True) as profile:
        result.sum().backward()
    events = profile.key_averages(group_by_input_shape=True)
    whole = [event for event in events if [1, 21, 15, 9] in event.input_shapes]
    assert not [event for event in whole if event.key in ("aten::fill_", "aten::add_")]


def test_half_precision_is_summed_in_float32():
    narrow = NarrowConv2d(5, 3, 7, padding=3).bfloat16()
    x = torch.randn(1, 5, 9, 9)
    output = narrow(x.bfloat16())
    exact = nn.functional.conv2d(
        x.bfloat16().double(), narrow.weight.double(), narrow.bias.double(), padding=3
    )
    assert output.dtype == torch.float32
    assert (output - exact).abs().max() < 2**-7


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="stride is"):
        NarrowConv2d(5, 3, 3, stride=2)(torch.randn(1, 5, 9, 9))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "zeros"])
def test_a_padded_convolution_equals_its_namesake(mode):
    options = {"padding": 2, "dilation": 2, "padding_mode": mode}
    ours, plain = PaddedConv2d(4, 6, 3, **options), nn.Conv2d(4, 6, 3, **options)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 9, 7)
    assert torch.allclose(ours(x), plain(x), atol=1e-6)


def test_a_padded_convolution_stays_in_half_precision_under_autocast():
    layer = PaddedConv2d(4, 6, 3, padding=1, padding_mode="reflect")
    x = torch.randn(1, 4, 9, 9).bfloat16()
    with torch.autocast("cpu", torch.bfloat16), torch.profiler.profile() as profile:
        assert layer(x).dtype == torch.bfloat16
    dtypes = {event.key for event in profile.key_averages()}
    assert "aten::reflection_pad2d" in dtypes
    # Only the weight and the bias are cast, not the features.
    casts = [e for e in profile.key_averages() if e.key == "aten::_to_copy"]
    assert sum(event.count for event in casts) == 2


def test_functional_transforms_see_the_convolutions_own_gradients():
    narrow, plain = make_pair(3, 5, padding=2)
    x = torch.randn(4, 1, 5, 9, 8).double()
    for layer_gradients in (torch.func.grad, torch.func.jacrev):
        found = []
        for layer in (narrow, plain):
            gradient = layer_gradients(lambda given, layer=layer: layer(given).square().sum())
            found.append(torch.func.vmap(gradient)(x))
        assert torch.allclose(*found, atol=1e-12)
