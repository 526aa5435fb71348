// Dropout whose mask is a function of (seed, index), so that it need not be kept for the way back.
#pragma once

#include "abi.h"
#include "vec.h"

namespace {

// Factors of n elements under dropout, from element `start` on: 0, or 1 / (1 - p). `limit` is
// p * 2^32; the hash is murmur3's finaliser.
struct Dropout {
  uint32_t seed, limit;
  float scale;
  FIELDS(Dropout, seed, limit, scale)
  template <class W>
  static inline W mix(W h) {
    h ^= h >> 16;
    h *= 0x85ebca6bu;
    h ^= h >> 13;
    h *= 0xc2b2ae35u;
    return h ^ (h >> 16);
  }
  static constexpr uint32_t step = 0x9e3779b9u;  // an element's word: index * step + seed
  // x times the factors of sixteen elements.
  inline Vec apply(Vec x, uint32_t start) const {
    const Word h = mix(counted(0) * step + (start * step + seed));
    return pick(Word(h >= limit), x * scale, Vec{});
  }
  void times(float* x, uint32_t start, int n) const {
    int j = 0;
    for (; j + 16 <= n; j += 16) {
      Vec* at = reinterpret_cast<Vec*>(x + j);
      *at = apply(*at, start + uint32_t(j));
    }
    for (; j < n; j++) x[j] *= mix((start + uint32_t(j)) * step + seed) >= limit ? scale : 0.f;
  }
};

template <class T>
void dropout(const T* x, T* out, long n, Dropout drop, int threads) {
  const int size = 1024;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long i = 0; i < n; i += size) {
    float part[size];
    const int many = int(n - i < size ? n - i : size);
    SIMD() for (int j = 0; j < many; j++) part[j] = load(x[i + j]);
    drop.times(part, uint32_t(i), many);
    SIMD() for (int j = 0; j < many; j++) store(out + i + j, part[j]);
  }
}

}  // namespace
