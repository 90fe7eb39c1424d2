"""Picking a device."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from regionnorm.devices import has_native_bfloat16, pick_device


def test_a_device_named_is_the_device_picked() -> None:
    assert pick_device("cpu") == pick_device("CPU") == torch.device("cpu")
    assert pick_device(torch.device("cpu")) == torch.device("cpu")


def test_the_default_is_a_device_that_works() -> None:
    assert torch.ones(2, device=pick_device()).sum() == 2


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "cpu:x", "meta"])
def test_an_unusable_device_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        pick_device(name)
    assert "\n" not in str(caught.value)


def test_bfloat16_is_native_only_where_the_processor_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    for answer in (True, False):
        monkeypatch.setattr(
            torch.cpu, "_is_avx512_bf16_supported", lambda answer=answer: answer, raising=False
        )
        assert has_native_bfloat16(cpu) is answer
    assert not has_native_bfloat16(torch.device("meta"))


# Prints how many pages the system had to make for tensors of a size that was in use before. It
# takes glibc some rounds to have room for them with their alignment.
_LATER_TENSORS = """
import resource, sys, torch
from regionnorm.devices import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for i in range(40):
    if i == 30:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_kept_memory_is_not_fetched_again() -> None:
    pages = {
        choice: int(subprocess.check_output([sys.executable, "-c", _LATER_TENSORS, choice]))
        for choice in ("keep", "return")
    }
    assert pages["keep"] < 100 < pages["return"]
