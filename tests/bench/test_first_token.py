"""bench.first_token: its arithmetic, and as a program."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.first_token.__main__ import main
from bench.first_token.flops import tower_flops
from bench.first_token.measure import DECODE, PHASES, Measured
from bench.first_token.pixels import WAYS
from bench.first_token.report import section, write_document
from bench.first_token.results import by_operations, record_of, rows, share_of_tower
from bench.first_token.setting import STOCK, ways
from bench.prefill.geometry import QUARTER, QUICK, REAL
from bench.prefill.model import make_model
from bench.prefill.results import Results, describe_machine
from bench.times import Time

CPU = torch.device("cpu")
needs_torchvision = pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision: make test has it")


def counted(grid: tuple[int, int, int]) -> int:
    """Operations of torch for the tower of the tiny geometry, grid in patches."""
    model = make_model(QUICK[0], CPU)
    model.set_attn_implementation("eager")  # of which all are counted
    tower = model.model.visual
    frames, rows, columns = grid
    pixels = torch.randn(frames * rows * columns, 3 * 2 * 4 * 4, dtype=torch.bfloat16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tower(pixels, grid_thw=torch.tensor([grid]))
    return counter.get_total_flops()


@pytest.mark.parametrize("tokens", [(2, 2, 2), (3, 4, 6), (1, 2, 8)])
def test_operations_of_a_whole_tower_are_those_of_torch(tokens: tuple[int, int, int]) -> None:
    """Windows of the geometry are 2 x 2 tokens, which these frames are made of."""
    frames, rows, columns = tokens
    assert tower_flops(QUICK[0], tokens) == pytest.approx(counted((frames, 2 * rows, 2 * columns)), rel=1e-6)


def test_operations_of_a_part() -> None:
    """In proportion, but for attention within a frame, which falls faster."""
    shape = (33, 12, 21)
    whole, part = (tower_flops(REAL[0], shape, share) for share in (1.0, 0.3))
    assert 0.28 < part / whole < 0.3
    assert by_operations(REAL[0], shape, 0, 1.0) < by_operations(REAL[0], shape, 0, 0.3)
    # 40,000 tokens, 10% kept: after the tower, and 30% before it (docs/before_the_tower.md)
    assert [round(by_operations(REAL[0], (64, 25, 25), 64, share), 1) for share in (1.0, 0.3)] == [3.9, 8.9]


def test_a_quarter_is_in_the_proportion_of_the_whole() -> None:
    for length in ((33, 12, 21), (64, 25, 25)):
        assert share_of_tower(QUARTER, length, 64) == pytest.approx(share_of_tower(REAL[0], length, 64), abs=0.1)


def made_up() -> Results:
    """Two ways of two runs: 1000 and 1200 ms, 100 and 300 ms; decoding takes 100 and 200."""
    stock = Measured({"processor": 400.0, "vision tower": 400.0, "prefill": 200.0}, "", 8316, 8316, 8316, 8380)
    ours = Measured({"processor": 40.0, "gate": 10.0, "vision tower": 30.0, "compression": 10.0, "prefill": 10.0},
                    "", 8316, 2494, 831, 895)  # fmt: skip
    slower = [
        replace(run, milliseconds={**run.milliseconds, "prefill": run.milliseconds["prefill"] + 200})
        for run in (stock, ours)
    ]
    way = {"seconds": [0.5, 0.7], "extra_bytes": 10**8}
    pixels = {"ways": dict.fromkeys(WAYS, way), "decode": 50.0, "frames": 66, "values": 10**7, "tokens": 8316}
    run = describe_machine(CPU) | {"geometry": QUARTER.name, "dtype": "bfloat16", "size": [720, 1280], "seconds": 24}
    run |= {"frames": 66, "longer": [112, 724], "repeats": 2, "video": None}
    records: dict[str, Any] = {
        DECODE: {"milliseconds": [100.0, 200.0], "loads": [0.5]},
        STOCK: record_of([stock, slower[0]]),
        "30% before it": record_of([ours, slower[1]]),
        "pixels/66": pixels,
    }
    return Results(run, records)


def test_what_follows_from_the_times() -> None:
    stock, ours = rows(made_up())
    assert stock.first_token == Time(1250.0, 150.0)  # 1100 and 1400
    assert ours.first_token == Time(350.0, 150.0)  # 200 and 500
    assert ours.speed_up == pytest.approx(1100 / 200) and ours.speed_up_with_decoding == pytest.approx(1250 / 350)
    assert [*ours.phases] == [*PHASES] and "gate" not in stock.phases
    assert Time.of([3.0]) == Time(3.0, 0.0)


def test_the_document_says_what_was_reached(tmp_path: Path) -> None:
    text = section(made_up())
    assert "| 30% before it | 2,494 (30%) | 831 | 150 ± 50.0 | 40.0 ± 0.00 | 10.0 ± 0.00 |" in text
    assert "| 350 ± 150 | 3.6x | 5.5x |" in text
    assert "Goal: 5x, decoding left out: reached by 30% before it (5.5x)." in text
    assert "Qwen2.5-VL 7B | 40,000 |" in text and "66 frames, 8,316 visual tokens" in text
    whole = write_document([made_up()], tmp_path).read_text()
    assert whole.startswith("# From the file to the first token") and "No GPU has run this yet" in whole


@needs_torchvision
def test_as_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.first_token.__main__.mkdtemp", lambda prefix: str(tmp_path))
    main(video=None, report=False, quick=True)
    results = json.loads((tmp_path / "first-token-cpu.json").read_text())
    names = [way.name for way in ways()]
    assert [*results["records"]] == [DECODE, *names, "pixels/8", "pixels/12"]
    for name, record in results["records"].items():
        if name in names:
            assert record["tokens"] == 48 and all(min(times) > 0 for times in record["milliseconds"].values())
            assert record["kept"] == (48 if name == STOCK else 4)
            assert ("gate" in record["milliseconds"]) == ("before" in name)
    encoded = {name: results["records"][name]["encoded"] for name in names}
    assert encoded["30% before it"] == 14 < encoded["30% before it, halo 1"] <= 48
    document = (tmp_path / "first_token.md").read_text()
    assert all(name in document for name in names)
