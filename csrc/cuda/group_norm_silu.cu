// torch.ops.ip2p_fast.group_norm_silu on CUDA: checks, device, stream, launch. The kernels are in group_norm_silu.cuh.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <optional>

#include "../checks.h"
#include "group_norm_silu.cuh"

namespace ip2p {
namespace {

// In the dtype of x or in float32.
at::Tensor readable(const at::Tensor& values, const at::Tensor& x) {
  return (values.scalar_type() == x.scalar_type() ? values : values.to(at::kFloat)).contiguous();
}

template <class T>
Vector<T> vector_of(const at::Tensor& values) {
  if (!values.defined()) return {};
  return {values.const_data_ptr(), values.scalar_type() == at::kFloat};
}

at::Tensor group_norm_silu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, int64_t groups,
                           double eps, const std::optional<at::Tensor>& shift, bool silu) {
  check_group_norm_silu(x, weight, bias, groups, eps, shift);
  TORCH_CHECK(x.size(1) <= 6144, "group_norm_silu: ", x.size(1), " channels; the CUDA kernel takes at most 6144");
  const c10::cuda::CUDAGuard guard(x.device());
  const at::MemoryFormat format = output_format(x);
  const bool planar = format == at::MemoryFormat::Contiguous;
  const at::Tensor dense = x.contiguous(format);
  at::Tensor y = at::empty(x.sizes(), x.options().memory_format(format));
  if (x.numel() == 0) return y;

  const at::Tensor weights = readable(weight, x), biases = readable(bias, x);
  const at::Tensor shifts = shift.has_value() ? readable(*shift, x) : at::Tensor();
  const int64_t pixels = x.size(2) * x.size(3);
  auto run = [&](auto type) {
    using T = decltype(type);
    GroupNormArgs<T> args{static_cast<const T*>(dense.const_data_ptr()),
                          static_cast<T*>(y.mutable_data_ptr()),
                          planar ? pixels : 1,
                          planar ? 1 : x.size(1),
                          vector_of<T>(weights),
                          vector_of<T>(biases),
                          vector_of<T>(shifts),
                          nullptr,
                          x.size(0),
                          x.size(1),
                          pixels,
                          groups,
                          static_cast<float>(eps),
                          silu,
                          {}};
    args.plan = plan_group_norm(args.channels, pixels, groups, sizeof(T), group_norm_pack(args));
    const at::Tensor partial = at::empty({x.size(0), args.plan.slabs, groups, 2}, x.options().dtype(at::kFloat));
    args.partial = reinterpret_cast<float2*>(partial.mutable_data_ptr<float>());
    C10_CUDA_CHECK(launch_group_norm_silu(args, c10::cuda::getCurrentCUDAStream()));
  };
  switch (x.scalar_type()) {
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
      TORCH_CHECK(false, "group_norm_silu: x is ", x.scalar_type(), "; it must be float32, bfloat16 or float16");
  }
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(ip2p_fast, CUDA, m) { m.impl("group_norm_silu", group_norm_silu); }

}  // namespace ip2p
