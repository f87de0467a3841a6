// Loads and stores that widen to float: the kernels compute in fp32 whatever the storage.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace ip2p {

// kWidth neighbouring values in one aligned load
template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T values[kWidth];
};

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ __forceinline__ float widen(__half value) { return __half2float(value); }

template <class T>
__device__ __forceinline__ T narrow(float value) {
  return T(value);
}

}  // namespace ip2p
