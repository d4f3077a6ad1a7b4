from __future__ import annotations

from collections.abc import Iterator

import pytest
from emulated_ops import Ops
from emulator import Emulator, build


@pytest.fixture(scope="session", autouse=True)
def _built() -> None:
    try:
        build()
    except FileNotFoundError as missing:
        pytest.skip(f"no compiler {missing}")


# Few blocks, each with much to do; more blocks than there is work, and turns taken backwards.
@pytest.fixture(params=[(1, 2, False), (50, 8, True)], ids=["2-blocks", "400-blocks-backwards"])
def ops(request: pytest.FixtureRequest) -> Iterator[Ops]:
    emulator = Emulator(*request.param)
    yield Ops(emulator)
    emulator.close()
