"""A GPU's memory and streams, by NVIDIA's `cuda-bindings`: what TensorRT leaves to its caller. Must not know models.

Each function of the bindings gives (status, results…); a status that is not success becomes a CudaError with its name.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from edge.inference.backends.gpu import LOST, gpu_present
from edge.inference.errors import DeviceLost, InferenceError, ModelUnsupported
from edge.inference.tensors import Array


class CudaError(InferenceError):
    """The GPU, or its driver, refused."""


@dataclass(frozen=True, slots=True)
class Device:
    """The first GPU."""

    name: str
    capability: tuple[int, int]
    memory_bytes: int
    cudart: Any

    @classmethod
    def find(cls) -> Device | None:
        """None where there is no GPU. Raises ModelUnsupported where there is one and the bindings are missing."""
        if not gpu_present():
            return None
        try:
            cudart = importlib.import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise ModelUnsupported(
                f"the GPU cannot be used without the Python package cuda-bindings ({error})"
            ) from error
        found = _checked(cudart, *cudart.cudaGetDeviceProperties(0))
        name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
        return cls(name.strip("\0"), (found.major, found.minor), int(found.totalGlobalMem), cudart)

    def allocate(self, size: int) -> DeviceMemory:
        """`size` bytes. Raises CudaError where it does not fit."""
        return DeviceMemory(self.cudart, int(_checked(self.cudart, *self.cudart.cudaMalloc(size))), size)

    def stream(self) -> Stream:
        """Copies and computations, one after the other."""
        return Stream(self, int(_checked(self.cudart, *self.cudart.cudaStreamCreate())))

    def __str__(self) -> str:
        return f"{self.name} (sm_{self.capability[0]}{self.capability[1]})"


class DeviceMemory:
    """A piece of the GPU's memory."""

    def __init__(self, cudart: Any, address: int, size: int) -> None:
        self._cudart = cudart
        self.address = address
        self.size = size

    def close(self) -> None:
        """Free it."""
        if self.address:
            address, self.address = self.address, 0
            _checked(self._cudart, *self._cudart.cudaFree(address))


class Stream:
    """See `Device.stream`."""

    def __init__(self, device: Device, handle: int) -> None:
        self.device = device
        self.handle = handle
        self._cudart = device.cudart
        self._kept: list[Array] = []

    def send(self, array: Array, memory: DeviceMemory) -> None:
        """Start copying to the GPU; `array` (contiguous) is kept until `wait`."""
        self._kept.append(array)
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(memory.address, array.ctypes.data, array.nbytes, kind)

    def fetch(self, memory: DeviceMemory, array: Array) -> None:
        """Start copying from the GPU."""
        self._copy(array.ctypes.data, memory.address, array.nbytes, self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def wait(self) -> None:
        """Until all of it is done."""
        _checked(self._cudart, *self._cudart.cudaStreamSynchronize(self.handle))
        self._kept.clear()

    def close(self) -> None:
        """No more of it."""
        _checked(self._cudart, *self._cudart.cudaStreamDestroy(self.handle))

    def _copy(self, to: int, source: int, size: int, kind: Any) -> None:
        _checked(self._cudart, *self._cudart.cudaMemcpyAsync(to, source, size, kind, self.handle))


def _checked(cudart: Any, status: Any, *results: Any) -> Any:
    if int(status) in LOST:
        raise DeviceLost(f"the GPU is of no more use in this process: {status.name}")
    if status != cudart.cudaError_t.cudaSuccess:
        raise CudaError(f"the GPU refused: {status.name}")
    return results[0] if results else None
