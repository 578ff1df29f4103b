"""What TensorFlow reads from the environment when it is first imported."""

from __future__ import annotations

import os

from vae.config import Config


def prepare_environment(config: Config) -> None:
    """Sets the variables that the flags ask for; call it before TensorFlow is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
