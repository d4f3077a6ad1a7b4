"""The kernel tests of tests/cuda_emulation, on what nvcc makes of the kernels."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import ptx_build
import pytest

sys.path.append(str(ptx_build.EMULATION))

from emulated_ops import Ops
from emulator import Emulator
from some_cases import keep_some

# "all": every case of every test; else as many as it takes for each value of each parameter to occur.
CASES = os.environ.get("SCORE_PTX_CASES", "some")
SEED = int(os.environ.get("SCORE_PTX_SEED", "0"))


@pytest.fixture(scope="session")
def server() -> Sequence[str | Path]:
    if reason := ptx_build.missing():
        pytest.skip(reason)
    program, *modules = ptx_build.build_server()
    # mutate.py: a module of the same name instead.
    mutant = Path(os.environ.get("SCORE_PTX_MUTANT", "none"))
    return [program, *(mutant if module.name == mutant.name else module for module in modules)]


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> dict[str, str]:
    """Turns and landings at random, by a seed that is the test's own."""
    name = request.node.nodeid
    number = zlib.crc32(name.encode())
    chosen = {"PTX_SEED": str(number + SEED)}
    if folder := os.environ.get("SCORE_PTX_COVERAGE"):  # mutate.py: where to leave what the test runs
        (Path(folder) / f"{number}.test").write_text(name)
        chosen["PTX_COVERAGE"] = f"{folder}/{number}.coverage"
    if "wrong_offsets" in name:
        # Videos overlap and their blocks write the same rows, or none: meaningless, but inside of the tensors.
        chosen |= {"PTX_RACES": "0", "PTX_UNDEFINED": "0"}
    return chosen


@pytest.fixture
def ops(server: Sequence[str | Path], settings: dict[str, str]) -> Iterator[Ops]:
    emulator = Emulator(server, settings)
    yield Ops(emulator)
    emulator.close()


@pytest.fixture(params=[1, 400], ids=["1-block", "400-blocks"])
def ops_on_devices(
    server: Sequence[str | Path], settings: dict[str, str], request: pytest.FixtureRequest
) -> Iterator[Ops]:
    emulator = Emulator(server, settings)
    yield Ops(emulator, resident_blocks=request.param)
    emulator.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CASES != "all":
        here = Path(__file__).parent
        keep_some(items, lambda item: item.path.parent == here and item.path.name.endswith("_as_ptx.py"))
