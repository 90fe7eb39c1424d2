from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import regionnorm as rn
from regionnorm import ops
from regionnorm.checkpoints import save_weights
from regionnorm.ops import backend as backends
from regionnorm.ops.backend import backend, current_backend, set_backend
from regionnorm.ops.cpu import launch, planes, rows


@pytest.fixture
def kernels_called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    run = launch.run

    def note(name: str, *arguments: object, **options: object) -> None:
        names.append(name)
        run(name, *arguments, **options)  # type: ignore[arg-type]

    for module in (launch, planes, rows):
        monkeypatch.setattr(module, "run", note)
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


@pytest.fixture
def broken_numba(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A numba that is installed and fails to import."""
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 2.3 or less')")
    for name in [name for name in sys.modules if name.partition(".")[0] == "numba"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(backends, "_numba_imports", None)


@pytest.mark.filterwarnings("ignore:regionnorm runs without numba")
def test_compiled_code_does_without_a_numba_that_fails_to_import(
    broken_numba: None, kernels_called: list[str]
) -> None:
    compiled = torch.compile(lambda x: ops.region_norm(x, None), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(X), ops.region_norm(X, None))
    assert not kernels_called


@pytest.mark.filterwarnings("ignore:regionnorm runs without numba")
def test_fills_do_without_a_numba_that_fails_to_import(broken_numba: None, tmp_path: Path) -> None:
    photo = torch.randint(256, (60, 60, 3), dtype=torch.uint8).numpy()
    hole = torch.zeros(60, 60, dtype=torch.bool).numpy()
    hole[10:50, 10:50] = True
    network = rn.create_model("rn", width=4, blocks=1)
    save_weights(network, tmp_path / "small.safetensors")
    inpainter = rn.Inpainter(tmp_path / "small.safetensors", device="cpu")
    alone = inpainter(photo, hole, method="network")
    assert inpainter(photo, hole).tobytes() == alone.tobytes()
    with pytest.raises(ImportError, match=r"fails to import \(Numba needs NumPy 2.3 or less\)"):
        rn.Inpainter(method="exemplar")


@pytest.mark.filterwarnings("ignore:regionnorm runs without numba")
def test_asking_for_a_numba_that_fails_to_import_says_so(broken_numba: None) -> None:
    with pytest.raises(ImportError, match="numba' needs numba, which fails to import"):
        set_backend("numba")


def test_bfloat16_kernels_compile_where_the_compiler_cannot_round(tmp_path: Path) -> None:
    code = (
        "from regionnorm.ops.cpu.kernels.compiled import compile_kernel\n"
        "compile_kernel('planes_pixel_forward', True)"
    )
    # Such a processor has no instruction for it, whatever the one that runs the test has.
    settings = {"NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(tmp_path)}
    process = subprocess.run([sys.executable, "-c", code], env=os.environ | settings, check=False)
    assert process.returncode == 0
