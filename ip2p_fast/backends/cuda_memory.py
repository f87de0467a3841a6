"""The few parts of the CUDA runtime that a backend without PyTorch needs: memory, one stream, and graphs of it.

Memory and graphs are given back when the last that holds them is gone.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
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
        self.index = index
        self.use()
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

    def use(self) -> None:
        """Makes it the GPU of the calling thread; every thread begins with GPU 0."""
        _done(cuda.cudaSetDevice(self.index))

    def empty(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        """Memory on the GPU, and page-locked memory beside it."""
        return DeviceArray(self, shape, np.dtype(dtype))

    def synchronize(self) -> None:
        """Waits until the stream is empty."""
        _done(cuda.cudaStreamSynchronize(self.stream))

    def capture(self, work: Callable[[], None]) -> CapturedWork:
        """Records what `work()` queues on the stream, without doing it."""
        _done(cuda.cudaStreamBeginCapture(self.stream, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        try:
            work()
        finally:
            graph = _done(cuda.cudaStreamEndCapture(self.stream))
        return CapturedWork(graph, self.stream)


class CapturedWork:
    """A CUDA graph. The memory that it was captured with must stay for as long as it is launched."""

    def __init__(self, graph: Any, stream: int) -> None:
        self._stream = stream
        self._launchable = _done(cuda.cudaGraphInstantiate(graph, 0))
        _done(cuda.cudaGraphDestroy(graph))
        _at_end(self, cuda.cudaGraphExecDestroy, self._launchable)

    def launch(self) -> None:
        """Queues all of it."""
        _done(cuda.cudaGraphLaunch(self._launchable, self._stream))


class DeviceMemory:
    """Bytes on the GPU of the calling thread. Raises BadInput where there is no room for them."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        status, pointer = cuda.cudaMalloc(nbytes)
        if status == cuda.cudaError_t.cudaErrorMemoryAllocation:
            raise BadInput(
                f"the GPU has no room for {nbytes / 1e6:.0f} MB more: end what else uses it, or build engines of "
                "smaller limits with ip2p-fast export engines"
            )
        self.pointer = int(_done((status, pointer)))
        _at_end(self, cuda.cudaFree, self.pointer)


class DeviceArray:
    """An array on the GPU with its page-locked counterpart on the host."""

    def __init__(self, device: CudaDevice, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._device = device
        nbytes = max(1, int(np.prod(shape, dtype=np.int64))) * dtype.itemsize
        self._memory = DeviceMemory(nbytes)
        self.pointer = self._memory.pointer
        self._host_pointer = int(_done(cuda.cudaMallocHost(nbytes)))
        _at_end(self, cuda.cudaFreeHost, self._host_pointer)
        bytes_of = (ctypes.c_byte * nbytes).from_address(self._host_pointer)
        self._host = np.ndarray(shape, dtype, buffer=memoryview(bytes_of))

    def send(self, array: np.ndarray) -> None:
        """Queues a copy of `array`, of the same shape and dtype, to the GPU; it is read at once."""
        np.copyto(self._host, array, casting="no")
        self._copy(self.pointer, self._host_pointer, cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def fetch(self) -> np.ndarray:
        """Queues a copy from the GPU; the array is filled after `synchronize`, and used again by the next `fetch`."""
        self._copy(self._host_pointer, self.pointer, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost)
        return self._host

    def _copy(self, to: int, source: int, kind: Any) -> None:
        _done(cuda.cudaMemcpyAsync(to, source, self._memory.nbytes, kind, self._device.stream))


def _at_end(owner: object, free: Callable[[Any], Any], what: Any) -> None:
    # not at the interpreter's end, when CUDA itself may be gone
    weakref.finalize(owner, free, what).atexit = False


def _done(result: Any) -> Any:
    """What a call of the CUDA runtime returns beside its status. Raises RuntimeError with the status' name."""
    status, *values = result
    if int(status):
        raise RuntimeError(f"CUDA: {status.name}")
    return values[0] if values else None
