"""The paper's experiment: Mistral-7B-Instruct-v0.2 + CLIP ViT-L/14-336 (arXiv 2410.12662).

    python -m tga_jax.main --config=configs/llava_mistral_7b.py --workdir=runs/tga-7b \\
        --config.pretrain.path=blip_laion_cc_sbu_558k.json --config.pretrain.image_dir=pretrain \\
        --config.finetune.path=llava_v1_5_mix665k.json --config.finetune.image_dir=finetune

Not yet run at this size; no step time, MFU or memory has been measured.
"""

from ml_collections import ConfigDict

from tga_jax.config import PAPER_GUIDE, base_config


def get_config() -> ConfigDict:
    """Published hyper-parameters; the guide in the paper's form on all layers."""
    config = base_config()
    config.jobs = ("pretrain", "finetune", "export")
    config.guide.update(PAPER_GUIDE)
    config.dtype = "bfloat16"
    config.model.vision = "openai/clip-vit-large-patch14-336"
    config.model.llm = "mistralai/Mistral-7B-Instruct-v0.2"
    config.model.remat = "full"
    config.data.pad_to_square = "yes"
    config.prompt.template = "llama_2"

    config.pretrain.batch_size = 256
    config.pretrain.learning_rate = 1e-3
    config.pretrain.max_length = 2048

    config.finetune.batch_size = 128
    config.finetune.learning_rate = 2e-6
    config.finetune.max_length = 1200
    for stage in (config.pretrain, config.finetune):
        stage.ce_chunk = 256
    return config.lock()
