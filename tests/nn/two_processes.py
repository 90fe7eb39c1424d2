"""A process of a test: half of a batch through region layers, in company of another process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from regionnorm.nn import LearnableRegionNorm2d, RegionNorm2d


def make_layers() -> nn.ModuleList:
    """RN-B and RN-L with parameters that matter."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"stats": "batch", "track_running_stats": True}
    layers = nn.ModuleList([RegionNorm2d(4, **options), LearnableRegionNorm2d(4, **options)])
    layers[1].threshold = 0.5
    for parameter in layers.parameters():
        nn.init.normal_(parameter, mean=0.02, std=0.2)
    return layers


def make_batch() -> tuple[Tensor, Tensor]:
    """Four pictures that differ, one of them without a hole, and their masks."""
    torch.manual_seed(1)
    x = torch.randn(4, 4, 9, 8) * torch.tensor([1.0, 3, 0.5, 2]).view(4, 1, 1, 1) + 5
    mask = (torch.rand(4, 1, 9, 8) > 0.6).float()
    mask[0] = 0
    return x, mask


def run(layers: nn.ModuleList, x: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Outputs, gradients and running averages of one step."""
    x = x.clone().requires_grad_()
    y = layers[0](x, mask)
    z = layers[1](y)
    (z.sin().sum() / 100).backward()
    assert x.grad is not None
    found = {"y": y.detach(), "z": z.detach(), "x": x.grad}
    found |= {f"grad {k}": p.grad for k, p in layers.named_parameters() if p.grad is not None}
    return found | dict(layers.named_buffers())


def main(rank: int, rendezvous: str, out: str) -> None:
    """Run one half, then fill alone in evaluation, where no process may wait for another."""
    distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=2)
    layers = make_layers()
    x, mask = (half.chunk(2)[rank] for half in make_batch())
    found = run(layers, x, mask)
    if rank == 0:
        with torch.no_grad():
            found["alone"] = layers.eval()[0](x, mask)
            plain = RegionNorm2d(4, stats="batch").eval()
            found["alone untracked"] = plain(x, mask)
    torch.save(found, Path(out) / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
