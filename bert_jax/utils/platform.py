"""What must be set before jax is imported."""

from __future__ import annotations

import os

NO_TPU = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",  # libtpu waits long for the metadata server of a TPU
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # there is no TPU that two processes could fight for
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_MIN_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def without_tpu_env() -> None:
    """Keep jax on the CPU: no accelerator is opened or looked for, and libtpu, which describes
    TPUs for `plan`, is silent. Best called before jax is imported."""
    os.environ.update(NO_TPU)
    import jax

    jax.config.update("jax_platforms", "cpu")  # jax has read the environment if it was imported
