"""Markers of tests that a build with sanitizers leaves out (tools/sanitize.sh)."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "compiles: traces or compiles graphs; slow, and nothing of it is native code")
    config.addinivalue_line("markers", "measures: memory, which sanitizers change")
