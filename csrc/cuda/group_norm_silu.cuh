// group_norm_silu on CUDA in two launches, so that one image of few pixels still fills the chip.
//
// Lineage: group norm (Wu and He 2018); Welford's statistics, merged as in Chan, Golub and LeVeque (1983).
// 1. measure: a CTA takes a slab of pixels and a part of the channels (whole groups), each thread 16 bytes of channels
//    of every few pixels, and leaves each group's mean and squared deviations over its slab.
// 2. normalise: a CTA merges the slabs of its groups (at most 64 a group), then walks its slab again, now in L2: many
//    images go some at a time.
// The two numbers, per value: about 30 FLOPs, and sizeof(T) bytes read from memory, once more from L2, and written.
// Stable Diffusion 1.5's largest at 512x512, three rows of 960 channels at 64x64 in bfloat16: 0.35 GFLOP (5
// microseconds at 67 TFLOP/s) and 47 MB (14 at 3.35 TB/s): memory binds. A row of 320 at 64x64: 5 MB, 1.6 microseconds,
// less than the two launches. Channels-last is the fast format; planar input runs the same code with loads of one
// value. The plan depends on a sample's shape only and merges in a fixed order: a sample's bits do not depend on its
// batch.
#pragma once

#include <algorithm>

#include "group_norm_plan.h"
#include "numbers.cuh"

namespace ip2p {

constexpr int kThreads = 256;

// Values in the dtype of x or in float32, so that none need a launch of their own to be converted.
template <class T>
struct Vector {
  const void* values = nullptr;
  bool wide = false;

  __device__ __forceinline__ float operator[](int64_t i) const {
    return wide ? static_cast<const float*>(values)[i] : widen(static_cast<const T*>(values)[i]);
  }

  Vector from(int64_t first) const {
    if (values == nullptr) return {};
    return {static_cast<const char*>(values) + first * static_cast<int64_t>(wide ? sizeof(float) : sizeof(T)), wide};
  }
};

template <class T>
struct GroupNormArgs {
  const T* x;  // [N, C, pixels] by strides
  T* y;        // as x
  int64_t channel_stride, pixel_stride;
  Vector<T> weight;  // [C]
  Vector<T> bias;    // [C]
  Vector<T> shift;   // [N, C], may be absent
  float2* partial;   // [N, slabs, groups]: mean, squared deviations
  int64_t images, channels, pixels, groups;
  float eps;
  bool silu;
  GroupNormPlan plan;

  __device__ float shift_of(int64_t image, int64_t channel) const {
    return shift.values == nullptr ? 0.0f : shift[image * channels + channel];
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

// What one CTA does of every image: pixels [first, first + count) of the channels of some groups. Its threads stand in
// rows, one a pixel, of lanes, one a pack of channels; more packs than threads go in turns, by one row.
template <int kWidth>
struct Share {
  int64_t first;
  int count, first_group, groups, first_channel, channels, packs, lanes, rows, lane, row;

  template <class T>
  __device__ explicit Share(const GroupNormArgs<T>& args) {
    const GroupNormPlan& plan = args.plan;
    first = blockIdx.x * plan.slab_pixels;
    count = static_cast<int>(min(plan.slab_pixels, args.pixels - first));
    groups = static_cast<int>(plan.part_groups);
    first_group = blockIdx.z * groups;
    channels = groups * static_cast<int>(args.channels / args.groups);
    first_channel = blockIdx.z * channels;
    packs = channels / kWidth;
    lanes = min(packs, kThreads);
    rows = kThreads / lanes;
    lane = threadIdx.x % lanes;
    row = threadIdx.x / lanes;  // threads left over have row == rows
  }
};

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads, 4) measure_kernel(GroupNormArgs<T> args) {
  extern __shared__ float shared[];  // [2, rows, channels of the part]: mean, squared deviations
  const Share<kWidth> share(args);
  float* means = shared;
  float* squares = shared + share.rows * share.channels;
  const int thread = threadIdx.x % 32, warp = threadIdx.x / 32, width = share.channels / share.groups;

  for (int64_t image = blockIdx.y; image < args.images; image += gridDim.y) {
    const T* slab = args.x + image * args.channels * args.pixels + share.first * args.pixel_stride +
                    share.first_channel * args.channel_stride;
    for (int pack = share.lane; pack < share.packs && share.row < share.rows; pack += share.lanes) {
      float mean[kWidth] = {}, m2[kWidth] = {}, seen = 0.0f;
#pragma unroll 2
      for (int pixel = share.row; pixel < share.count; pixel += share.rows) {
        const auto values = *reinterpret_cast<const Pack<T, kWidth>*>(slab + pack * kWidth * args.channel_stride +
                                                                      pixel * args.pixel_stride);
        seen += 1.0f;
        const float part = 1.0f / seen;
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          const float value = widen(values.values[i]);
          const float delta = value - mean[i];
          mean[i] += delta * part;
          m2[i] += delta * (value - mean[i]);
        }
      }
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const int place = share.row * share.channels + pack * kWidth + i;
        means[place] = mean[i] + args.shift_of(image, share.first_channel + pack * kWidth + i);
        squares[place] = m2[i];
      }
    }
    __syncthreads();
    for (int group = warp; group < share.groups; group += kThreads / 32) {
      Moments moments;
      for (int entry = thread; entry < share.rows * width; entry += 32) {
        const int row = entry / width, place = row * share.channels + group * width + entry % width;
        const int seen = row < share.count ? (share.count - row + share.rows - 1) / share.rows : 0;
        moments.merge({static_cast<float>(seen), means[place], squares[place]});
      }
      moments.merge_over_warp();
      if (thread == 0)
        args.partial[(image * gridDim.x + blockIdx.x) * args.groups + share.first_group + group] =
            make_float2(moments.mean, moments.m2);
    }
    __syncthreads();  // before the next image overwrites the means
  }
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads, 4) normalise_kernel(GroupNormArgs<T> args) {
  extern __shared__ float shared[];  // [2, groups of the part]: mean, inverse deviation
  const Share<kWidth> share(args);
  float* means = shared;
  float* inverses = shared + share.groups;
  const int slabs = gridDim.x, width = share.channels / share.groups;
  const int thread = threadIdx.x % 32, warp = threadIdx.x / 32;

  for (int64_t image = blockIdx.y; image < args.images; image += gridDim.y) {
    for (int group = warp; group < share.groups; group += kThreads / 32) {
      Moments moments;
      for (int64_t slab = thread; slab < slabs; slab += 32) {
        const float2 part = args.partial[(image * slabs + slab) * args.groups + share.first_group + group];
        const int64_t pixels = min(args.plan.slab_pixels, args.pixels - slab * args.plan.slab_pixels);
        moments.merge({static_cast<float>(pixels * width), part.x, part.y});
      }
      moments.merge_over_warp();
      if (thread == 0) {
        means[group] = moments.mean;
        inverses[group] = rsqrtf(moments.m2 / moments.count + args.eps);
      }
    }
    __syncthreads();
    for (int pack = share.lane; pack < share.packs && share.row < share.rows; pack += share.lanes) {
      float centre[kWidth], scale[kWidth], bias[kWidth];
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const int in_part = pack * kWidth + i, group = in_part / width, channel = share.first_channel + in_part;
        centre[i] = means[group] - args.shift_of(image, channel);
        scale[i] = inverses[group] * args.weight[channel];
        bias[i] = args.bias[channel];
      }
      const int64_t start = image * args.channels * args.pixels + (share.first + share.row) * args.pixel_stride +
                            (share.first_channel + pack * kWidth) * args.channel_stride;
      const int64_t stride = share.rows * args.pixel_stride;
      const T* in = args.x + start;
      T* out = args.y + start;
#pragma unroll 2
      for (int pixel = share.row; pixel < share.count; pixel += share.rows, in += stride, out += stride) {
        auto values = *reinterpret_cast<const Pack<T, kWidth>*>(in);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          const float value = (widen(values.values[i]) - centre[i]) * scale[i] + bias[i];
          values.values[i] = narrow<T>(args.silu ? value / (1.0f + __expf(-value)) : value);
        }
        *reinterpret_cast<Pack<T, kWidth>*>(out) = values;
      }
    }
    __syncthreads();
  }
}

// Images whose x is still in L2 when the second launch reads it: 12 MiB of an H100's 50, half of which is near.
template <class T>
int64_t images_at_once(const GroupNormArgs<T>& args) {
  const int64_t bytes = args.channels * args.pixels * static_cast<int64_t>(sizeof(T));
  return bytes * args.images <= int64_t{24} << 20 ? args.images : std::max(int64_t{1}, (int64_t{12} << 20) / bytes);
}

template <class T, int kWidth>
cudaError_t launch_some(const GroupNormArgs<T>& args, cudaStream_t stream) {
  const GroupNormPlan& plan = args.plan;
  const dim3 grid(static_cast<unsigned>(plan.slabs), static_cast<unsigned>(args.images < 65535 ? args.images : 65535),
                  static_cast<unsigned>(plan.parts));
  const int64_t channels = plan.part_groups * (args.channels / args.groups), packs = channels / kWidth;
  const int64_t rows = packs < kThreads ? kThreads / packs : 1;
  measure_kernel<T, kWidth><<<grid, kThreads, 2 * rows * channels * sizeof(float), stream>>>(args);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  normalise_kernel<T, kWidth><<<grid, kThreads, 2 * plan.part_groups * sizeof(float), stream>>>(args);
  return cudaGetLastError();
}

template <class T, int kWidth>
cudaError_t launch_all(const GroupNormArgs<T>& args, cudaStream_t stream) {
  const int64_t most = images_at_once(args);
  for (int64_t first = 0; first < args.images; first += most) {
    GroupNormArgs<T> some = args;
    some.images = std::min(most, args.images - first);
    some.x += first * args.channels * args.pixels;
    some.y += first * args.channels * args.pixels;
    some.partial += first * args.plan.slabs * args.groups;
    some.shift = args.shift.from(first * args.channels);
    if (const cudaError_t error = launch_some<T, kWidth>(some, stream); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

// Values of one load: 16 bytes of neighbouring channels where a sample lets every load begin at a multiple of them.
template <class T>
int64_t group_norm_pack(const GroupNormArgs<T>& args) {
  constexpr int64_t wide = 16 / sizeof(T);
  const bool aligned = reinterpret_cast<uintptr_t>(args.x) % 16 == 0;  // a slice may start anywhere
  return args.channel_stride == 1 && args.channels % wide == 0 && aligned ? wide : 1;
}

// At most 6144 channels: the measured means and deviations of a slab lie in 48 KiB of shared memory.
template <class T>
cudaError_t launch_group_norm_silu(const GroupNormArgs<T>& args, cudaStream_t stream) {
  if (args.channels > 6144) return cudaErrorInvalidValue;
  return group_norm_pack(args) > 1 ? launch_all<T, 16 / sizeof(T)>(args, stream) : launch_all<T, 1>(args, stream);
}

template cudaError_t launch_group_norm_silu<float>(const GroupNormArgs<float>&, cudaStream_t);
template cudaError_t launch_group_norm_silu<__nv_bfloat16>(const GroupNormArgs<__nv_bfloat16>&, cudaStream_t);
template cudaError_t launch_group_norm_silu<__half>(const GroupNormArgs<__half>&, cudaStream_t);

}  // namespace ip2p
