"""The marker of tests that a build with sanitizers leaves out (tools/sanitize.sh)."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "unsanitized: tells nothing under sanitizers, or takes too long under them")
