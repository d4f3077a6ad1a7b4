"""The tables of `make bench`: every machine beside the others, and the document in step with what is kept."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from bench.__main__ import DOCUMENT, file_of, kept, machine
from bench.table import comparison, label, page


def on_another_machine(results: dict[str, Any], times: float) -> dict[str, Any]:
    other = copy.deepcopy(results)
    other["machine"] |= {"cpu": "AMD EPYC", "vectors": "AVX2"}
    for row in other["benchmarks"]:
        row["stats"]["median"] *= times
    return other


def of_the_xeon() -> dict[str, Any]:
    return next(result for result in kept() if "Intel" in result["machine"]["cpu"])


def test_the_document_is_made_of_what_is_kept() -> None:
    assert DOCUMENT.read_text() == page(kept())


def test_machines_stand_side_by_side_each_with_its_own_floor() -> None:
    here = of_the_xeon()
    there = on_another_machine(here, 2.0)
    there["benchmarks"] = [row for row in there["benchmarks"] if "engine" not in row["name"]]
    alone, both = (comparison("compress float32", results) for results in ([here], [here, there]))
    assert both[1].count(" ms (") == 2
    ours = next(line for line in both if line.startswith("| ours |"))
    cells = [cell.strip() for cell in ours.strip("|").split("|")]
    assert float(cells[4].split()[0]) == pytest.approx(2 * float(cells[1].split()[0]), abs=0.02)
    assert cells[3] == cells[6]  # as many times the floor
    lines = [line for line in both if line.startswith("| engine rule, three sums")]
    assert lines and lines[0].endswith("|  |  |  |")  # what was not run there
    assert len(both) == len(alone)


def test_only_what_is_one_is_called_a_floor() -> None:
    gather = "\n".join(comparison("gather float32", kept()))
    assert "x copy" in gather and "no floor" in gather and "x floor" not in gather
    assert "x floor" in "\n".join(comparison("surprise float32", kept()))


def test_a_machine_without_a_group_is_left_out() -> None:
    here = of_the_xeon()
    there = on_another_machine(here, 1.0)
    there["benchmarks"] = [row for row in there["benchmarks"] if not row["group"].startswith("gather")]
    assert comparison("gather float32", [here, there]) == comparison("gather float32", [here])
    assert "gather" in page([there, here])


def test_a_size_that_older_results_do_not_have() -> None:
    older = of_the_xeon()
    newer = on_another_machine(older, 1.0)
    stats = {"median": 0.008, "iqr": 0.0}
    for group, name in (("copy", "test_copy"), ("relative_state", "test_relative_state_ours")):
        newer["benchmarks"].append({"group": f"{group} some size", "name": f"{name}[some size]", "stats": stats})
    text = page([newer, older])
    section = text[text.index("## relative_state some size") :].split("\n## ")[0]
    assert "| ours | 8.00 ± 0.00 |  | 1.00 |" in section
    assert "Intel" not in section


def test_a_file_for_each_kind_of_machine() -> None:
    facts = machine()
    assert set(facts) == {"cpu", "cores", "date", "score", "python", "torch", "vectors", "compiler", "selection"}
    names = {
        ("Intel(R) Xeon(R) Processor", "AVX512"): "cpu-intel-xeon-processor-avx512-2-cores.json",
        ("AMD EPYC", "AVX2"): "cpu-amd-epyc-avx2-2-cores.json",
        ("AMD EPYC", "AVX512"): "cpu-amd-epyc-avx512-2-cores.json",
    }
    for (cpu, vectors), name in names.items():
        assert file_of({**facts, "cpu": cpu, "vectors": vectors, "cores": 2}).name == name


def test_what_nobody_named_is_refused() -> None:
    with pytest.raises(ValueError, match="no label for the benchmark test_unheard_of"):
        label("test_unheard_of")


def test_networks_stand_beside_what_their_products_take() -> None:
    results = copy.deepcopy(of_the_xeon())
    square = {"group": "square product", "name": "test_square_product", "stats": {"median": 0.02, "iqr": 0.0}}
    results["benchmarks"].append(square)
    size = "float32, 8192 x 512"
    for operation, seconds in (("copy", 0.001), ("relative_state", 0.006), ("relative_logits", 0.009)):
        name = f"test_{operation}" if operation == "copy" else f"test_{operation}_ours[{size}]"
        stats = {"median": seconds, "iqr": 0.0}
        results["benchmarks"].append({"group": f"{operation} {size}", "name": name, "stats": stats})
    # 8,192 rows of 64 x 64 + 64 x 64 + 64 multiply-adds, at 1024^3 in 20 ms: 1.26 ms
    told = "\n".join(comparison(f"relative_logits {size}", [results]))
    assert "1.26 ms, with the state 7.26 ms (1.21x of the state alone; ours 1.50x)" in told
    # 12,544 rows of 7,168 x 64 + 64 x 64 + 64: 108.16 ms
    ours = next(row for row in results["benchmarks"] if row["name"] == "test_policy_ours[float32]")
    ours["stats"]["median"] = 0.21632
    told = "\n".join(comparison("policy_logits float32", [results]))
    assert "square one 108.16 ms; ours takes 2.00x that" in told
    assert "square one" not in "\n".join(comparison("policy_logits float32", [of_the_xeon()]))
    assert "square product" not in [line.removeprefix("## ") for line in page([results]).splitlines()]
