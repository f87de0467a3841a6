// guided_step on the CPU: the weighted sum of an edit's rows and one sampler step, in one pass over memory.
//
// Lineage: in eager PyTorch this is a dozen element-wise operators, each a trip to memory; here one task takes one
// block of one channel of one edit and finishes it.
// FLOPs and bytes per latent value with R rows an edit: 2 R + 12 FLOPs; (sizeof(eps) R + 16 read) + 12 written.
// Blocks never cross an edit, so an edit's result does not depend on the others or on the thread count, bit for bit.

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>

#include "../checks.h"
#include "isa.h"
#include "numbers.h"

namespace ip2p {
namespace {

constexpr int64_t kBlock = 2048;  // values a task
alignas(64) constexpr float kZeros[kBlock] = {};

template <class T>
struct GuidedStep {
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
  int64_t channels, pixels;

  int64_t blocks_per_channel() const { return (pixels + kBlock - 1) / kBlock; }

  IP2P_INLINE void operator()(int64_t begin, int64_t end) const {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t plane = task / blocks_per_channel();  // edit and channel
      const int64_t first = task % blocks_per_channel() * kBlock;
      const int64_t count = pixels - first < kBlock ? pixels - first : kBlock;
      step(plane / channels, plane % channels, first, count);
    }
  }

  IP2P_INLINE void step(int64_t edit, int64_t channel, int64_t first, int64_t count) const {
    const float* k = coefficients + edit * 7;
    const float a = k[0], b0 = k[1], b1 = k[2], b2 = k[3], c = k[4], p = k[5], q = k[6];
    const int64_t here = (edit * channels + channel) * pixels + first;
    const int64_t d_here = (edit * 2 * channels + channel) * pixels + first;
    const float* d1 = history + d_here;
    const float* d2 = d1 + channels * pixels;

    // Three rows, as many as an edit has, are read where they lie, all streams at once; more of them, or rows whose
    // pixels lie apart, are summed first into L1.
    alignas(64) float summed[kBlock];
    const float* rest = kZeros;
    const T* rows[3] = {zeros(), zeros(), zeros()};
    float w[3] = {0.0f, 0.0f, 0.0f};
    int found = 0;
    for (int64_t row = row_start[edit]; q != 0.0f && row < row_start[edit + 1]; ++row) {
      if (weights[row] == 0.0f) continue;
      const T* values = eps + row * row_stride + channel * channel_stride + first * pixel_stride;
      if (pixel_stride == 1 && found < 3) {
        rows[found] = values;
        w[found++] = weights[row];
      } else {
#pragma GCC ivdep
        for (int64_t i = 0; i < count; ++i) summed[i] = rest[i] + weights[row] * widen(values[i * pixel_stride]);
        rest = summed;
      }
    }

    // a coefficient of zero reads zeros in place of its operand: whatever lies there, NaN or unset, stays there
    const float* __restrict__ x_of_a = a == 0.0f ? kZeros : x + here;
    const float* __restrict__ x_of_p = p == 0.0f ? kZeros : x + here;
    const float* __restrict__ d1_term = b1 == 0.0f ? kZeros : d1;
    const float* __restrict__ d2_term = b2 == 0.0f ? kZeros : d2;
    const float* __restrict__ noise_term = c == 0.0f ? kZeros : noise + here;
    const T* __restrict__ r0 = rows[0], * __restrict__ r1 = rows[1], * __restrict__ r2 = rows[2];
    float* __restrict__ x_out = x_next + here;
    float* __restrict__ d_out = history_next + d_here;
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      const float guided = w[0] * widen(r0[i]) + w[1] * widen(r1[i]) + w[2] * widen(r2[i]) + rest[i];
      const float d = p * x_of_p[i] + q * guided;
      const float d_term = b0 == 0.0f ? 0.0f : b0 * d;
      x_out[i] = a * x_of_a[i] + d_term + b1 * d1_term[i] + b2 * d2_term[i] + c * noise_term[i];
      d_out[i] = d;
    }
    std::memcpy(d_out + channels * pixels, d1, count * sizeof(float));
  }

 private:
  static const T* zeros() {
    return reinterpret_cast<const T*>(kZeros);  // the bits of zero are the same in every format
  }
};

template <class T>
void launch(const at::Tensor& eps, const at::Tensor& row_start, const at::Tensor& weights, const at::Tensor& x,
            const at::Tensor& history, const at::Tensor& coefficients, const at::Tensor& noise, at::Tensor& x_next,
            at::Tensor& history_next) {
  const GuidedStep<T> body{static_cast<const T*>(eps.const_data_ptr()),
                           eps.stride(0),
                           eps.stride(1),
                           eps.stride(3),
                           row_start.const_data_ptr<int64_t>(),
                           weights.const_data_ptr<float>(),
                           x.const_data_ptr<float>(),
                           history.const_data_ptr<float>(),
                           coefficients.const_data_ptr<float>(),
                           noise.const_data_ptr<float>(),
                           x_next.mutable_data_ptr<float>(),
                           history_next.mutable_data_ptr<float>(),
                           x.size(1),
                           x.size(2) * x.size(3)};
  const int64_t tasks = x.size(0) * x.size(1) * body.blocks_per_channel();
  const Isa isa = isa_in_use();
  at::parallel_for(0, tasks, 8, [&](int64_t begin, int64_t end) { run_on(isa, body, begin, end); });
}

std::tuple<at::Tensor, at::Tensor> guided_step(const at::Tensor& eps, const at::Tensor& row_start,
                                               const at::Tensor& weights, const at::Tensor& x,
                                               const at::Tensor& history, const at::Tensor& coefficients,
                                               const at::Tensor& noise) {
  check_guided_step(eps, row_start, weights, x, history, coefficients, noise);
  const at::Tensor starts = row_start.contiguous();
  const int64_t* start = starts.const_data_ptr<int64_t>();
  TORCH_CHECK(start[0] >= 0 && std::is_sorted(start, start + starts.size(0)) && start[x.size(0)] <= eps.size(0),
              "guided_step: row_start must rise from 0 to ", eps.size(0), ", the rows of eps, at most");
  // the kernel walks a row's pixels with one stride: contiguous and channels-last rows both have it
  const at::Tensor rows = eps.size(2) == 1 || eps.stride(2) == eps.size(3) * eps.stride(3) ? eps : eps.contiguous();
  at::Tensor x_next = at::empty(x.sizes(), x.options());
  at::Tensor history_next = at::empty(history.sizes(), history.options());
  auto run = [&](auto type) {
    launch<decltype(type)>(rows, starts, weights.contiguous(), x.contiguous(), history.contiguous(),
                           coefficients.contiguous(), noise.contiguous(), x_next, history_next);
  };
  switch (eps.scalar_type()) {
    case at::kFloat:
      run(float{});
      break;
    case at::kBFloat16:
      run(BFloat16{});
      break;
    case at::kHalf:
      run(Half{});
      break;
    default:
      TORCH_CHECK(false, "guided_step: eps is ", eps.scalar_type(), "; it must be float32, bfloat16 or float16");
  }
  return {x_next, history_next};
}

}  // namespace

TORCH_LIBRARY_IMPL(ip2p_fast, CPU, m) { m.impl("guided_step", guided_step); }

}  // namespace ip2p
