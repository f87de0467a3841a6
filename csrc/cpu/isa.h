// One body, several instruction sets.
//
// A kernel body is a function object whose operator() is IP2P_INLINE and holds plain loops: no intrinsics. `run_on`
// inlines it into a function compiled for the chosen instruction set, where the compiler vectorises it at that width.
// So there is one source of the arithmetic, and a machine that is not x86 runs the baseline copy of it.
#pragma once

#include <cstdint>

#define IP2P_INLINE inline __attribute__((always_inline))

#if defined(__x86_64__)
#define IP2P_TARGET_AVX2 __attribute__((target("avx2,fma,f16c,bmi,bmi2")))
#if defined(__clang__)
#define IP2P_TARGET_AVX512 __attribute__((target("avx2,fma,f16c,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl")))
#else
// GCC keeps to 256 bits unless told: these kernels are bound by memory, not by the clock the wide units cost
#define IP2P_TARGET_AVX512 \
  __attribute__((target("avx2,fma,f16c,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))
#endif
#endif

namespace ip2p {

enum class Isa { kBaseline, kAvx2, kAvx512 };

const char* name_of(Isa isa);
Isa best_isa();                    // the widest this machine has
Isa isa_in_use();                  // best_isa() unless set_isa chose a narrower one
bool set_isa(const char* name);    // false when the name is unknown or this machine lacks it
const char* compiled_isa_names();  // space-separated, widest last

#if defined(__x86_64__)
template <class Body>
IP2P_TARGET_AVX512 void run_avx512(const Body& body, int64_t begin, int64_t end) {
  body(begin, end);
}

template <class Body>
IP2P_TARGET_AVX2 void run_avx2(const Body& body, int64_t begin, int64_t end) {
  body(begin, end);
}
#endif

template <class Body>
void run_baseline(const Body& body, int64_t begin, int64_t end) {
  body(begin, end);
}

template <class Body>
void run_on(Isa isa, const Body& body, int64_t begin, int64_t end) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return run_avx512(body, begin, end);
  if (isa == Isa::kAvx2) return run_avx2(body, begin, end);
#endif
  run_baseline(body, begin, end);
}

}  // namespace ip2p
