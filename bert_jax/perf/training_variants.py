"""What `bench` and `plan` compare adapters with: other choices of what to train."""

from __future__ import annotations

from bert_jax.config import Experiment, Lora, replace


def adapters_name(config: Experiment) -> str:
    """What a config with adapters trains, in words beside those of `training_variants`."""
    return f"lora.rank {config.lora.rank}"


def training_variants(config: Experiment) -> dict[str, Experiment]:
    """For a config with adapters, what else it could train in words -> the config: all parameters,
    and with the embeddings and the lower half of the layers frozen (all layers, if some share their
    parameters). Empty without adapters."""
    if not config.lora.enabled:
        return {}
    encoder, whole = config.encoder, replace(config, lora=Lora())
    half = encoder.layers // 2
    is_shared = encoder.num_groups != encoder.layers or encoder.share_params != "all"
    freeze = "encoder" if is_shared or not half else f"embeddings,0-{half - 1}"
    return {
        "all parameters": whole,
        f"optim.freeze {freeze}": replace(whole, optim=dict(freeze=freeze)),
    }
