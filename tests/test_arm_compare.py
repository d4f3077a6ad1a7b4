"""That the comparison behind `make arm` finds what differs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("compare", Path(__file__).parent / "arm" / "compare.py")
assert _SPEC is not None and _SPEC.loader is not None
compare = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(compare)

HERE = "topk exact 1 5 9\nsurprise close inf 0.25 nan 1000\n"


@pytest.mark.parametrize(
    ("there", "wrong"),
    [
        (HERE, []),
        (HERE.replace("1000", "1000.001"), []),
        (HERE.replace("1000", "1000.01"), ["surprise (close): 1 of 4 values differ"]),
        (HERE.replace("inf", "3"), ["surprise (close): 1 of 4 values differ"]),
        (HERE.replace("nan", "0"), ["surprise (close): 1 of 4 values differ"]),
        (HERE.replace("5", "6"), ["topk (exact): 1 of 3 values differ", "surprise (close): 1 of 4 values differ"]),
        (HERE.replace(" 9", ""), ["the two did not print the same arrays"]),
        ("", ["the two did not print the same arrays"]),
    ],
)
def test_differences_are_found(there: str, wrong: list[str]) -> None:
    assert compare.differences(HERE, there) == wrong


def test_nothing_at_all_is_no_agreement() -> None:
    assert compare.differences("", "")
