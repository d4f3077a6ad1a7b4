"""torchvision for tests that need a model's own processor, which is written on it.

Where the environment has none, it may lie in a folder beside its packages (``make test`` puts PyPI's there). Among
them, one that does not load beside a CPU torch would break transformers for every command that the tests start.
"""

import importlib.util
import os
import sys
from pathlib import Path

_SITE = Path(__file__).resolve().parents[1] / "tools" / "torchvision_site" / "sitecustomize.py"
_ASIDE = Path(sys.prefix) / "torchvision"


def _make_importable() -> None:
    if importlib.util.find_spec("torchvision") is None:
        if not _ASIDE.is_dir():
            return
        sys.path.append(str(_ASIDE))
        # processes that tests start get both: one with the second alone could not import transformers
        started = [str(_SITE.parent), str(_ASIDE), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(started)
    if getattr(sys.modules.get("sitecustomize"), "__file__", None) == str(_SITE):
        return  # it has run in every process of this environment
    spec = importlib.util.spec_from_file_location("torchvision_site", _SITE)
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


_make_importable()
