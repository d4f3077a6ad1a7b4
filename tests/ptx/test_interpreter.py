"""The interpreter reports the faults that it is there to find, and nothing else.

modules/*.ptx are each a kernel with a fault and its clean twin: lines that end with `//-` are missing from the faulty
one, those that end with `//+` from the clean one. Comments at the top say how it is launched and what must be said.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import ptx_build
import pytest
import torch

MODULES = sorted((Path(__file__).parent / "modules").glob("*.ptx"))
# Enough for every one of them to come to its end, and soon over for one that has none.
ENVIRONMENT = {"PTX_LIMIT": "2000000"}


class Ran(NamedTuple):
    said: str
    arrays: list[list[int]]


@pytest.fixture(scope="session")
def run_module() -> Path:
    if shutil.which(ptx_build.CXX) is None:
        pytest.skip(f"no {ptx_build.CXX} here")
    return ptx_build.build_module_runner()


def run(program: Path, path: Path, launch: str, **settings: str) -> Ran:
    command = [program, path, "kernel", *launch.split()]
    done = subprocess.run(command, capture_output=True, text=True, env={**ENVIRONMENT, **settings})
    assert bool(done.stderr) == (done.returncode != 0)
    return Ran(done.stderr, [[int(number) for number in line.split()] for line in done.stdout.splitlines()])


def header(text: str, key: str) -> str:
    found = re.search(rf"^// {key}: (.*)$", text, re.MULTILINE)
    assert found is not None
    return found[1]


def twin(text: str, faulty: bool) -> str:
    mark = "//-" if faulty else "//+"
    return "\n".join(line for line in text.splitlines() if not line.endswith(mark)) + "\n"


# A fault must be found in every order of turns, not only in one where it does harm.
ORDERS = [{"PTX_TURNS": "long", "PTX_COPIES": "late"}, *({"PTX_SEED": str(seed)} for seed in range(5))]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_fault_is_reported_and_its_clean_twin_passes(run_module: Path, path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    launch, says = header(text, "launch"), header(text, "says")
    faulty, clean = tmp_path / "faulty.ptx", tmp_path / "clean.ptx"
    faulty.write_text(twin(text, faulty=True))
    clean.write_text(twin(text, faulty=False))
    said = [run(run_module, faulty, launch, **order).said for order in ORDERS]
    # A copy that lands early hides a missing wait. No order of turns may hide anything.
    unseen = [number for number, words in enumerate(said) if not re.search(says, words)]
    assert not unseen or (path.stem.startswith("copy_") and len(unseen) < len(ORDERS)), said[unseen[0]]
    for order in ORDERS:
        assert run(run_module, clean, launch, **order).said == ""


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="no ptxas here")
@pytest.mark.parametrize("faulty", [False, True], ids=["clean", "faulty"])
def test_modules_are_valid_ptx(faulty: bool, tmp_path: Path) -> None:
    for path in MODULES:
        module = tmp_path / path.name
        module.write_text(twin(path.read_text(), faulty))
        subprocess.run(["ptxas", "-arch=sm_90", module, "-o", "/dev/null"], check=True)


FRAME = """.version 8.0
.target sm_90
.address_size 64
.visible .entry kernel(.param .u64 a, .param .u64 b)
{
    .reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<40>; .reg .b64 %rd<20>; .reg .f32 %f<40>; .reg .f64 %d<9>;
    ld.param.u64 %rd1, [a];
    ld.param.u64 %rd2, [b];
    mov.u32 %r0, %tid.x;
    mul.wide.u32 %rd3, %r0, 4;
    add.s64 %rd4, %rd2, %rd3;
    BODY
    st.global.u32 [%rd4], %r1;
    ret;
}
"""


def results(program: Path, tmp_path: Path, body: str, threads: int = 1) -> list[int]:
    """What %r1 is in each thread at the end."""
    module = tmp_path / "module.ptx"
    module.write_text(FRAME.replace("BODY", body))
    ran = run(program, module, f"1 {threads} numbers=4096 undefined={4 * threads}")
    assert ran.said == ""
    return ran.arrays[1]


def bits(value: float) -> int:
    return int(torch.tensor(value).view(torch.int32)) & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("brev.b32 %r1, 5;", 0xA0000000),
        ("clz.b32 %r1, 255;", 24),
        ("mov.u32 %r2, -16; bfe.s32 %r1, %r2, 2, 3;", 0xFFFFFFFC),
        ("mov.u32 %r2, -16; bfe.u32 %r1, %r2, 2, 3;", 4),
        ("mov.u32 %r2, 7; mov.u32 %r3, 0; bfi.b32 %r1, %r2, %r3, 4, 2;", 0x30),
        ("mov.u32 %r2, 0x44332211; mov.u32 %r3, 0x88776655; prmt.b32 %r1, %r2, %r3, 0xF740;", 0xFF885511),
        ("mov.u32 %r2, 0xF0; mov.u32 %r3, 0xCC; mov.u32 %r4, 0xAA; lop3.b32 %r1, %r2, %r3, %r4, 0x96;", 0x96),
        ("mov.u32 %r2, 0x80000001; mov.u32 %r3, 3; shf.l.wrap.b32 %r1, %r2, %r3, 33;", 7),
        ("mov.u32 %r2, 0x80000001; mov.u32 %r3, 3; shf.r.clamp.b32 %r1, %r2, %r3, 40;", 3),
        ("mov.u32 %r2, -7; shr.s32 %r1, %r2, 1;", 0xFFFFFFFC),
        ("mov.u32 %r2, -7; mov.u32 %r3, 2; div.s32 %r1, %r2, %r3;", 0xFFFFFFFD),
        ("mov.u32 %r2, -7; mov.u32 %r3, 2; rem.s32 %r1, %r2, %r3;", 0xFFFFFFFF),
        ("mov.u32 %r2, 0x80000000; mul.hi.u32 %r1, %r2, 6;", 3),
        ("mov.f32 %f1, 0f40200000; cvt.rni.s32.f32 %r1, %f1;", 2),  # 2.5
        ("mov.f32 %f1, 0fC0200000; cvt.rmi.s32.f32 %r1, %f1;", 0xFFFFFFFD),
        ("mov.f32 %f1, 0f7FC00000; cvt.rzi.s32.f32 %r1, %f1;", 0),
        ("mov.f32 %f1, 0f7F800000; cvt.rzi.s32.f32 %r1, %f1;", 0x7FFFFFFF),
        ("mov.f32 %f1, 0f7FC00001; add.f32 %f2, %f1, %f1; mov.b32 %r1, %f2;", 0x7FFFFFFF),  # a NaN becomes the NaN
        ("mov.f32 %f1, 0f7FC00000; mov.f32 %f2, 0f40000000; min.f32 %f3, %f1, %f2; mov.b32 %r1, %f3;", 0x40000000),
        ("mov.f32 %f1, 0f3F808000; cvt.rn.bf16.f32 %h1, %f1; cvt.u32.u16 %r1, %h1;", 0x3F80),  # ties to even
        ("mov.f32 %f1, 0f3F818000; cvt.rn.bf16.f32 %h1, %f1; cvt.u32.u16 %r1, %h1;", 0x3F82),
        ("mov.f32 %f1, 0f00000001; ex2.approx.ftz.f32 %f2, %f1; mov.b32 %r1, %f2;", bits(1.0)),
        ("mov.f32 %f1, 0f3F800001; fma.rn.f32 %f2, %f1, %f1, 0fBF800002; mov.b32 %r1, %f2;", bits(2.0**-46)),
        ("ld.global.u32 %r1, [%rd1+20];", 5),
        ("ld.global.v2.u32 {%r2, %r1}, [%rd1+24];", 7),
        ("atom.global.cas.b32 %r2, [%rd1+8], 2, 9; ld.global.u32 %r1, [%rd1+8];", 9),
        ("atom.global.inc.u32 %r2, [%rd1+8], 2; ld.global.u32 %r1, [%rd1+8];", 0),
        ("red.global.max.s32 [%rd1+8], -5; ld.global.u32 %r1, [%rd1+8];", 2),
    ],
)
def test_instruction(run_module: Path, tmp_path: Path, body: str, expected: int) -> None:
    assert results(run_module, tmp_path, body) == [expected]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("shfl.sync.up.b32 %r1, %r0, 3, 0, -1;", [i - 3 if i >= 3 else i for i in range(32)]),
        ("shfl.sync.down.b32 %r1, %r0, 3, 0x181F, -1;", [i + 3 if i % 8 < 5 else i for i in range(32)]),
        ("shfl.sync.bfly.b32 %r1, %r0, 5, 31, -1;", [i ^ 5 for i in range(32)]),
        ("shfl.sync.idx.b32 %r1|%p1, %r0, 9, 31, -1;", [9] * 32),
        ("and.b32 %r2, %r0, 1; match.any.sync.b32 %r1, %r2, -1;", [0x55555555 << i % 2 for i in range(32)]),
        ("setp.lt.u32 %p1, %r0, 5; vote.sync.ballot.b32 %r1, %p1, -1;", [31] * 32),
        ("redux.sync.add.s32 %r1, %r0, -1;", [496] * 32),
        ("sub.s32 %r2, 3, %r0; redux.sync.min.s32 %r1, %r2, -1;", [-28 & 0xFFFFFFFF] * 32),
        ("setp.lt.u32 %p1, %r0, 5; bar.red.popc.u32 %r1, 0, %p1;", [5] * 32),
    ],
)
def test_exchange(run_module: Path, tmp_path: Path, body: str, expected: list[int]) -> None:
    assert results(run_module, tmp_path, body, threads=32) == expected


def test_what_is_unknown_stops_the_run(run_module: Path, tmp_path: Path) -> None:
    module = tmp_path / "module.ptx"
    module.write_text(FRAME.replace("BODY", "add.rz.f32 %f1, %f2, %f3; mov.u32 %r1, 0;"))
    said = run(run_module, module, "1 1 zeros=4 zeros=4").said
    assert "does not know this instruction: add.rz.f32 %f1, %f2, %f3" in said
