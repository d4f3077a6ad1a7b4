"""tools/cuda_lint.py finds what it looks for."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools/cuda_lint.py"
pytestmark = pytest.mark.skipif(shutil.which("c++filt") is None, reason="no c++filt here")


@pytest.fixture(scope="module")
def lint() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cuda_lint", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def problems(lint: ModuleType, file: str, body: str, name: str = "kernel") -> list[str]:
    ptx = f".version 8.0\n.visible .entry {name}(\n)\n{{\n\t.reg .f32 %f<9>;\n{body}\n\tret;\n}}\n"
    (kernel,) = lint.kernels_of(file, ptx)
    return [problem for rule in lint.RULES for problem in rule(kernel)]


@pytest.mark.parametrize(
    "line",
    [
        "fma.rn.f32 %f1, %f2, %f3, %f4;",
        "add.f32 %f1, %f2, %f3;",
        "@%p1 mul.rn.ftz.f32 %f1, %f2, %f3;",
        "rcp.approx.ftz.f64 %fd1, %fd2;",
        "$L_1:\n\tdiv.full.f32 %f1, %f2, %f3;",
        "{ // inline\n\tex2.approx.ftz.f32 %f1, %f2;\n\t}",
        "fma.rn.f64 %fd1, %fd2, %fd3, %fd4;",
    ],
)
def test_arithmetic_that_may_differ_is_found(lint: ModuleType, line: str) -> None:
    assert problems(lint, "select", line)
    assert not problems(lint, "surprise", line)  # where bits need not be equal


def test_arithmetic_that_rounds_one_way_passes(lint: ModuleType) -> None:
    for line in (
        "add.rn.f32 %f1, %f2, %f3;",
        "div.rn.f64 %fd1, %fd2, %fd3;",
        "min.f32 %f1, %f2, %f3;",
        "cvt.rn.f32.s32 %f1, %r1;",
    ):
        assert not problems(lint, "select", line)
    assert not problems(lint, "sample_bernoulli", "add.f64 %fd1, %fd2, %fd3;")  # its logarithms
    assert problems(lint, "sample_bernoulli", "add.f32 %f1, %f2, %f3;")


LOAD, NARROW = "ld.global.nc.v4.u32 {%r2, %r3, %r4, %r5}, [%rd1];", "ld.global.nc.u32 %r2, [%rd1];"


def test_narrow_loads_are_found(lint: ModuleType) -> None:
    name = "_ZN5score4cuda13surprise_walkIfEEvPf"
    assert not problems(lint, "surprise", f"{NARROW}\n\t{LOAD}", name)
    assert problems(lint, "surprise", NARROW, name)


SAID = """ptxas info    : Compiling entry function '_Z3onev' for 'sm_90'
ptxas info    : Function properties for _Z3onev
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers
ptxas info    : Compiling entry function '_Z3twov' for 'sm_90'
ptxas info    : Function properties for _Z3twov
    8 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers
"""


def test_registers_and_spills_beyond_the_list_are_found(lint: ModuleType) -> None:
    uses = lint.parse_uses(SAID)
    assert uses == {"_Z3onev": (40, 0), "_Z3twov": (64, 20)}
    named = {("file", name): use for name, use in uses.items()}
    assert not list(lint.beyond_limits(named, named))
    (said,) = lint.beyond_limits(named, {})  # one that is not listed may not spill
    assert "_Z3twov uses 64 registers and spills 20 bytes" in said
    assert len(list(lint.beyond_limits(named, {key: lint.Use(39, 12) for key in named}))) == 2
