// guided_step on CUDA: the weighted sum of an edit's rows and one sampler step, in one pass over memory.
//
// Lineage: csrc/cpu/guided_step.cpp, one thread four latent values. Neighbouring threads hold neighbouring pixels, so
// every load but that of channels-last rows is coalesced; those rows are 4 channels wide, which a warp's neighbours
// share. The two numbers, per latent value with R rows an edit: 2 R + 12 FLOPs; sizeof(eps) R + 16 bytes read and 12
// written, each once. One edit of three rows at 512x512 in bfloat16: 0.3 MFLOP and 0.56 MB, 0.2 microseconds at 3.35
// TB/s, so a launch binds; 16 edits 9 MB, 2.7 microseconds: memory.
#pragma once

#include "numbers.cuh"

namespace ip2p {

template <class T>
struct GuidedStepArgs {
  const T* eps;  // [R, C, pixels], any strides
  int64_t row_stride, channel_stride, pixel_stride;
  const int64_t* row_start;   // [E + 1]
  const float* weights;       // [R]
  const float* x;             // [E, C, pixels]
  const float* history;       // [E, 2, C, pixels]
  const float* coefficients;  // [E, 7]
  const float* noise;         // [E, C, pixels]
  float* x_next;              // [E, C, pixels]
  float* history_next;        // [E, 2, C, pixels]
  int64_t rows, edits, channels, pixels;
  bool packed = false;  // rows are read as the other tensors are; set by the launch
};

// Each thread has kWidth neighbouring pixels of one channel. What every edit needs is asked for first, so that the
// rows, which are found by two reads before their own, wait together with it.
template <class T, int kWidth>
__global__ void __launch_bounds__(256) guided_step_kernel(GuidedStepArgs<T> args) {
  using Floats = Pack<float, kWidth>;
  const int64_t size = args.channels * args.pixels;  // of one edit
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kWidth;
  if (i >= size) return;
  const T* first_eps = args.eps + i / args.pixels * args.channel_stride + i % args.pixels * args.pixel_stride;
  for (int64_t edit = blockIdx.y; edit < args.edits; edit += gridDim.y) {
    const int64_t here = edit * size + i, d_here = edit * 2 * size + i;
    const auto read = [](const float* from) { return *reinterpret_cast<const Floats*>(from); };
    const Floats latent = read(args.x + here), d1 = read(args.history + d_here);
    const float* k = args.coefficients + edit * 7;
    const float a = k[0], b0 = k[1], b1 = k[2], b2 = k[3], c = k[4], p = k[5], q = k[6];
    Floats d2 = {}, noise = {}, guided = {}, next = {}, d;
    if (b2 != 0.0f) d2 = read(args.history + d_here + size);
    if (c != 0.0f) noise = read(args.noise + here);

    if (q != 0.0f) {
      // clamped: row_start lives on the device, unchecked by the host
      const int64_t first = max(args.row_start[edit], int64_t{0}), last = min(args.row_start[edit + 1], args.rows);
#pragma unroll 4
      for (int64_t row = first; row < last; ++row) {
        const float weight = args.weights[row];
        const T* eps = first_eps + row * args.row_stride;
        if (weight == 0.0f) continue;
        Pack<T, kWidth> values;
        if (args.packed) {
          values = *reinterpret_cast<const Pack<T, kWidth>*>(eps);
        } else {
#pragma unroll
          for (int j = 0; j < kWidth; ++j) values.values[j] = eps[j * args.pixel_stride];
        }
#pragma unroll
        for (int j = 0; j < kWidth; ++j) guided.values[j] += weight * widen(values.values[j]);
      }
    }
    // 0 x NaN is NaN: a term whose coefficient is exactly zero is left out
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      d.values[j] = (p != 0.0f ? p * latent.values[j] : 0.0f) + q * guided.values[j];
      float& x = next.values[j];
      if (a != 0.0f) x = a * latent.values[j];
      if (b0 != 0.0f) x += b0 * d.values[j];
      if (b1 != 0.0f) x += b1 * d1.values[j];
      x += b2 * d2.values[j] + c * noise.values[j];
    }
    const auto write = [](float* to, const Floats& values) { *reinterpret_cast<Floats*>(to) = values; };
    write(args.x_next + here, next);
    write(args.history_next + d_here, d);
    write(args.history_next + d_here + size, d1);
  }
}

template <class T, int kWidth>
cudaError_t launch_guided_steps(const GuidedStepArgs<T>& args, cudaStream_t stream) {
  const int64_t threads = args.channels * args.pixels / kWidth;
  const dim3 grid(static_cast<unsigned>((threads + 255) / 256),
                  static_cast<unsigned>(args.edits < 65535 ? args.edits : 65535));
  guided_step_kernel<T, kWidth><<<grid, 256, 0, stream>>>(args);
  return cudaGetLastError();
}

inline bool begins_at(const void* pointer, uintptr_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

// Four values a thread, where every tensor lets a load of four begin at a multiple of them.
template <class T>
cudaError_t launch_guided_step(GuidedStepArgs<T> args, cudaStream_t stream) {
  if (args.channels * args.pixels == 0 || args.edits == 0) return cudaSuccess;
  constexpr uintptr_t wide = 4 * sizeof(float);
  const bool in_fours = args.pixels % 4 == 0 && begins_at(args.x, wide) && begins_at(args.history, wide) &&
                        begins_at(args.noise, wide) && begins_at(args.x_next, wide) &&
                        begins_at(args.history_next, wide);
  args.packed = in_fours && args.pixel_stride == 1 && args.row_stride % 4 == 0 && args.channel_stride % 4 == 0 &&
                begins_at(args.eps, 4 * sizeof(T));
  return in_fours ? launch_guided_steps<T, 4>(args, stream) : launch_guided_steps<T, 1>(args, stream);
}

template cudaError_t launch_guided_step<float>(GuidedStepArgs<float>, cudaStream_t);
template cudaError_t launch_guided_step<__nv_bfloat16>(GuidedStepArgs<__nv_bfloat16>, cudaStream_t);
template cudaError_t launch_guided_step<__half>(GuidedStepArgs<__half>, cudaStream_t);

}  // namespace ip2p
