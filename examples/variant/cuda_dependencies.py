"""A provider of scikit-build-core's dynamic metadata: the CUDA runtime that the wheel has to be installed with."""

from __future__ import annotations

import cuda_build_activate


def dynamic_metadata(field: str, settings: dict[str, object]) -> list[str]:
    """The dependencies of a wheel that is built with the toolkit of this build environment."""
    toolkit = cuda_build_activate.activate()
    if toolkit.version is None:
        raise RuntimeError(toolkit.reason)
    minor = ".".join(toolkit.version.split(".")[:2])
    distribution = "nvidia-cuda-runtime" if toolkit.major >= 13 else f"nvidia-cuda-runtime-cu{toolkit.major}"
    return [f"{distribution}>={minor},<{toolkit.major + 1}"]
