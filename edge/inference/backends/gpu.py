"""Whether there is an NVIDIA GPU that can be used. Asks the driver's own library, which is there with every driver.

Must not import a CUDA package: they are installed on appliances that have a GPU only.
"""

from __future__ import annotations

import ctypes
import functools

DRIVER = "libcuda.so.1"


@functools.cache
def gpu_present() -> bool:
    """At least one."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
