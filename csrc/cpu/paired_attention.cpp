// paired_attention on the CPU: rows that share an attention map, computed with one pass over it and no map in memory.
//
// Lineage: flash attention (Dao et al. 2022), with the values of every row that uses a map side by side: one product
// with K and one exponential serve them all. The explicit form (Hertz et al. 2022) writes maps of heads x N x M.
// FLOPs a map of N x M and head dim d, shared by m rows: 2 N M d (1 + m) and N M exponentials; m plain calls take
// 4 N M d m and N M m. The products are oneDNN's, as in PyTorch's own attention (AMX for 16-bit numbers).
// A task is one block of queries of one head of one map; which thread runs it does not change its result.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "../checks.h"
#include "isa.h"
#include "numbers.h"

// older releases of PyTorch lack the products; there the operator's reference runs
#if defined(CPUBLAS_BRGEMM_F32F32F32) && defined(CPUBLAS_BRGEMM_BF16BF16F32) && defined(CPUBLAS_BRGEMM_F16F16F32)

namespace ip2p {
namespace {

constexpr int64_t kQueries = 128;  // a task
constexpr int64_t kKeys = 512;     // a block: its scores, 256 KB, stay in L2
constexpr int64_t kPanel = 64;     // columns of a packed right-hand side, the widest that oneDNN takes
constexpr int64_t kPair = 2;       // 16-bit right-hand sides hold two neighbours of the inner dimension side by side

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// [batch, heads, tokens, d] with any strides but the last, which is 1
template <class T>
struct Tokens {
  const T* data;
  int64_t batch_stride, head_stride, token_stride;

  const T* at(int64_t batch, int64_t head, int64_t token) const {
    return data + batch * batch_stride + head * head_stride + token * token_stride;
  }
};

template <class T>
Tokens<T> tokens_of(const at::Tensor& x) {
  return {static_cast<const T*>(x.const_data_ptr()), x.stride(0), x.stride(1), x.stride(2)};
}

// Where entry (inner, column) of a packed right-hand side lies: panels of kPanel columns, one behind the other.
template <class T>
int64_t packed_at(int64_t inner, int64_t column, int64_t inner_size) {
  constexpr int64_t group = sizeof(T) == 2 ? kPair : 1;
  return column / kPanel * kPanel * inner_size + inner / group * group * kPanel + column % kPanel * group +
         inner % group;
}

// One softmax of a block of scores, in place of the running one: flash attention's update of maximum, sum and result.
template <class T>
struct SoftmaxUpdate {
  float* scores;     // [kQueries, kKeys] in; the probabilities of float32 out
  T* probabilities;  // [kQueries, kKeys] out; the same memory as scores for float32
  float* maximum;    // [kQueries]
  float* sum;        // [kQueries]
  float* result;     // [kQueries, width], of which `columns` are in use
  int64_t keys, width, columns;
  float scale;

  IP2P_INLINE void operator()(int64_t begin, int64_t end) const {
    for (int64_t row = begin; row < end; ++row) {
      const float* s = scores + row * kKeys;
      T* p = probabilities + row * kKeys;
      float top = maximum[row];
#pragma omp simd reduction(max : top)
      for (int64_t j = 0; j < keys; ++j) top = s[j] > top ? s[j] : top;
      float added = 0.0f;
#pragma omp simd reduction(+ : added)
      for (int64_t j = 0; j < keys; ++j) {
        const float exponent = (s[j] - top) * scale;
        const float value = exponent == exponent ? exp_of(exponent) : exponent;  // NaN stays NaN
        added += value;
        p[j] = narrow<T>(value);
      }
      for (int64_t j = keys; j % kPair != 0; ++j) p[j] = T{};

      const float kept = exp_of((maximum[row] - top) * scale);
      maximum[row] = top;
      sum[row] = sum[row] * kept + added;
      float* __restrict__ r = result + row * width;
      for (int64_t j = 0; j < columns; ++j) r[j] *= kept;
    }
  }
};

template <class T>
struct PairedAttention {
  Tokens<T> q, k, v;                       // [maps, heads, N, d], [maps, heads, M, d], [rows, heads, M, dv]
  T* out;                                  // [rows, heads, N, dv]
  std::vector<std::vector<int64_t>> rows;  // of each map
  int64_t heads, queries, keys, dim, value_dim;

  // T is the storage type that kernels read; oneDNN's is of the same bits
  using Blas = std::conditional_t<std::is_same_v<T, float>, float,
                                  std::conditional_t<std::is_same_v<T, BFloat16>, at::BFloat16, at::Half>>;

  void run() const {
    int64_t widest = 0;
    for (const auto& sharing : rows) widest = std::max<int64_t>(widest, sharing.size());
    const int64_t inner = round_up(dim, kPair), all_keys = round_up(keys, kPair);
    const int64_t key_size = round_up(all_keys, kPanel) * inner;
    const int64_t value_size = round_up(widest * value_dim, kPanel) * all_keys;
    const int64_t maps = static_cast<int64_t>(rows.size());
    const std::unique_ptr<T[]> packed(new T[maps * heads * (key_size + value_size)]);  // not cleared here
    T *const packed_keys = packed.get(), *const packed_values = packed_keys + maps * heads * key_size;
    at::parallel_for(0, maps * heads, 1, [&](int64_t begin, int64_t end) {
      std::fill(packed_keys + begin * key_size, packed_keys + end * key_size, T{});
      std::fill(packed_values + begin * value_size, packed_values + end * value_size, T{});
      for (int64_t i = begin; i < end; ++i) {
        pack_keys(packed_keys + i * key_size, i / heads, i % heads, inner);
        pack_values(packed_values + i * value_size, i / heads, i % heads);
      }
    });
    const int64_t blocks = (queries + kQueries - 1) / kQueries;
    at::parallel_for(0, maps * heads * blocks, 1, [&](int64_t begin, int64_t end) {
      Scratch scratch(inner, round_up(widest * value_dim, kPanel));
      for (int64_t task = begin; task < end; ++task) {
        const int64_t i = task / blocks;
        if (!rows[i / heads].empty())
          attend(scratch, packed_keys + i * key_size, packed_values + i * value_size, i / heads, i % heads,
                 task % blocks * kQueries, inner);
      }
      if (sizeof(T) == 2) at::native::cpublas::brgemm_release();
    });
  }

 private:
  struct Scratch {
    std::vector<T> queries, narrow_probabilities;
    std::vector<float> scores, result, maximum, sum;

    Scratch(int64_t inner, int64_t width)
        : queries(kQueries * inner),
          narrow_probabilities(std::is_same_v<T, float> ? 0 : kQueries * kKeys),
          scores(kQueries * kKeys),
          result(kQueries * width),
          maximum(kQueries),
          sum(kQueries) {}

    T* probabilities() {
      if constexpr (std::is_same_v<T, float>) return scores.data();
      return narrow_probabilities.data();
    }
  };

  // K as a right-hand side [d, M], block by block of keys
  void pack_keys(T* packed, int64_t map, int64_t head, int64_t inner) const {
    for (int64_t key = 0; key < keys; ++key) {
      const T* from = k.at(map, head, key);
      for (int64_t i = 0; i < dim; ++i) packed[packed_at<T>(i, key, inner)] = from[i];
    }
  }

  // the values of all rows that use the map, side by side, as right-hand sides [keys of a block, rows dv]
  void pack_values(T* packed, int64_t map, int64_t head) const {
    const int64_t all_keys = round_up(keys, kPair);
    const int64_t width = round_up(static_cast<int64_t>(rows[map].size()) * value_dim, kPanel);
    for (int64_t first = 0; first < all_keys; first += kKeys) {
      const int64_t block = std::min(kKeys, all_keys - first);
      T* here = packed + first * width;
      for (size_t n = 0; n < rows[map].size(); ++n)
        for (int64_t key = first; key < std::min(keys, first + block); ++key) {
          const T* from = v.at(rows[map][n], head, key);
          for (int64_t i = 0; i < value_dim; ++i) here[packed_at<T>(key - first, n * value_dim + i, block)] = from[i];
        }
    }
  }

  void attend(Scratch& scratch, const T* packed_keys, const T* packed_values, int64_t map, int64_t head, int64_t first,
              int64_t inner) const {
    const int64_t count = std::min(kQueries, queries - first), all_keys = round_up(keys, kPair);
    const int64_t columns = static_cast<int64_t>(rows[map].size()) * value_dim, width = round_up(columns, kPanel);
    for (int64_t i = 0; i < count; ++i)
      std::copy_n(q.at(map, head, first + i), dim, scratch.queries.data() + i * inner);
    std::fill(scratch.result.begin(), scratch.result.end(), 0.0f);
    std::fill(scratch.maximum.begin(), scratch.maximum.end(), -std::numeric_limits<float>::max());
    std::fill(scratch.sum.begin(), scratch.sum.end(), 0.0f);

    for (int64_t block = 0; block < keys; block += kKeys) {
      const int64_t wide = std::min(kKeys, all_keys - block);
      for (int64_t j = 0; j < wide; j += kPanel)
        multiply(count, std::min(kPanel, wide - j), inner, scratch.queries.data(), inner,
                 packed_keys + (block + j) * inner, scratch.scores.data() + j, kKeys, false);
      const SoftmaxUpdate<T> update{scratch.scores.data(),
                                    scratch.probabilities(),
                                    scratch.maximum.data(),
                                    scratch.sum.data(),
                                    scratch.result.data(),
                                    std::min(kKeys, keys - block),
                                    width,
                                    columns,
                                    1.0f / std::sqrt(static_cast<float>(dim))};
      run_on(isa_in_use(), update, 0, count);
      for (int64_t j = 0; j < columns; j += kPanel)
        multiply(count, std::min(kPanel, columns - j), wide, scratch.probabilities(), kKeys,
                 packed_values + block * width + j * wide, scratch.result.data() + j, width, true);
    }
    for (size_t n = 0; n < rows[map].size(); ++n)
      for (int64_t i = 0; i < count; ++i) {
        T* to = out + ((rows[map][n] * heads + head) * queries + first + i) * value_dim;
        const float* from = scratch.result.data() + i * width + n * value_dim;
        const float share = 1.0f / scratch.sum[i];
        for (int64_t j = 0; j < value_dim; ++j) to[j] = narrow<T>(from[j] * share);
      }
  }

  // C [m, n] (+)= A [m, inner] B, B one packed panel
  static void multiply(int64_t m, int64_t n, int64_t inner, const T* a, int64_t stride_a, const T* b, float* c,
                       int64_t stride_c, bool add) {
    at::native::cpublas::brgemm(m, n, inner, stride_a, kPanel, stride_c, add, reinterpret_cast<const Blas*>(a),
                                reinterpret_cast<const Blas*>(b), c, sizeof(T) == 2);
  }
};

at::Tensor paired_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const at::Tensor& source_of_row) {
  check_paired_attention(q, k, v, source_of_row);
  at::ScalarType type = v.scalar_type();
  // without hardware for 16-bit products the numbers are widened, as PyTorch does
  if (type != at::kFloat && !at::native::cpublas::could_pack(type)) type = at::kFloat;
  const auto dense = [&](const at::Tensor& x) {
    const at::Tensor wide = x.to(type);
    return wide.stride(3) == 1 || wide.size(3) == 1 ? wide : wide.contiguous();
  };
  const at::Tensor queries = dense(q), keys = dense(k), values = dense(v), sources = source_of_row.contiguous();
  at::Tensor out = at::empty({v.size(0), v.size(1), q.size(2), v.size(3)}, v.options().dtype(type));
  if (out.numel() == 0) return out.to(v.scalar_type());
  std::vector<std::vector<int64_t>> rows(q.size(0));
  for (int64_t row = 0; row < v.size(0); ++row) {
    const int64_t source = sources.const_data_ptr<int64_t>()[row];
    TORCH_CHECK(0 <= source && source < q.size(0), "paired_attention: source_of_row[", row, "] is ", source,
                "; it must be one of the ", q.size(0), " rows of q");
    rows[source].push_back(row);
  }
  const auto run = [&](auto example) {
    using T = decltype(example);
    PairedAttention<T>{tokens_of<T>(queries),
                       tokens_of<T>(keys),
                       tokens_of<T>(values),
                       static_cast<T*>(out.mutable_data_ptr()),
                       std::move(rows),
                       q.size(1),
                       q.size(2),
                       k.size(2),
                       q.size(3),
                       v.size(3)}
        .run();
  };
  switch (type) {
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
      TORCH_CHECK(false, "paired_attention: v is ", type, "; it must be float32, bfloat16 or float16");
  }
  return out.to(v.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(ip2p_fast, CPU, m) { m.impl("paired_attention", paired_attention); }

}  // namespace ip2p

#endif
