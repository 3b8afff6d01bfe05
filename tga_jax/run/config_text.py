"""The resolved configuration as text: every key, and what differs from the defaults."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from tga_jax.config import base_config
from tga_jax.files import flat


def differences(config: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Key -> (its value, its default), of the keys whose value is not the default.

    A key that does not exist by default, such as one of an experiment's arm, has the default None.
    """
    ours, defaults = flat(config.to_dict()), flat(base_config().to_dict())
    return {
        key: (value, defaults.get(key))
        for key, value in ours.items()
        if key not in defaults or value != defaults[key]
    }


def config_text(config: ConfigDict) -> str:
    """Every key with its value, then those that differ from the defaults, as flags."""
    values, changed = flat(config.to_dict()), differences(config)
    lines = [f"config.{key} = {value!r}" for key, value in values.items()]
    lines += ["", f"{len(changed)} of {len(values)} keys differ from the defaults:"]
    lines += [
        f"  --config.{key}={value!r}  (default: {default!r})"
        for key, (value, default) in changed.items()
    ]
    return "\n".join(lines)
