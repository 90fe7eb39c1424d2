"""Whether the tensors of a file are those of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

__all__ = ["shape_difference"]


def shape_difference(network: nn.Module, shapes: Mapping[str, Sequence[int]]) -> str | None:
    """In what the shapes of a file's tensors, by name, are not a network's; None if in nothing.

    Args:
        network: It may be without memory, see :func:`regionnorm.devices.without_memory`.
        shapes: Of the file's tensors.
    """
    expected = {key: list(value.shape) for key, value in network.state_dict().items()}
    found = {key: list(shape) for key, shape in shapes.items()}
    for key in sorted(expected.keys() | found.keys()):
        ours, theirs = expected.get(key), found.get(key)
        if ours != theirs:
            return f"{key} is {theirs or 'missing'}, where the network has {ours or 'nothing'}"
    return None
