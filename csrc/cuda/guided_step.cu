// torch.ops.ip2p_fast.guided_step on CUDA: checks, device, stream, launch. The kernel is in guided_step.cuh.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <tuple>

#include "../checks.h"
#include "guided_step.cuh"

namespace ip2p {
namespace {

template <class T>
void launch(const at::Tensor& eps, const at::Tensor& row_start, const at::Tensor& weights, const at::Tensor& x,
            const at::Tensor& history, const at::Tensor& coefficients, const at::Tensor& noise, at::Tensor& x_next,
            at::Tensor& history_next) {
  const GuidedStepArgs<T> args{static_cast<const T*>(eps.const_data_ptr()),
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
                               eps.size(0),
                               x.size(0),
                               x.size(1),
                               x.size(2) * x.size(3)};
  C10_CUDA_CHECK(launch_guided_step(args, c10::cuda::getCurrentCUDAStream()));
}

std::tuple<at::Tensor, at::Tensor> guided_step(const at::Tensor& eps, const at::Tensor& row_start,
                                               const at::Tensor& weights, const at::Tensor& x,
                                               const at::Tensor& history, const at::Tensor& coefficients,
                                               const at::Tensor& noise) {
  check_guided_step(eps, row_start, weights, x, history, coefficients, noise);
  const c10::cuda::CUDAGuard guard(x.device());
  // the kernel walks a row's pixels with one stride: contiguous and channels-last rows both have it
  const at::Tensor rows = eps.size(2) == 1 || eps.stride(2) == eps.size(3) * eps.stride(3) ? eps : eps.contiguous();
  at::Tensor x_next = at::empty(x.sizes(), x.options());
  at::Tensor history_next = at::empty(history.sizes(), history.options());
  auto run = [&](auto type) {
    launch<decltype(type)>(rows, row_start.contiguous(), weights.contiguous(), x.contiguous(), history.contiguous(),
                           coefficients.contiguous(), noise.contiguous(), x_next, history_next);
  };
  switch (eps.scalar_type()) {
    case at::kFloat:
      run(float{});
      break;
    case at::kBFloat16:
      run(__nv_bfloat16{});
      break;
    case at::kHalf:
      run(__half{});
      break;
    default:
      TORCH_CHECK(false, "guided_step: eps is ", eps.scalar_type(), "; it must be float32, bfloat16 or float16");
  }
  return {x_next, history_next};
}

}  // namespace

TORCH_LIBRARY_IMPL(ip2p_fast, CUDA, m) { m.impl("guided_step", guided_step); }

}  // namespace ip2p
