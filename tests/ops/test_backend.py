from __future__ import annotations

import sys

import pytest
import torch

from regionnorm import ops
from regionnorm.ops import _launch
from regionnorm.ops import backend as backends
from regionnorm.ops.backend import backend, current_backend, set_backend


@pytest.fixture
def kernels_called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    run = _launch._run

    def note(name: str, *arguments: object, **options: object) -> None:
        names.append(name)
        run(name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(_launch, "_run", note)
    return names


X = torch.randn(1, 4, 6, 6)


def test_kernels_run_where_they_fit(kernels_called: list[str]) -> None:
    ops.region_norm(X, None)
    assert kernels_called == ["planes_forward"]


def test_plain_runs_no_kernel(kernels_called: list[str]) -> None:
    with backend("plain"):
        ops.region_norm(X, None)
        ops.channel_mean_max(X)
    assert not kernels_called


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes_run_no_kernel(kernels_called: list[str], dtype: torch.dtype) -> None:
    ops.region_norm(X.to(dtype), None)
    assert not kernels_called


def test_a_choice_ends_with_its_block() -> None:
    before = current_backend()
    with pytest.raises(KeyError), backend("plain"):
        assert current_backend() == "plain"
        raise KeyError
    assert current_backend() == before


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="'cuda'; expected one of auto, plain, numba"):
        set_backend("cuda")


def test_asking_for_a_missing_numba_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backends, "HAS_NUMBA", False)
    with pytest.raises(ImportError, match=r"regionnorm\[fast\]"):
        set_backend("numba")


def test_a_numba_that_fails_to_import_is_done_without(
    monkeypatch: pytest.MonkeyPatch, kernels_called: list[str]
) -> None:
    monkeypatch.setattr(backends, "_numba_imports", None)
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.warns(UserWarning, match="without numba"):
        result = ops.region_norm(X, None)
    assert result.isfinite().all() and not kernels_called
