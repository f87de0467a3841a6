// How group_norm_silu shares a sample out among CTAs: slabs of pixels times parts of channels. Plain C++, which a test
// compiles without CUDA.
#pragma once

#include <cstdint>

namespace ip2p {

constexpr int64_t kMultiprocessors = 132;  // an H100's: one sample alone is to give each a CTA
constexpr int64_t kMaxSlabs = 64;          // of which every CTA merges the statistics
constexpr int64_t kMinSlabPixels = 4;
constexpr int64_t kMinRunBytes = 64;  // of one pixel in one part: shorter runs waste the lines they are read in

struct GroupNormPlan {
  int64_t slab_pixels, slabs;
  int64_t part_groups, parts;  // parts are equal; the last slab may be smaller
};

// item_bytes: of a value. pack: values of one load, of which a part is a multiple. Depends on the shape of a sample
// alone, so that its bits do not depend on its batch.
inline GroupNormPlan plan_group_norm(int64_t channels, int64_t pixels, int64_t groups, int64_t item_bytes,
                                     int64_t pack) {
  const int64_t even = (pixels + kMaxSlabs - 1) / kMaxSlabs, width = channels / groups;
  const int64_t slab_pixels = even > kMinSlabPixels ? even : kMinSlabPixels;
  const int64_t slabs = (pixels + slab_pixels - 1) / slab_pixels;
  int64_t part_groups = groups, parts = 1;
  while (slabs * parts < kMultiprocessors && part_groups % 2 == 0 && part_groups / 2 * width % pack == 0 &&
         part_groups / 2 * width * item_bytes >= kMinRunBytes) {
    part_groups /= 2;
    parts *= 2;
  }
  return {slab_pixels, slabs, part_groups, parts};
}

}  // namespace ip2p
