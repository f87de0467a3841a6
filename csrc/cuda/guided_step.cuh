// guided_step on CUDA: the weighted sum of an edit's rows and one sampler step, in one pass over memory.
//
// Lineage: csrc/cpu/guided_step.cpp, one thread a latent value. Neighbouring threads hold neighbouring pixels, so every
// load but that of channels-last rows is coalesced; those rows are 4 channels wide, which a warp's neighbours share.
// Per latent value with R rows an edit: 2 R + 12 FLOPs; sizeof(eps) R + 16 bytes read and 12 written, each once.
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
};

template <class T>
__global__ void __launch_bounds__(256) guided_step_kernel(GuidedStepArgs<T> args) {
  const int64_t size = args.channels * args.pixels;  // of one edit
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= size) return;
  for (int64_t edit = blockIdx.y; edit < args.edits; edit += gridDim.y) {
    const float* k = args.coefficients + edit * 7;
    const float a = k[0], b0 = k[1], b1 = k[2], b2 = k[3], c = k[4], p = k[5], q = k[6];
    const int64_t here = edit * size + i, d_here = edit * 2 * size + i;

    float guided = 0.0f;
    if (q != 0.0f) {
      // clamped: row_start lives on the device, unchecked by the host
      const int64_t first = max(args.row_start[edit], int64_t{0}), last = min(args.row_start[edit + 1], args.rows);
      const T* eps = args.eps + i / args.pixels * args.channel_stride + i % args.pixels * args.pixel_stride;
      for (int64_t row = first; row < last; ++row) {
        const float weight = args.weights[row];
        if (weight != 0.0f) guided += weight * widen(eps[row * args.row_stride]);
      }
    }
    // 0 x NaN is NaN: a term whose coefficient is exactly zero is left out
    const float latent = args.x[here], d1 = args.history[d_here];
    const float d = (p != 0.0f ? p * latent : 0.0f) + q * guided;
    float next = a != 0.0f ? a * latent : 0.0f;
    if (b0 != 0.0f) next += b0 * d;
    if (b1 != 0.0f) next += b1 * d1;
    if (b2 != 0.0f) next += b2 * args.history[d_here + size];
    if (c != 0.0f) next += c * args.noise[here];
    args.x_next[here] = next;
    args.history_next[d_here] = d;
    args.history_next[d_here + size] = d1;
  }
}

template <class T>
cudaError_t launch_guided_step(const GuidedStepArgs<T>& args, cudaStream_t stream) {
  const int64_t size = args.channels * args.pixels;
  if (size == 0 || args.edits == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>((size + 255) / 256),
                  static_cast<unsigned>(args.edits < 65535 ? args.edits : 65535));
  guided_step_kernel<T><<<grid, 256, 0, stream>>>(args);
  return cudaGetLastError();
}

template cudaError_t launch_guided_step<float>(const GuidedStepArgs<float>&, cudaStream_t);
template cudaError_t launch_guided_step<__nv_bfloat16>(const GuidedStepArgs<__nv_bfloat16>&, cudaStream_t);
template cudaError_t launch_guided_step<__half>(const GuidedStepArgs<__half>&, cudaStream_t);

}  // namespace ip2p
