"""Dynamic metadata for scikit-build-core: the CUDA runtime that the wheel requires."""

from __future__ import annotations

import cuda_build_activate


def dynamic_metadata(field: str, settings: dict[str, object]) -> list[str]:
    """Return the dependencies of a wheel that is built with this build environment's toolkit."""
    toolkit = cuda_build_activate.activate()
    if toolkit.version is None:
        raise RuntimeError(toolkit.reason)
    minor = ".".join(toolkit.version.split(".")[:2])
    distribution = "nvidia-cuda-runtime" if toolkit.major >= 13 else f"nvidia-cuda-runtime-cu{toolkit.major}"
    return [f"{distribution}>={minor},<{toolkit.major + 1}"]
