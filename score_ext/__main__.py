"""``python -m score_ext``: versions, what was built for which architectures, and what is loaded."""

from __future__ import annotations

import platform

import torch

import score_ext


def report() -> str:
    """Returns the report that ``python -m score_ext`` prints."""
    build = score_ext.build_info()
    built = f"CUDA {build['cuda']} for sm {build['cuda_architectures']}" if build["cuda"] else "not built"
    if score_ext.cuda_library_loaded():
        loaded = "loaded"
    elif not build["cuda"]:
        loaded = "not loaded: not built (set SCORE_CUDA=ON with nvcc on PATH)"
    else:
        loaded = "not loaded: this torch has no CUDA"
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    ops = sorted(name.removeprefix("score::") for name in torch._C._dispatch_get_all_op_names() if "score::" in name)
    lines = {
        "score_ext": build["version"],
        "python": platform.python_version(),
        "torch": f"{torch.__version__} (built against the headers of {build['torch_headers']})",
        "compiler": build["compiler"],
        "CPU kernels": "loaded",
        "CUDA kernels": f"{built}; {loaded}" if build["cuda"] else loaded,
        "GPUs": ", ".join(devices) or "none",
        "ops": ", ".join(ops),
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())


if __name__ == "__main__":
    print(report())
