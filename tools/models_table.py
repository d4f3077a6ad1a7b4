"""Writes the tables of docs/models.md from the registry of model families: python tools/models_table.py [--check]."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from score_video.mllm.registry import FAMILIES, REFUSED, Family

DOCS = Path(__file__).resolve().parents[1] / "docs" / "models.md"
HEADS = {
    "supported": "| `model_type` | models | equal to | positions | features go in as | |\n|---|---|---|---|---|---|",
    "refused": "| `model_type` | why not |\n|---|---|",
}


def hands_over(family: Family) -> str:
    module, name = family.adapter.split(":")
    return str(getattr(import_module(f"score_video.mllm.families.{module}"), name).hands_over)


def tables() -> dict[str, str]:
    """By name, without their heads."""
    supported = [
        f"| `{kind}` | {family.models} | {family.exactness} | {family.positions} | `{hands_over(family)}` "
        f"| {'; '.join(filter(None, (family.note, family.since and f'from transformers {family.since} on')))} |"
        for kind, family in sorted(FAMILIES.items())
    ]
    reasons = dict.fromkeys(REFUSED[kind] for kind in sorted(REFUSED))
    refused = [
        f"| {', '.join(f'`{kind}`' for kind in sorted(REFUSED) if REFUSED[kind] == reason)} | {reason} |"
        for reason in reasons
    ]
    return {"supported": "\n".join(supported), "refused": "\n".join(refused)}


def with_tables(text: str) -> str:
    """The document with its tables as the registry has them, each between marks of its own."""
    for name, rows in tables().items():
        begin, end = f"<!-- {name}: tools/models_table.py -->\n", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}{HEADS[name]}\n{rows}\n{end}{rest.split(end, 1)[1]}"
    return text


def main() -> int:
    text = DOCS.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        if current := with_tables(text) == text:
            return 0
        print(f"{DOCS} is not what tools/models_table.py writes", file=sys.stderr)
        return int(not current)
    DOCS.write_text(with_tables(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
