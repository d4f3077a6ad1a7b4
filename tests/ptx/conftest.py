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

# "all": every case of every test; else as many as it takes for each value of each parameter to occur.
CASES = os.environ.get("SCORE_PTX_CASES", "some")
SEED = int(os.environ.get("SCORE_PTX_SEED", "0"))


@pytest.fixture(scope="session")
def server() -> Sequence[str | Path]:
    if reason := ptx_build.missing():
        pytest.skip(reason)
    return ptx_build.build_server()


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> dict[str, str]:
    """Turns and landings at random, by a seed that is the test's own."""
    seed = {"PTX_SEED": str(zlib.crc32(request.node.nodeid.encode()) + SEED)}
    if "wrong_offsets" not in request.node.name:
        return seed
    # Videos overlap and their blocks write the same rows, or none: meaningless, but inside of the tensors.
    return {**seed, "PTX_RACES": "0", "PTX_UNDEFINED": "0"}


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
    if CASES == "all":
        return
    seen: set[tuple[str, str, str]] = set()
    kept = []
    for item in items:
        if item.path.parent != Path(__file__).parent or not item.path.name.endswith("_as_ptx.py"):
            kept.append(item)
            continue
        values = getattr(item, "callspec", None)
        ids = values.id.split("-") if values else [""]
        new = {(item.name.split("[")[0], str(place), value) for place, value in enumerate(ids)}
        if not new <= seen:
            kept.append(item)
            seen |= new
    items[:] = kept
