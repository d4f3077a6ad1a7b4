"""Real video MLLMs of transformers: their prompts shortened to the tokens that matter, before ``generate()`` sees them.

``compress.py`` is what users call, and ``wrapping.py``, after which a model does it by itself; ``adapter.py`` what a
model family has to say; one small file per family; ``prompt.py`` the arithmetic of dropping positions from prompts.
"""

from score_video.mllm.adapter import supported_models
from score_video.mllm.compress import CompressedInputs, compress_inputs, encode_inputs
from score_video.mllm.wrapping import Wrapping, wrap

__all__ = ["CompressedInputs", "Wrapping", "compress_inputs", "encode_inputs", "supported_models", "wrap"]
