"""The few parts of the CUDA runtime that a backend without PyTorch needs: memory, one stream, and graphs of it."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ..errors import BadInput, MissingExtra

try:
    from cuda.bindings import runtime as cuda
except ModuleNotFoundError as error:
    raise MissingExtra("the tensorrt backend", "tensorrt") from error


class CudaDevice:
    """One GPU with one stream; everything is queued on the stream and done in order.

    Raises BadInput where CUDA has no such GPU.
    """

    def __init__(self, index: int = 0) -> None:
        status, count = cuda.cudaGetDeviceCount()
        if int(status) or not 0 <= index < count:
            found = 0 if int(status) else count
            raise BadInput(f"device 'cuda:{index}' is not there: CUDA finds {found} GPUs")
        _done(cuda.cudaSetDevice(index))
        self.index = index
        self.stream = int(_done(cuda.cudaStreamCreate()))

    @property
    def architecture(self) -> str:
        """As sm89."""
        kinds = cuda.cudaDeviceAttr
        major, minor = (
            _done(cuda.cudaDeviceGetAttribute(kind, self.index))
            for kind in (kinds.cudaDevAttrComputeCapabilityMajor, kinds.cudaDevAttrComputeCapabilityMinor)
        )
        return f"sm{major}{minor}"

    def empty(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        """Memory on the GPU, and page-locked memory beside it."""
        return DeviceArray(self, shape, np.dtype(dtype))

    def synchronize(self) -> None:
        """Waits until the stream is empty."""
        _done(cuda.cudaStreamSynchronize(self.stream))

    def capture(self, work: Any) -> Any:
        """Records what `work()` queues on the stream, without doing it; `launch` does it."""
        _done(cuda.cudaStreamBeginCapture(self.stream, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        try:
            work()
        finally:
            graph = _done(cuda.cudaStreamEndCapture(self.stream))
        return _done(cuda.cudaGraphInstantiate(graph, 0))

    def launch(self, graph: Any) -> None:
        _done(cuda.cudaGraphLaunch(graph, self.stream))


class DeviceArray:
    """An array on the GPU with its page-locked counterpart on the host."""

    def __init__(self, device: CudaDevice, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._device = device
        self.nbytes = max(1, int(np.prod(shape, dtype=np.int64))) * dtype.itemsize
        self.pointer = int(_done(cuda.cudaMalloc(self.nbytes)))
        self._host_pointer = int(_done(cuda.cudaMallocHost(self.nbytes)))
        bytes_of = (ctypes.c_byte * self.nbytes).from_address(self._host_pointer)
        self._host = np.ndarray(shape, dtype, buffer=memoryview(bytes_of))

    def send(self, array: np.ndarray) -> None:
        """Queues a copy of `array` to the GPU; it is read at once."""
        self._host[...] = array
        kind = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        _done(cuda.cudaMemcpyAsync(self.pointer, self._host_pointer, self.nbytes, kind, self._device.stream))

    def fetch(self) -> np.ndarray:
        """Queues a copy from the GPU; the array is filled after `synchronize`, and used again by the next `fetch`."""
        kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _done(cuda.cudaMemcpyAsync(self._host_pointer, self.pointer, self.nbytes, kind, self._device.stream))
        return self._host

    def free(self) -> None:
        _done(cuda.cudaFree(self.pointer))
        _done(cuda.cudaFreeHost(self._host_pointer))


def _done(result: Any) -> Any:
    """What a call of the CUDA runtime returns beside its status. Raises RuntimeError with the status' name."""
    status, *values = result
    if int(status):
        raise RuntimeError(f"CUDA: {status.name}")
    return values[0] if values else None
