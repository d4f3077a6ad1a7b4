"""How the CUDA kernels are built: for which architectures, and what the compiler must not be told."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("version", "architectures"),
    [
        ("12.0.76", "80-real;86-real;89-real;90"),
        ("12.6.85", "80-real;86-real;89-real;90"),
        ("12.8.61", "80-real;86-real;89-real;90;100-real;120"),
        ("13.0.88", "80-real;86-real;89-real;90;100-real;120"),
    ],
)
def test_architectures_are_those_that_nvcc_knows(version: str, architectures: str, tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("no cmake")
    script = tmp_path / "script.cmake"
    script.write_text(
        f"include({ROOT}/cmake/CudaArchitectures.cmake)\n"
        f"score_cuda_architectures({version} chosen)\n"
        'message("${chosen}")\n'
    )
    said = subprocess.run(["cmake", "-P", str(script)], capture_output=True, text=True, check=True).stderr
    assert said.strip() == architectures


def compiled(flag: str, source: Path) -> subprocess.CompletedProcess[str]:
    """nvcc's attempt at a kernel that adds as the kernels that pick tokens do."""
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc")
    source.write_text(
        '#include "score/rounding.h"\n__global__ void add(float* x) { x[0] = score::add_rn(x[1], x[2]); }\n'
    )
    command = ["nvcc", "-std=c++20", "-arch=sm_90", "-cubin", f"-I{ROOT}/csrc/include", source.name]
    environment = {**os.environ, "NVCC_APPEND_FLAGS": flag}
    return subprocess.run(command, cwd=source.parent, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("flag", ["-use_fast_math", "-ftz=true"])
def test_fast_math_does_not_compile(flag: str, tmp_path: Path) -> None:
    failed = compiled(flag, tmp_path / "add.cu")
    assert failed.returncode != 0
    assert "score_cannot_be_compiled_with_fast_math_or_ftz" in failed.stdout + failed.stderr


def test_other_flags_do(tmp_path: Path) -> None:
    assert compiled("-lineinfo", tmp_path / "add.cu").returncode == 0
