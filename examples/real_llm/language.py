"""The language model of a LLaVA as a folder of its own, to be put before another vision tower.

    python -m examples.real_llm.language runs/real/safety/export runs/real/safety/llm

Needs torch.
"""

from __future__ import annotations

import sys
from pathlib import Path


def write_language_model(llava: Path, folder: Path) -> None:
    """Write the language model and the tokenizer of a LLaVA's folder into another one."""
    import torch
    import transformers

    whole = transformers.LlavaForConditionalGeneration.from_pretrained(llava, dtype=torch.float32)
    model = transformers.AutoModelForCausalLM.from_config(whole.config.text_config)
    model.model.load_state_dict(whole.model.language_model.state_dict())
    model.lm_head.load_state_dict(whole.lm_head.state_dict())
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(llava).save_pretrained(folder)


if __name__ == "__main__":
    write_language_model(Path(sys.argv[1]), Path(sys.argv[2]))
