// group_norm_silu on CUDA in two launches, so that one image of few pixels still fills the chip.
//
// Lineage: group norm (Wu and He 2018); Welford's statistics, merged as in Chan, Golub and LeVeque (1983).
// 1. measure: a CTA takes a slab of pixels with all channels (whole cache lines, however narrow a group is), one thread
//    a channel or a pair, and leaves each group's mean and squared deviations over its slab.
// 2. normalise: a CTA merges the slabs of its image (at most 64 a group), then walks its slab again, now in L2.
// Per value: about 30 FLOPs; sizeof(T) read from memory, once more from L2, and written. Channels-last is the fast
// format; planar input runs the same code with one thread a channel, its loads only as wide as a slab's row.
// The slabs depend on the shape only and merge in a fixed order: a sample's bits do not depend on its batch.
#pragma once

#include "numbers.cuh"

namespace ip2p {

constexpr int kThreads = 256;
constexpr int kMaxSlabs = 64;

template <class T>
struct GroupNormArgs {
  const T* x;  // [N, C, pixels] by strides
  T* y;        // as x
  int64_t channel_stride, pixel_stride;
  const float* weight;  // [C]
  const float* bias;    // [C]
  const float* shift;   // [N, C] or null
  float2* partial;      // [N, slabs, groups]: mean, squared deviations
  int64_t images, channels, pixels, groups;
  float eps;
  bool silu;

  __host__ __device__ int64_t slab_pixels() const {
    const int64_t even = (pixels + kMaxSlabs - 1) / kMaxSlabs;
    return even > 4 ? even : 4;
  }
  __host__ __device__ int64_t slabs() const { return (pixels + slab_pixels() - 1) / slab_pixels(); }
  __device__ float shift_of(int64_t image, int64_t channel) const {
    return shift == nullptr ? 0.0f : shift[image * channels + channel];
  }
};

struct Moments {
  float count = 0.0f, mean = 0.0f, m2 = 0.0f;

  __device__ __forceinline__ void merge(const Moments& other) {
    const float total = count + other.count;
    if (total == 0.0f) return;
    const float delta = other.mean - mean, share = other.count / total;
    mean += delta * share;
    m2 += other.m2 + delta * delta * count * share;
    count = total;
  }

  __device__ __forceinline__ void merge_over_warp() {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
      merge({__shfl_down_sync(0xffffffffu, count, distance), __shfl_down_sync(0xffffffffu, mean, distance),
             __shfl_down_sync(0xffffffffu, m2, distance)});
  }
};

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads, 4) measure_kernel(GroupNormArgs<T> args) {
  extern __shared__ float shared[];  // [2, C]: mean, squared deviations
  float* means = shared;
  float* squares = shared + args.channels;
  const int64_t first = blockIdx.x * args.slab_pixels();
  const int64_t count = min(args.slab_pixels(), args.pixels - first);
  const int64_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, width = args.channels / args.groups;

  for (int64_t image = blockIdx.y; image < args.images; image += gridDim.y) {
    const T* slab = args.x + image * args.channels * args.pixels + first * args.pixel_stride;
    for (int64_t channel = threadIdx.x * kWidth; channel < args.channels; channel += kThreads * kWidth) {
      float mean[kWidth] = {}, m2[kWidth] = {};
      for (int64_t pixel = 0; pixel < count; ++pixel) {
        const auto pack =
            *reinterpret_cast<const Pack<T, kWidth>*>(slab + channel * args.channel_stride + pixel * args.pixel_stride);
        const float share = 1.0f / static_cast<float>(pixel + 1);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          const float value = widen(pack.values[i]);
          const float delta = value - mean[i];
          mean[i] += delta * share;
          m2[i] += delta * (value - mean[i]);
        }
      }
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        means[channel + i] = mean[i] + args.shift_of(image, channel + i);
        squares[channel + i] = m2[i];
      }
    }
    __syncthreads();
    for (int64_t group = warp; group < args.groups; group += kThreads / 32) {
      Moments moments;
      for (int64_t channel = group * width + lane; channel < (group + 1) * width; channel += 32)
        moments.merge({static_cast<float>(count), means[channel], squares[channel]});
      moments.merge_over_warp();
      if (lane == 0)
        args.partial[(image * gridDim.x + blockIdx.x) * args.groups + group] = make_float2(moments.mean, moments.m2);
    }
    __syncthreads();  // before the next image overwrites the means
  }
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads, 4) normalise_kernel(GroupNormArgs<T> args) {
  extern __shared__ float shared[];  // [2, groups]: mean, inverse deviation
  float* means = shared;
  float* inverses = shared + args.groups;
  const int64_t slab_pixels = args.slab_pixels(), slabs = gridDim.x, width = args.channels / args.groups;
  const int64_t first = blockIdx.x * slab_pixels, count = min(slab_pixels, args.pixels - first);
  const int64_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;

  for (int64_t image = blockIdx.y; image < args.images; image += gridDim.y) {
    for (int64_t group = warp; group < args.groups; group += kThreads / 32) {
      Moments moments;
      for (int64_t slab = lane; slab < slabs; slab += 32) {
        const float2 part = args.partial[(image * slabs + slab) * args.groups + group];
        const int64_t pixels = min(slab_pixels, args.pixels - slab * slab_pixels);
        moments.merge({static_cast<float>(pixels * width), part.x, part.y});
      }
      moments.merge_over_warp();
      if (lane == 0) {
        means[group] = moments.mean;
        inverses[group] = rsqrtf(moments.m2 / moments.count + args.eps);
      }
    }
    __syncthreads();
    const int64_t slab = image * args.channels * args.pixels + first * args.pixel_stride;
    for (int64_t channel = threadIdx.x * kWidth; channel < args.channels; channel += kThreads * kWidth) {
      float centre[kWidth], scale[kWidth], bias[kWidth];
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const int64_t group = (channel + i) / width;
        centre[i] = means[group] - args.shift_of(image, channel + i);
        scale[i] = inverses[group] * args.weight[channel + i];
        bias[i] = args.bias[channel + i];
      }
      const T* in = args.x + slab + channel * args.channel_stride;
      T* out = args.y + slab + channel * args.channel_stride;
#pragma unroll 4
      for (int pixel = 0; pixel < count; ++pixel, in += args.pixel_stride, out += args.pixel_stride) {
        auto pack = *reinterpret_cast<const Pack<T, kWidth>*>(in);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          const float value = (widen(pack.values[i]) - centre[i]) * scale[i] + bias[i];
          pack.values[i] = narrow<T>(args.silu ? value / (1.0f + __expf(-value)) : value);
        }
        *reinterpret_cast<Pack<T, kWidth>*>(out) = pack;
      }
    }
    __syncthreads();
  }
}

template <class T, int kWidth>
cudaError_t launch_both(const GroupNormArgs<T>& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(args.slabs()),
                  static_cast<unsigned>(args.images < 65535 ? args.images : 65535));
  measure_kernel<T, kWidth><<<grid, kThreads, 2 * args.channels * sizeof(float), stream>>>(args);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  normalise_kernel<T, kWidth><<<grid, kThreads, 2 * args.groups * sizeof(float), stream>>>(args);
  return cudaGetLastError();
}

// At most 6144 channels: the measured means and deviations of a slab lie in 48 KiB of shared memory.
template <class T>
cudaError_t launch_group_norm_silu(const GroupNormArgs<T>& args, cudaStream_t stream) {
  if (args.channels > 6144) return cudaErrorInvalidValue;
  const bool aligned = reinterpret_cast<uintptr_t>(args.x) % (2 * sizeof(T)) == 0;  // a slice may start anywhere
  const bool pairs = args.channel_stride == 1 && args.channels % 2 == 0 && aligned;
  return pairs ? launch_both<T, 2>(args, stream) : launch_both<T, 1>(args, stream);
}

template cudaError_t launch_group_norm_silu<float>(const GroupNormArgs<float>&, cudaStream_t);
template cudaError_t launch_group_norm_silu<__nv_bfloat16>(const GroupNormArgs<__nv_bfloat16>&, cudaStream_t);
template cudaError_t launch_group_norm_silu<__half>(const GroupNormArgs<__half>&, cudaStream_t);

}  // namespace ip2p
