"""Activate the CUDA toolkit that pip or uv installed into this environment.

Nothing needs to be imported: the wheel's startup file activates at interpreter start. Call `activate()` where startup
files are not processed: a zip application, ``python -S``, a build system with a directory per wheel.
"""

from cuda_build_activate._activate import Activation, activate

__all__ = ["Activation", "__version__", "activate"]
__version__ = "0.1.0"
