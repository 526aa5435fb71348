// GELU and its derivative.
#pragma once

#include "vec.h"

namespace {

// GELU x Phi(x), exact, and its derivative Phi(x) + x phi(x): the backward pass is a product. With
// t = 1 / (1 + 0.3275911 |x|), 1 - erf(|x|) is (a1 t + ... + a5 t^5) exp(-x^2), error 1.5e-7 (Abramowitz &
// Stegun 7.1.26).
inline Vec gelu_of(Vec z, Vec* slope) {
  const Word below = Word(z < 0.f);
  const Vec a = pick(below, -z, z) * 0.70710678f, t = 1.f / (a * 0.3275911f + 1.f), e = exp_below(-a * a);
  Vec y = t * 1.061405429f - 1.453152027f;
  y = y * t + 1.421413741f;
  y = y * t - 0.284496736f;
  y = y * t + 0.254829592f;
  y = y * t * e * 0.5f;  // Phi(-|z|)
  const Vec c = pick(below, y, 1.f - y);
  *slope = c + z * 0.39894228f * e;
  return z * c;
}

template <class T>
void gelu(const T* x, T* out, T* slope, long n, int threads) {
  const auto sixteen = [](const T* from, T* to, T* by) {
    Vec s;
    store16(to, gelu_of(load16(from), &s));
    store16(by, s);
  };
  const long left = n % 16, whole = n - left;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long i = 0; i < whole; i += 16) sixteen(x + i, out + i, slope + i);
  if (!left) return;
  T ends[3][16] = {};
  std::memcpy(ends[0], x + whole, left * sizeof(T));
  sixteen(ends[0], ends[1], ends[2]);
  std::memcpy(out + whole, ends[1], left * sizeof(T));
  std::memcpy(slope + whole, ends[2], left * sizeof(T));
}

}  // namespace
