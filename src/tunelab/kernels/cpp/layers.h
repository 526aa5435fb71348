// What layers in float32 and in bfloat16 share: their records, dropout's bits, how results are finished.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "abi.h"
#include "dropout.h"
#include "gelu.h"
#include "vec.h"

#ifdef WIDE_VECTORS
namespace {

// Memory that nobody clears. It starts with a cache line: a tile's rows would lie across two.
struct Free {
  void operator()(void* p) const { std::free(p); }
};
template <class T>
using Place = std::unique_ptr<T[], Free>;
template <class T>
Place<T> place(long n) {
  void* const p = std::aligned_alloc(64, size_t(n) * sizeof(T) / 64 * 64 + 64);
  if (!p) throw std::bad_alloc();
  return Place<T>(static_cast<T*>(p));
}

// An adapter on some columns of y = x W^T.
template <class T>
struct Adapter {
  const float *a, *b;    // A (rank x k), B (columns x rank)
  T* low;                // scale drop(x) A^T, as the way back reads it
  uint32_t* kept;        // a bit for each element of x; null where nothing is dropped
  float *da, *db;        // gradients of A and B
  long first, columns, rank;
  float scale;           // of the adapter and, where elements are dropped, of those that are not
  uint32_t seed, limit;
  FIELDS(Adapter, a, b, low, kept, da, db, first, columns, rank, scale, seed, limit)
};

// ALL rows of x, of which `many` are real; `space` has room for all, if some are not.
template <long ALL, class T>
inline const T* filled(const T* x, long many, long width, T* space) {
  if (many == ALL) return x;
  std::memcpy(space, x, size_t(many * width) * sizeof(T));
  std::memset(space + many * width, 0, size_t((ALL - many) * width) * sizeof(T));
  return space;
}

// What is kept of 32 elements from `index` on, a bit each.
template <class T>
inline uint32_t kept_bits(const Adapter<T>& p, uint32_t index) {
  const __m512i limit = _mm512_set1_epi32(int(p.limit));
  uint32_t bits = 0;
  for (int half = 0; half < 2; half++) {
    const Word h = Dropout::mix(counted(0) * Dropout::step + ((index + 16 * half) * Dropout::step + p.seed));
    __m512i w;
    std::memcpy(&w, &h, 64);
    bits |= uint32_t(_mm512_cmpge_epu32_mask(w, limit)) << (16 * half);
  }
  return bits;
}

// Some rows of a weight, `n` of k numbers one behind the other: of float32, or with four bits a number,
// the first of two in a byte's upper half. Each is one of sixteen numbers times the scale of its block
// (Dettmers et al. 2023, in bitsandbytes' layout). k, n and blocks are multiples of 32.
struct WeightRows {
  const float* whole;  // null where `codes` are given
  const uint8_t* codes;
  const float *numbers, *scales;
  long block, n;
  FIELDS(WeightRows, whole, codes, numbers, scales, block, n)
};

// A layer x W^T + bias, x with k and the result with n numbers a row, and its adapters; k, n and
// adapters' columns are multiples of 32. W^T and W are laid out, or, of bfloat16, its rows are given
// in `pieces`, one below the other, and it is laid out in each call. dw (n x k) and dbias are null
// where these do not learn.
template <class T>
struct Layer {
  const T *ahead, *back, *bias;
  float *dw, *dbias;
  const Adapter<T>* parts;
  const WeightRows* rows;
  long count, pieces, k, n;
  FIELDS(Layer, ahead, back, bias, dw, dbias, parts, rows, count, pieces, k, n)
};

// 32 numbers, to the nearest of a tensor's type.
inline void narrow32(const float* s, float* to) { std::memcpy(to, s, 128); }
#ifdef __AVX512BF16__
inline void narrow32(const float* s, bf16* to) {
  const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(s + 16), _mm512_loadu_ps(s));
  std::memcpy(to, &both, 64);
}
#endif

// What a layer does with 32 numbers of its product: adds a bias; with `gelu`, takes GELU of that, and
// gives its derivative where `slope` has room for it.
template <class T>
inline void finish(float* line, const T* bias, bool gelu, T* slope, T* y) {
  Vec z[2], by[2];
  for (int v = 0; v < 2; v++) {
    z[v] = load16(line + 16 * v);
    if (bias) z[v] += load16(bias + 16 * v);
  }
  if (gelu)
    for (int v = 0; v < 2; v++) z[v] = gelu_of(z[v], by + v);
  if (gelu && slope) narrow32(reinterpret_cast<float*>(by), slope);
  narrow32(reinterpret_cast<float*>(z), y);
}
// And on the way back with 32 of x's gradient: they are multiplied by `slope`, and `residual` is added,
// where these are given.
template <class T>
inline void finish_back(float* line, const T* slope, const T* residual, T* dx) {
  for (long c = 0; c < 32; c += 16) {
    Vec v = load16(line + c);
    if (slope) v *= load16(slope + c);
    if (residual) v += load16(residual + c);
    store16(line + c, v);
  }
  narrow32(line, dx);
}

// Sixteen numbers, from a bit of `kept` on (a whole or half word; null: all), the others zero; and x
// added where `bits` says so.
inline Vec some16(const uint32_t* kept, long bit, const float* p) {
  const __m512 v = _mm512_maskz_loadu_ps(__mmask16(kept ? kept[bit / 32] >> (bit & 16) : ~0u), p);
  Vec out;
  std::memcpy(&out, &v, 64);
  return out;
}
inline void add_some16(uint32_t bits, Vec x, float* to) {
  __m512 v;
  std::memcpy(&v, &x, 64);
  const __m512 before = _mm512_loadu_ps(to);
  _mm512_storeu_ps(to, _mm512_mask_add_ps(before, __mmask16(bits), before, v));
}

}  // namespace
#endif  // WIDE_VECTORS
