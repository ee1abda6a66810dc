"""Which libraries are shared by a warm start: slow ones that keep no state from their import.

Each has a test that a trial finds the same in a fork as in a process of its own
(`tests/runners/test_shared.py`). `preload:` in the experiment file adds to them.
"""

from __future__ import annotations

import sys

LIBRARIES = frozenset(
    {
        "accelerate",
        "einops",
        "flax",
        "functorch",
        "gymnasium",
        "huggingface_hub",
        "jax",
        "jaxlib",
        "joblib",
        "lightning",
        "lightning_fabric",
        "matplotlib",
        "mpmath",
        "networkx",
        "nni",  # ours, and shoal
        "numpy",
        "optax",
        "pandas",
        "PIL",
        "pytorch_lightning",
        "safetensors",
        "scipy",
        "shoal",
        "sklearn",
        "stable_baselines3",
        "sympy",
        "threadpoolctl",
        "timm",
        "tokenizers",
        "torch",
        "torchgen",
        "torchmetrics",
        "torchvision",
        "transformers",
        "triton",
    }
)
# The standard library is shared, too, but for what is the process's own from its import on.
STANDARD = frozenset(getattr(sys, "stdlib_module_names", ())) - {"antigravity", "this", "idlelib"}

# What a library imports only as it is used, by whoever trains: torch at the first optimizer.
IN_USE = {"torch": ("torch._dynamo",)}

# Read by C code as a library is loaded, out of our sight.
READ_BY_C = (
    "CUDA_HOME", "CUDA_PATH", "CUDA_MODULE_LOADING", "GOMP_CPU_AFFINITY", "KMP_AFFINITY",
    "KMP_BLOCKTIME", "KMP_DUPLICATE_LIB_OK", "LD_PRELOAD", "MALLOC_ARENA_MAX", "MKL_DEBUG_CPU_TYPE",
    "MKL_NUM_THREADS", "MKL_THREADING_LAYER", "NPY_DISABLE_CPU_FEATURES", "OMP_NUM_THREADS",
    "OMP_PROC_BIND", "OMP_SCHEDULE", "OMP_STACKSIZE", "OMP_WAIT_POLICY", "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
)  # fmt: skip


def shared(name: str, more: frozenset[str]) -> bool:
    """Whether the module `name` may be shared, where the user has named those in `more` too."""
    top = name.partition(".")[0]
    return top in LIBRARIES or top in STANDARD or top in more
