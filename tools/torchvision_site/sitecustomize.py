"""For environments of tests and benchmarks only: lets PyPI's torchvision be imported beside a CPU torch.

PyPI's torchvision is built for CUDA torch: its library of ops does not load beside a CPU torch, and its import fails
because it then describes ops that are not there. vLLM and transformers' video processors need its Python parts alone.
Put this folder on PYTHONPATH: the missing ops get their schemas before torchvision is imported, in every process.
"""

import sys
from importlib.metadata import PackageNotFoundError, version


class _BeforeTorchvision:
    """The first finder: has no module to offer, but sees the import of torchvision begin."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name != "torchvision":
            return
        sys.meta_path.remove(_BeforeTorchvision)  # type: ignore[arg-type]
        import torch

        torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


try:
    # a build for this torch says so in its version, and has its ops
    needed = version("torch").endswith("+cpu") and not version("torchvision").endswith("+cpu")
except PackageNotFoundError:
    needed = False
if needed:
    sys.meta_path.insert(0, _BeforeTorchvision)  # type: ignore[arg-type]
