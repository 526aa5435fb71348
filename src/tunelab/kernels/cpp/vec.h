// Sixteen numbers at once: how tensors are read and written, and products of small matrices.
//
// Everything is computed in float32; `float` or bfloat16 is how tensors are stored. On any processor
// that gcc's and clang's vector types know.
#pragma once

#include <cstdint>
#include <cstring>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

// What a processor may have beyond that, from less to more.
#ifdef __AVX512F__
#define WIDE_VECTORS 1
#endif
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#define BF16_PAIRS 1
#endif
#if defined(BF16_PAIRS) && defined(__AMX_BF16__) && defined(__linux__)
#define MATRIX_TILES 1
#endif

// Rows of a tensor do not overlap, which the compiler cannot know.
#define PRAGMA(TEXT) _Pragma(#TEXT)
#define SIMD(MORE) PRAGMA(omp simd MORE)

namespace {

struct bf16 { uint16_t bits; };

inline float load(float x) { return x; }
inline float load(bf16 x) {
  uint32_t u = uint32_t(x.bits) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline void store(float* p, float x) { *p = x; }
inline void store(bf16* p, float x) {  // to nearest, ties to even
  uint32_t u;
  std::memcpy(&u, &x, 4);
  p->bits = uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

// Sixteen numbers at once, at any address (gcc's and clang's vector types, on any processor).
typedef float Vec __attribute__((vector_size(64), aligned(4)));
typedef uint32_t Word __attribute__((vector_size(64), aligned(4)));

// Sixteen elements of a tensor at once, in float32.
typedef uint16_t Half __attribute__((vector_size(32), aligned(2)));

inline Vec load16(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline Vec load16(const bf16* p) {
  const Word u = __builtin_convertvector(*reinterpret_cast<const Half*>(p), Word) << 16;
  Vec out;
  std::memcpy(&out, &u, 64);
  return out;
}
inline void store16(float* p, Vec x) { *reinterpret_cast<Vec*>(p) = x; }
inline void store16(bf16* p, Vec x) {
#ifdef __AVX512BF16__
  __m512 v;
  std::memcpy(&v, &x, 64);
  const __m256bh h = _mm512_cvtneps_pbh(v);
  std::memcpy(p, &h, 32);
#else
  Word u;
  std::memcpy(&u, &x, 64);
  u = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  *reinterpret_cast<Half*>(p) = __builtin_convertvector(u, Half);
#endif
}

// Groups of D numbers of two vectors, taken in turn: the first of each two, or the second.
#if defined(__clang__)
#define SHUFFLE(A, B, ...) __builtin_shufflevector(A, B, __VA_ARGS__)
#else
#define SHUFFLE(A, B, ...) __builtin_shuffle(A, B, Word{__VA_ARGS__})
#endif
template <int D>
inline Vec first(Vec a, Vec b) {
  if (D == 8) return SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
  if (D == 4) return SHUFFLE(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
  if (D == 2) return SHUFFLE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
  return SHUFFLE(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
}
template <int D>
inline Vec second(Vec a, Vec b) {
  if (D == 8) return SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  if (D == 4) return SHUFFLE(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
  if (D == 2) return SHUFFLE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  return SHUFFLE(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}

// What f makes of the sixteen numbers of each of sixteen vectors, one result a lane: halves,
// quarters, ... of two vectors are brought together.
template <class F>
inline Vec across(Vec* s, F f) {
  for (int c = 0; c < 8; c++) s[c] = f(first<8>(s[c], s[c + 8]), second<8>(s[c], s[c + 8]));
  for (int c = 0; c < 4; c++) s[c] = f(first<4>(s[c], s[c + 4]), second<4>(s[c], s[c + 4]));
  for (int c = 0; c < 2; c++) s[c] = f(first<2>(s[c], s[c + 2]), second<2>(s[c], s[c + 2]));
  return f(first<1>(s[0], s[1]), second<1>(s[0], s[1]));
}
inline Vec pick(Word where, Vec a, Vec b) {  // where: ones or zeros
  Word x, y;
  std::memcpy(&x, &a, 64);
  std::memcpy(&y, &b, 64);
  x = (x & where) | (y & ~where);
  std::memcpy(&a, &x, 64);
  return a;
}
inline Vec larger(Vec a, Vec b) { return pick(Word(a > b), a, b); }
inline Vec sums(Vec* s) { return across(s, [](Vec a, Vec b) { return a + b; }); }
inline Vec maxima(Vec* s) { return across(s, larger); }

// Sixteen by sixteen numbers: rows become columns.
template <int D>
inline void turn(Vec* s) {
  for (int c = 0; c < 16; c++) {
    if (c & D) continue;
    const Vec a = s[c], b = s[c + D];
    s[c] = first<D>(a, b);
    s[c + D] = second<D>(a, b);
  }
}
// to (width x columns) = the transpose of rows (n x width), filled up with zeros; width and columns
// are multiples of 16.
inline void transpose(const float* rows, long n, long width, float* to, long columns) {
  for (long i = 0; i < columns; i += 16)
    for (long j = 0; j < width; j += 16) {
      Vec s[16];
      for (long c = 0; c < 16; c++) s[c] = i + c < n ? load16(rows + (i + c) * width + j) : Vec{};
      turn<8>(s);
      turn<4>(s);
      turn<2>(s);
      turn<1>(s);
      for (long c = 0; c < 16; c++) store16(to + (j + c) * columns + i, s[c]);
    }
}

inline Word counted(uint32_t from) {  // from, from + 1, ...
  return Word{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + from;
}

// exp(x), relative error 2e-7, of sixteen numbers that are not above 0. Below -80 it stays as it is: a
// smaller result would be denormal once it is divided, and processors take a hundred times longer for
// those.
inline Vec exp_below(Vec x) {
  typedef int32_t Int __attribute__((vector_size(64), aligned(4)));
  x = larger(x, Vec{} - 80.f);
  const Int e = __builtin_convertvector(x * 1.44269504f - 0.5f, Int);
  const Vec n = __builtin_convertvector(e, Vec);
  const Vec f = x - n * 0.693359375f + n * 2.12194440e-4f;
  Vec y = f * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * f + 8.3334519073e-3f;
  y = y * f + 4.1665795894e-2f;
  y = y * f + 1.6666665459e-1f;
  y = y * f + 5.0000001201e-1f;
  y = y * f * f + f + 1.f;
  const Int bits = (e + 127) << 23;
  Vec two;
  std::memcpy(&two, &bits, 64);
  return y * two;
}

// S += A B of MANY rows and VECS vectors, kept in registers. A's element (i, l) lies at
// a[i * step + l], with TURNED at a[i + l * step]; b(l, v) is vector v of B's line l, of which there are k.
template <bool TURNED, int MANY, int VECS, class B>
inline void accumulate(const float* a, long step, B b, long k, Vec (&s)[MANY][VECS]) {
  const long down = TURNED ? 1 : step, along = TURNED ? step : 1;
  // A pointer for each four rows, of which the compiler is not to know that they are related: it would
  // keep the distances of all rows, and has no registers for these.
  const float* four[(MANY + 3) / 4];
  for (int u = 0; u < MANY; u += 4) {
    four[u / 4] = a + u * down;
    asm("" : "+r"(four[u / 4]));
  }
  for (long l = 0; l < k; l++) {
    Vec y[VECS];
    for (int v = 0; v < VECS; v++) y[v] = b(l, v);
    for (int u = 0; u < MANY; u++)
      for (int v = 0; v < VECS; v++) s[u][v] += four[u / 4][(u % 4) * down] * y[v];
    for (auto& f : four) f += along;
  }
}

// Eight rows and VECS vectors of C = A B. Rows of B and C are n long.
template <bool TURNED, int VECS>
inline void block(const float* a, long step, const float* b, float* c, long k, long n) {
  Vec s[8][VECS] = {};
  accumulate<TURNED>(a, step, [=](long l, int v) { return load16(b + l * n + 16 * v); }, k, s);
  for (int u = 0; u < 8; u++)
    for (int v = 0; v < VECS; v++) store16(c + u * n + 16 * v, s[u][v]);
}

// C (m x n) = A (m x k) B (k x n), m a multiple of 8 and n of 16; A's elements as in `block`.
template <bool TURNED>
inline void multiply(const float* a, long step, const float* b, float* c, long m, long k, long n) {
  for (long i = 0; i < m; i += 8) {
    const float* from = TURNED ? a + i : a + i * step;
    long j = 0;
    for (; j + 32 <= n; j += 32) block<TURNED, 2>(from, step, b + j, c + i * n + j, k, n);
    if (j < n) block<TURNED, 1>(from, step, b + j, c + i * n + j, k, n);
  }
}

inline long up16(long n) { return (n + 15) / 16 * 16; }
inline long up8(long n) { return (n + 7) / 8 * 8; }
inline long up32(long n) { return (n + 31) / 32 * 32; }

// n elements in float32.
template <class T>
inline void widen(const T* from, float* to, long n) {
  long j = 0;
  for (; j + 16 <= n; j += 16) store16(to + j, load16(from + j));
  for (; j < n; j++) to[j] = load(from[j]);
}
template <class T>
inline void narrow(const float* from, T* to, long n) {
  long j = 0;
  for (; j + 16 <= n; j += 16) store16(to + j, load16(from + j));
  for (; j < n; j++) store(to + j, from[j]);
}

// Have n numbers near when they are read: rows lie too far apart for the processor to do so by itself.
template <class T>
inline void fetch(const T* p, long n) {
  for (long i = 0; i < n; i += 64 / sizeof(T)) __builtin_prefetch(p + i);
}

}  // namespace
