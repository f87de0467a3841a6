// Number formats and exp, as branch-free scalar code that a compiler vectorises at any width.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "isa.h"

namespace ip2p {

// 16-bit storage, laid out as c10::BFloat16 and c10::Half
struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

IP2P_INLINE float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

IP2P_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

IP2P_INLINE float widen(float value) { return value; }

IP2P_INLINE float widen(BFloat16 value) { return float_of(static_cast<uint32_t>(value.bits) << 16); }

// Exponent and mantissa move into place, and one exact product mends the bias of normals and subnormals alike.
IP2P_INLINE float widen(Half value) {
  const uint32_t magnitude = value.bits & 0x7fffu;
  const uint32_t finite = bits_of(float_of(magnitude << 13) * 0x1p112f);
  const uint32_t special = magnitude >= 0x7c00u ? 0x7f800000u : 0u;
  return float_of(finite | special | (static_cast<uint32_t>(value.bits & 0x8000u) << 16));
}

template <class T>
T narrow(float value);

template <>
IP2P_INLINE float narrow<float>(float value) {
  return value;
}

// Round to nearest even; NaN stays NaN (rounding alone could carry its mantissa into infinity).
template <>
IP2P_INLINE BFloat16 narrow<BFloat16>(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return {static_cast<uint16_t>(value == value ? rounded : 0x7fc0u)};
}

// Round to nearest even: the sum with a power of two that lies 13 bits above the last kept bit rounds in hardware.
// Scaling up first sends what exceeds a half's range to infinity (M. Dukhan's FP16 library describes the method).
template <>
IP2P_INLINE Half narrow<Half>(float value) {
  const uint32_t bits = bits_of(value);
  const float scaled = (float_of(bits & 0x7fffffffu) * 0x1p112f) * 0x1p-110f;
  const uint32_t exponent = (bits << 1) & 0xff000000u;
  const uint32_t bounded = exponent < 0x71000000u ? 0x71000000u : exponent;
  const uint32_t rounded = bits_of(float_of((bounded >> 1) + 0x07800000u) + scaled);
  const uint32_t magnitude = ((rounded >> 13) & 0x7c00u) + (rounded & 0x0fffu);
  return {static_cast<uint16_t>(((bits >> 16) & 0x8000u) | (value == value ? magnitude : 0x7e00u))};
}

// e^x within 2 ulp on [-87, 87], clamped outside: 2^n e^r with |r| <= ln 2 / 2 and Cephes' minimax polynomial.
// The clamp works on the bits (so NaN counts as 87): a float comparison makes GCC compute the clamped branch's value
// for every lane, and the quotients that follow are then denormal, at 150 cycles each.
IP2P_INLINE float exp_of(float x) {
  const int32_t magnitude = static_cast<int32_t>(bits_of(x) & 0x7fffffffu);
  const int32_t limit = static_cast<int32_t>(bits_of(87.0f));
  x = float_of(static_cast<uint32_t>(std::min(magnitude, limit)) | (bits_of(x) & 0x80000000u));
  constexpr float kRound = 0x1.8p23f;  // adding it leaves the nearest integer in the low mantissa bits
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float poly = 1.9875691500e-4f;
  poly = poly * r + 1.3981999507e-3f;
  poly = poly * r + 8.3334519073e-3f;
  poly = poly * r + 4.1665795894e-2f;
  poly = poly * r + 1.6666665459e-1f;
  poly = poly * r + 5.0000001201e-1f;
  poly = (poly * r) * r + r + 1.0f;
  return float_of(bits_of(poly) + (bits_of(shifted) << 23));
}

IP2P_INLINE float silu_of(float x) { return x / (1.0f + exp_of(-x)); }

}  // namespace ip2p
