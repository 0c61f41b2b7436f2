"""Whether there is an NVIDIA GPU that can be used. Asks the driver's own library, which is there with every driver.

Must not import a CUDA package: they are installed on appliances that have a GPU only.
"""

from __future__ import annotations

import ctypes
import functools

DRIVER = "libcuda.so.1"
LOST = frozenset({214, 700, 702, 710, 714, 715, 716, 717, 718, 719})
"""CUDA's errors after which a process can use the GPU no more: memory that is broken (214) or not its own (700), a kernel that
took too long (702), failed (719), or gave up (710 to 718). NVIDIA's CUDA Runtime API, cudaError: "the process must be terminated and
relaunched".
"""


@functools.cache
def gpu_present() -> bool:
    """At least one."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
