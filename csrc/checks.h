// What must hold before a kernel touches memory. `schemas.py` says the same to users in better words; these lines guard
// callers that reach torch.ops directly, exported graphs among them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <c10/util/Optional.h>

#include <optional>

namespace ip2p {

inline void check_guided_step(const at::Tensor& eps, const at::Tensor& row_start, const at::Tensor& weights,
                              const at::Tensor& x, const at::Tensor& history, const at::Tensor& coefficients,
                              const at::Tensor& noise) {
  TORCH_CHECK(x.dim() == 4 && x.size(0) >= 1, "guided_step: x must be [edits >= 1, C, h, w], not ", x.sizes());
  TORCH_CHECK(eps.dim() == 4 && eps.sizes().slice(1) == x.sizes().slice(1), "guided_step: eps ", eps.sizes(), " and x ",
              x.sizes(), " differ in more than their first dimension");
  const int64_t edits = x.size(0);
  TORCH_CHECK(row_start.scalar_type() == at::kLong && row_start.dim() == 1 && row_start.size(0) == edits + 1,
              "guided_step: row_start must be int64 [edits + 1]");
  TORCH_CHECK(weights.dim() == 1 && weights.size(0) == eps.size(0), "guided_step: weights must be [rows]");
  TORCH_CHECK(noise.sizes() == x.sizes(), "guided_step: noise must have the shape of x");
  TORCH_CHECK(coefficients.dim() == 2 && coefficients.size(0) == edits && coefficients.size(1) == 7,
              "guided_step: coefficients must be [edits, 7]");
  TORCH_CHECK(history.dim() == 5 && history.size(0) == edits && history.size(1) == 2 &&
                  history.sizes().slice(2) == x.sizes().slice(1),
              "guided_step: history must be [edits, 2, channels, height, width]");
  for (const at::Tensor* state : {&weights, &x, &history, &coefficients, &noise})
    TORCH_CHECK(state->scalar_type() == at::kFloat, "guided_step: all but eps and row_start must be float32");
  for (const at::Tensor* other : {&eps, &row_start, &weights, &history, &coefficients, &noise})
    TORCH_CHECK(other->device() == x.device(), "guided_step: every tensor must be on one device");
}

inline void check_group_norm_silu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, int64_t groups,
                                  double eps, const std::optional<at::Tensor>& shift) {
  TORCH_CHECK(x.dim() == 4, "group_norm_silu: x must be [N, C, H, W], not ", x.sizes());
  const int64_t channels = x.size(1);
  TORCH_CHECK(groups >= 1 && channels % groups == 0, "group_norm_silu: ", channels, " channels in ", groups, " groups");
  TORCH_CHECK(weight.dim() == 1 && weight.size(0) == channels && bias.dim() == 1 && bias.size(0) == channels,
              "group_norm_silu: weight and bias must be [C]");
  TORCH_CHECK(eps >= 0, "group_norm_silu: eps is ", eps);
  TORCH_CHECK(weight.is_floating_point() && bias.is_floating_point() && (!shift || shift->is_floating_point()),
              "group_norm_silu: weight, bias and shift must be floating-point");
  TORCH_CHECK(weight.device() == x.device() && bias.device() == x.device(),
              "group_norm_silu: every tensor must be on one device");
  if (shift.has_value())
    TORCH_CHECK(
        shift->dim() == 2 && shift->size(0) == x.size(0) && shift->size(1) == channels && shift->device() == x.device(),
        "group_norm_silu: shift must be [N, C] on the device of x");
}

inline void check_paired_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const at::Tensor& source_of_row) {
  TORCH_CHECK(q.dim() == 4 && k.dim() == 4 && v.dim() == 4, "paired_attention: q, k and v must be [rows, heads, N, d]");
  TORCH_CHECK(k.size(0) == q.size(0) && k.size(1) == q.size(1) && k.size(3) == q.size(3), "paired_attention: q ",
              q.sizes(), " and k ", k.sizes(), " must agree in rows, heads and d");
  TORCH_CHECK(v.size(1) == k.size(1) && v.size(2) == k.size(2), "paired_attention: k ", k.sizes(), " and v ", v.sizes(),
              " must agree in heads and tokens");
  TORCH_CHECK(k.size(2) >= 1 && q.size(3) >= 1, "paired_attention: k has no tokens, or d is 0");
  TORCH_CHECK(
      source_of_row.scalar_type() == at::kLong && source_of_row.dim() == 1 && source_of_row.size(0) == v.size(0),
      "paired_attention: source_of_row must be int64, one a row of v");
  TORCH_CHECK(v.is_floating_point() && q.scalar_type() == v.scalar_type() && k.scalar_type() == v.scalar_type(),
              "paired_attention: q, k and v must have one floating-point dtype");
  for (const at::Tensor* other : {&q, &k, &source_of_row})
    TORCH_CHECK(other->device() == v.device(), "paired_attention: every tensor must be on one device");
}

// schemas.output_format: channels_last for a channels-last tensor, whole or a slice of a larger one
inline at::MemoryFormat output_format(const at::Tensor& x) {
  return x.stride(1) == 1 && !x.is_contiguous() ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

}  // namespace ip2p
