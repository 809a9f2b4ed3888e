"""Optional packages: the extras of pyproject.toml, and the message if one is missing."""

from __future__ import annotations

# Extra -> its requirements, as in pyproject.toml (tests/utils/test_extras.py compares them).
EXTRAS = {
    "cuda": ("jax[cuda13]",),
    "tpu": ("jax[tpu]",),
    "plan-gpu": (
        "jax-cuda13-plugin>=0.10,<0.13",
        "jax-cuda13-pjrt>=0.10,<0.13",
        "nvidia-cuda-nvcc>=13,<14",
        "nvidia-nvvm>=13,<14",
        "nvidia-cuda-runtime>=13,<14",
        "nvidia-cuda-crt>=13,<14",
    ),
    "gcs": ("gcsfs>=2025.9",),
    "beam": ("apache-beam>=2.77",),
    "peer": ("torch==2.13.0", "transformers>=5,<6"),
    "onnx": ("onnx>=1.19", "onnxruntime>=1.22"),
    "wandb": ("wandb>=0.31",),
    "mlflow": ("mlflow-skinny>=3", "sqlalchemy>=2", "alembic>=1.10", "sqlparse>=0.4"),
    "mteb": ("mteb>=2,<3",),
    "faiss": ("faiss-cpu>=1.12",),
}


def missing(what: str, package: str, extra: str) -> ValueError:
    """The error that `what` needs an optional package, with the command that installs it."""
    requirements = " ".join(f"'{r}'" for r in EXTRAS[extra])
    return ValueError(
        f"{what} needs {package}, which is not installed: run pip install {requirements} "
        f"(the extra [{extra}])"
    )
