// group_norm_silu on the CPU: shift, group norm and SiLU, read from memory once and written once.
//
// Lineage: group norm (Wu and He 2018); the statistics are Welford's in the blocked form of Chan, Golub and LeVeque
// (1983): a slab small enough for L1 gives its exact mean, then its squared deviations about that mean, and slabs
// merge. So a large common offset costs no digits, and the second look at each slab costs no memory traffic.
//
// One task is one sample's block of neighbouring groups: stats and normalisation follow each other in one thread with
// the data still in its L2, with no barrier and no scratch. Per value: 4 FLOPs for the statistics, 3 for the affine
// part, about 20 for SiLU; sizeof(T) read (twice, the second time from cache) and sizeof(T) written.
// The bits of a result depend on its own sample only: slabs are fixed by the shape, not by the batch or the threads.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "../checks.h"
#include "isa.h"
#include "numbers.h"

namespace ip2p {
namespace {

constexpr int64_t kSlabPixels = 64;    // channels-last: 64 pixels x 80 channels of fp32 fit L1 with room
constexpr int64_t kSlabValues = 2048;  // planar
constexpr int64_t kMaxChannels = 256;  // of one pass of a channels-last task

// Count, mean and sum of squared deviations of the values seen so far.
struct Moments {
  float count = 0.0f, mean = 0.0f, m2 = 0.0f;

  IP2P_INLINE void merge(float other_count, float other_mean, float other_m2) {
    const float total = count + other_count;
    const float delta = other_mean - mean;
    const float share = other_count / total;
    mean += delta * share;
    m2 += other_m2 + delta * delta * count * share;
    count = total;
  }
};

struct Norm {
  const float* weight;  // [C]
  const float* bias;    // [C]
  const float* shift;   // [N, C] or null
  int64_t channels, pixels, groups;
  float eps;

  int64_t channels_per_group() const { return channels / groups; }
  IP2P_INLINE float shift_of(int64_t image, int64_t channel) const {
    return shift == nullptr ? 0.0f : shift[image * channels + channel];
  }
  IP2P_INLINE float inverse_deviation(const Moments& m) const { return 1.0f / std::sqrt(m.m2 / m.count + eps); }
};

template <bool kSilu>
IP2P_INLINE float activate(float y) {
  return kSilu ? silu_of(y) : y;
}

// x, y [N, C, pixels]; a task is one group of one sample, which is one contiguous run.
template <class T, bool kSilu>
struct Planar {
  Norm norm;
  const T* x;
  T* y;

  int64_t tasks(int64_t images) const { return images * norm.groups; }

  IP2P_INLINE void operator()(int64_t begin, int64_t end) const {
    const int64_t width = norm.channels_per_group();
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / norm.groups;
      const int64_t first = task % norm.groups * width;  // channel
      Moments moments;
      for (int64_t channel = first; channel < first + width; ++channel) measure(image, channel, moments);
      const float inverse = norm.inverse_deviation(moments);
      for (int64_t channel = first; channel < first + width; ++channel)
        normalise(image, channel, moments.mean, inverse);
    }
  }

  IP2P_INLINE void measure(int64_t image, int64_t channel, Moments& moments) const {
    const T* plane = x + (image * norm.channels + channel) * norm.pixels;
    for (int64_t start = 0; start < norm.pixels; start += kSlabValues) {
      const int64_t count = norm.pixels - start < kSlabValues ? norm.pixels - start : kSlabValues;
      const T* __restrict__ slab = plane + start;
      const float origin = widen(slab[0]);  // sums of deviations keep the digits that sums of large values lose
      float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < count; ++i) sum += widen(slab[i]) - origin;
      const float mean = origin + sum / static_cast<float>(count);
#pragma omp simd reduction(+ : squares)
      for (int64_t i = 0; i < count; ++i) squares += (widen(slab[i]) - mean) * (widen(slab[i]) - mean);
      moments.merge(static_cast<float>(count), mean + norm.shift_of(image, channel), squares);
    }
  }

  IP2P_INLINE void normalise(int64_t image, int64_t channel, float mean, float inverse) const {
    const int64_t offset = (image * norm.channels + channel) * norm.pixels;
    const T* __restrict__ in = x + offset;
    T* __restrict__ out = y + offset;
    const float scale = inverse * norm.weight[channel], bias = norm.bias[channel];
    const float centre = mean - norm.shift_of(image, channel);
#pragma GCC ivdep
    for (int64_t i = 0; i < norm.pixels; ++i)
      out[i] = narrow<T>(activate<kSilu>((widen(in[i]) - centre) * scale + bias));
  }
};

// x, y [N, pixels, C]; a task is a block of neighbouring groups of one sample: runs of `width` channels, C apart.
template <class T, bool kSilu>
struct ChannelsLast {
  Norm norm;
  const T* x;
  T* y;
  int64_t groups_per_task;

  int64_t tasks_per_image() const { return (norm.groups + groups_per_task - 1) / groups_per_task; }
  int64_t tasks(int64_t images) const { return images * tasks_per_image(); }

  IP2P_INLINE void operator()(int64_t begin, int64_t end) const {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / tasks_per_image();
      const int64_t first = task % tasks_per_image() * groups_per_task;
      const int64_t last = first + groups_per_task < norm.groups ? first + groups_per_task : norm.groups;
      block(image, first, last);
    }
  }

  IP2P_INLINE void block(int64_t image, int64_t first_group, int64_t last_group) const {
    Moments moments[kMaxChannels];  // one a group, and a group has a channel or more
    const int64_t width = norm.channels_per_group();
    // a group wider than kMaxChannels is walked in strips; its moments merge over them as over slabs
    const int64_t first = first_group * width, last = last_group * width;
    for (int64_t strip = first; strip < last; strip += kMaxChannels)
      measure(image, strip, last - strip < kMaxChannels ? last - strip : kMaxChannels, first_group, moments);
    for (int64_t strip = first; strip < last; strip += kMaxChannels)
      normalise(image, strip, last - strip < kMaxChannels ? last - strip : kMaxChannels, first_group, moments);
  }

  IP2P_INLINE void measure(int64_t image, int64_t channel, int64_t count, int64_t first_group, Moments* moments) const {
    const int64_t width = norm.channels_per_group();
    alignas(64) float sum[kMaxChannels], centre[kMaxChannels];
    for (int64_t pixel = 0; pixel < norm.pixels; pixel += kSlabPixels) {
      const int64_t pixels = norm.pixels - pixel < kSlabPixels ? norm.pixels - pixel : kSlabPixels;
      const T* slab = x + (image * norm.pixels + pixel) * norm.channels + channel;
      // sums of deviations from the first pixel keep the digits that sums of large values lose
      for (int64_t c = 0; c < count; ++c) centre[c] = widen(slab[c]);
      accumulate<false>(slab, pixels, count, centre, sum);
      // [count] channel sums -> the slab's mean by group; the centre of a channel is that mean less its own shift
      for (int64_t c = 0; c < count;) {
        const int64_t end = c + width - (channel + c) % width < count ? c + width - (channel + c) % width : count;
        const float origin = centre[c];
        float total = 0.0f;
        for (int64_t i = c; i < end; ++i)
          total += sum[i] / static_cast<float>(pixels) + ((centre[i] - origin) + norm.shift_of(image, channel + i));
        const float mean = origin + total / static_cast<float>(end - c);
        for (int64_t i = c; i < end; ++i) centre[i] = mean - norm.shift_of(image, channel + i);
        c = end;
      }
      accumulate<true>(slab, pixels, count, centre, sum);
      for (int64_t c = 0; c < count;) {
        const int64_t end = c + width - (channel + c) % width < count ? c + width - (channel + c) % width : count;
        float squares = 0.0f;
        for (int64_t i = c; i < end; ++i) squares += sum[i];
        moments[(channel + c) / width - first_group].merge(static_cast<float>((end - c) * pixels),
                                                           centre[c] + norm.shift_of(image, channel + c), squares);
        c = end;
      }
    }
  }

  // sum[c] = the sum over the slab of x, or of (x - centre[c])^2
  template <bool kSquares>
  IP2P_INLINE void accumulate(const T* slab, int64_t pixels, int64_t count, const float* __restrict__ centre,
                              float* __restrict__ sum) const {
    const auto term = [&](T value, int64_t c) __attribute__((always_inline)) {
      const float deviation = widen(value) - centre[c];
      return kSquares ? deviation * deviation : deviation;
    };
    for (int64_t c = 0; c < count; ++c) sum[c] = 0.0f;
    int64_t pixel = 0;
    for (; pixel + 4 <= pixels; pixel += 4) {  // four at a time: one trip to sum[] for four loads
      const T* __restrict__ p0 = slab + pixel * norm.channels;
      const T* __restrict__ p1 = p0 + norm.channels;
      const T* __restrict__ p2 = p1 + norm.channels;
      const T* __restrict__ p3 = p2 + norm.channels;
#pragma GCC ivdep
      for (int64_t c = 0; c < count; ++c)
        sum[c] += (term(p0[c], c) + term(p1[c], c)) + (term(p2[c], c) + term(p3[c], c));
    }
    for (; pixel < pixels; ++pixel) {
      const T* __restrict__ p = slab + pixel * norm.channels;
#pragma GCC ivdep
      for (int64_t c = 0; c < count; ++c) sum[c] += term(p[c], c);
    }
  }

  IP2P_INLINE void normalise(int64_t image, int64_t channel, int64_t count, int64_t first_group,
                             const Moments* moments) const {
    const int64_t width = norm.channels_per_group();
    alignas(64) float scale[kMaxChannels], centre[kMaxChannels], bias[kMaxChannels];
    for (int64_t c = 0; c < count; ++c) {
      const Moments& group = moments[(channel + c) / width - first_group];
      scale[c] = norm.inverse_deviation(group) * norm.weight[channel + c];
      centre[c] = group.mean - norm.shift_of(image, channel + c);
      bias[c] = norm.bias[channel + c];
    }
    for (int64_t pixel = 0; pixel < norm.pixels; ++pixel) {
      const int64_t offset = (image * norm.pixels + pixel) * norm.channels + channel;
      const T* __restrict__ in = x + offset;
      T* __restrict__ out = y + offset;
#pragma GCC ivdep
      for (int64_t c = 0; c < count; ++c)
        out[c] = narrow<T>(activate<kSilu>((widen(in[c]) - centre[c]) * scale[c] + bias[c]));
    }
  }
};

// Enough channels a task for whole cache lines and vectors, few enough that every thread has tasks. No result depends
// on it: a group's moments do not see its neighbours.
int64_t groups_per_task(const Norm& norm, int64_t images) {
  const int64_t by_width = std::max<int64_t>(1, 80 / norm.channels_per_group());
  const int64_t by_threads = std::max<int64_t>(1, images * norm.groups / (4 * at::get_num_threads()));
  return std::min({by_width, by_threads, norm.groups});
}

template <class Body>
void run_tasks(const Body& body, int64_t images) {
  const Isa isa = isa_in_use();
  at::parallel_for(0, body.tasks(images), 1, [&](int64_t begin, int64_t end) { run_on(isa, body, begin, end); });
}

template <class T, bool kSilu>
void launch(const Norm& norm, const at::Tensor& x, at::Tensor& y, bool channels_last) {
  const T* in = static_cast<const T*>(x.const_data_ptr());
  T* out = static_cast<T*>(y.mutable_data_ptr());
  if (channels_last)
    run_tasks(ChannelsLast<T, kSilu>{norm, in, out, groups_per_task(norm, x.size(0))}, x.size(0));
  else
    run_tasks(Planar<T, kSilu>{norm, in, out}, x.size(0));
}

at::Tensor group_norm_silu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, int64_t groups,
                           double eps, const std::optional<at::Tensor>& shift, bool silu) {
  check_group_norm_silu(x, weight, bias, groups, eps, shift);
  const at::MemoryFormat format = output_format(x);
  const at::Tensor dense = x.contiguous(format);
  at::Tensor y = at::empty(x.sizes(), x.options().memory_format(format));
  if (x.numel() == 0) return y;

  const at::Tensor weight32 = weight.to(at::kFloat).contiguous();
  const at::Tensor bias32 = bias.to(at::kFloat).contiguous();
  const at::Tensor shift32 = shift.has_value() ? shift->to(at::kFloat).contiguous() : at::Tensor();
  const Norm norm{weight32.const_data_ptr<float>(),
                  bias32.const_data_ptr<float>(),
                  shift32.defined() ? shift32.const_data_ptr<float>() : nullptr,
                  x.size(1),
                  x.size(2) * x.size(3),
                  groups,
                  static_cast<float>(eps)};
  auto run = [&](auto type) {
    using T = decltype(type);
    const bool channels_last = format == at::MemoryFormat::ChannelsLast;
    silu ? launch<T, true>(norm, dense, y, channels_last) : launch<T, false>(norm, dense, y, channels_last);
  };
  switch (x.scalar_type()) {
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
      TORCH_CHECK(false, "group_norm_silu: x is ", x.scalar_type(), "; it must be float32, bfloat16 or float16");
  }
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(ip2p_fast, CPU, m) { m.impl("group_norm_silu", group_norm_silu); }

}  // namespace ip2p
