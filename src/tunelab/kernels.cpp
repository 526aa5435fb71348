// Fused kernels of the packed engine (tunelab/kernels.py builds, loads and documents them).
//
// Everything is computed in float32; `float` or bfloat16 is how tensors are stored, and what matrix
// tiles multiply. A kernel has a twin in torch in kernels.py (the optimizer's is torch's own), to which
// tests/reference hold it. The dropout mask is a function of (seed, index), so that it need not be
// kept for the backward pass.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif
#if defined(__AMX_BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef _OPENMP
#include <omp.h>
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

// Factors of n elements under dropout, from element `start` on: 0, or 1 / (1 - p). `limit` is
// p * 2^32; the hash is murmur3's finaliser.
struct Dropout {
  uint32_t seed, limit;
  float scale;
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

// Where a tensor's element (token, head, 0) lies: data + token * token_step + head * head_step.
template <class T>
struct View {
  T* data;
  long token, head;
  T* at(long t, long h) const { return data + t * token + h * head; }
};

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

// Softmax attention within each text. Tokens `rows[b]` to `ends[b]` are those of text b; `all` false
// means that only its first token asks (query, out and their gradients then have a row a text).
// `grad` null: forward, writes out. Otherwise writes dq, dk, dv, computing the weights anew.
template <class T>
struct Attention {
  View<const T> q, k, v;
  const int64_t *rows, *ends;
  long texts, heads, width, longest;
  bool all, causal;
  float scale;
  Dropout drop;
  T* out;
  const T* grad;
  View<T> dq, dk, dv;
};

// Have n numbers near when they are read: rows lie too far apart for the processor to do so by itself.
template <class T>
inline void fetch(const T* p, long n) {
  for (long i = 0; i < n; i += 64 / sizeof(T)) __builtin_prefetch(p + i);
}

// Rows and columns are filled up to whole blocks, so that no product has a remainder: what lies
// there is zero or is read by nobody.
template <class T>
void attention(const Attention<T>& a, int threads) {
  const View<const T> q = a.q, k = a.k, v = a.v;
  const View<T> dq = a.dq, dk = a.dk, dv = a.dv;
  const long heads = a.heads, width = a.width, longest = a.longest;
  const bool all = a.all, causal = a.causal, dropping = a.drop.limit > 0;
  const float scale = a.scale;
  const Dropout drop = a.drop;
  const T* const grad = a.grad;
  T* const out = a.out;
  const long w = up16(width), most = up16(longest);
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> memory(size_t(8 * w * most + 3 * most * most), 0.f);
    float *Q = memory.data(), *K = Q + w * most, *V = K + w * most, *G = V + w * most;
    float *KT = G + w * most, *VT = KT + w * most, *X = VT + w * most, *O = X + w * most;
    float *P = O + w * most, *S = P + most * most, *D = S + most * most;
#pragma omp for schedule(dynamic, 1) collapse(2)
    for (long b = 0; b < a.texts; b++)
      for (long h = 0; h < heads; h++) {
        const long t0 = a.rows[b], n = a.ends[b] - t0, m = all ? n : 1, np = up16(n);
        const long q0 = all ? t0 : b, m8 = (m + 7) / 8 * 8, n8 = (n + 7) / 8 * 8;
        const long later = std::min(h + threads, heads - 1);
        for (long i = 0; i < m; i++) {
          fetch(q.at(q0 + i, later), width);
          widen(q.at(q0 + i, h), Q + i * w, width);
          SIMD() for (long d = 0; d < w; d++) Q[i * w + d] *= scale;
        }
        std::memset(Q + m * w, 0, (m8 - m) * w * sizeof(float));
        for (long i = 0; i < n; i++) {
          fetch(k.at(t0 + i, later), width);
          fetch(v.at(t0 + i, later), width);
          widen(k.at(t0 + i, h), K + i * w, width);
          widen(v.at(t0 + i, h), V + i * w, width);
        }
        transpose(K, n, w, KT, np);
        multiply<false>(Q, w, KT, P, m8, width, np);
        const uint32_t base = uint32_t((b * heads + h) * longest);
        float* const kept = dropping ? D : P;  // the weights after dropout
        for (long i = 0; i < m; i += 16) {
          float *p = P + i * np, *d = D + i * np;
          const Vec none = Vec{} - 1e30f;
          uint32_t seen[16];
          Vec each[16], found;
          for (long u = 0; u < 16; u++) {
            seen[u] = uint32_t(causal && all ? i + u + 1 : n);
            each[u] = none;
            for (long j = 0; j < np; j += 16) {
              const Vec x = pick(Word(counted(uint32_t(j)) < seen[u]), load16(p + u * np + j), none);
              each[u] = larger(each[u], x);
              store16(p + u * np + j, x);
            }
          }
          found = maxima(each);
          for (long u = 0; u < 16; u++) {
            each[u] = Vec{};
            for (long j = 0; j < np; j += 16) {
              const Vec e = exp_below(load16(p + u * np + j) - found[u]);
              store16(p + u * np + j, e);
              each[u] += e;
            }
          }
          found = 1.f / sums(each);
          for (long u = 0; u < 16; u++) {
            const uint32_t line = (base + uint32_t(i + u)) * uint32_t(longest);
            for (long j = 0; j < np; j += 16) {
              const Vec e = load16(p + u * np + j) * found[u];
              const Vec w = pick(Word(counted(uint32_t(j)) < seen[u]), e, Vec{});
              store16(p + u * np + j, w);
              if (dropping) store16(d + u * np + j, drop.apply(w, line + uint32_t(j)));
            }
          }
        }
        if (!grad) {
          std::memset(kept + m * np, 0, (m8 - m) * np * sizeof(float));
          multiply<false>(kept, np, V, O, m8, n, w);
          for (long i = 0; i < m; i++)
            narrow(O + i * w, out + ((q0 + i) * heads + h) * width, width);
          continue;
        }
        for (long i = 0; i < m; i++)
          widen(grad + ((q0 + i) * heads + h) * width, G + i * w, width);
        std::memset(G + m * w, 0, (m8 - m) * w * sizeof(float));
        multiply<true>(kept, np, G, X, n8, m, w);  // dV = D^T G
        for (long i = 0; i < n; i++) narrow(X + i * w, dv.at(t0 + i, h), width);
        transpose(V, n, w, VT, np);
        // dP = G V^T; through dropout and softmax: dS = P (mask dP - sum_j D dP)
        multiply<false>(G, w, VT, S, m8, width, np);
        for (long i = 0; i < m; i += 16) {
          float *p = P + i * np, *d = kept + i * np, *g = S + i * np;
          Vec each[16];
          for (long u = 0; u < 16; u++) {
            each[u] = Vec{};
            for (long j = 0; j < np; j += 16)
              each[u] += load16(d + u * np + j) * load16(g + u * np + j);
          }
          const Vec mean = sums(each);
          for (long u = 0; u < 16; u++) {
            const uint32_t line = (base + uint32_t(i + u)) * uint32_t(longest);
            for (long j = 0; j < np; j += 16) {
              const Vec own = load16(g + u * np + j);
              const Vec past = dropping ? drop.apply(own, line + uint32_t(j)) : own;
              store16(g + u * np + j, load16(p + u * np + j) * (past - mean[u]));
            }
          }
        }
        multiply<true>(S, np, Q, X, n8, m, w);  // dK = dS^T Q, Q is scaled already
        for (long i = 0; i < n; i++) narrow(X + i * w, dk.at(t0 + i, h), width);
        multiply<false>(S, np, K, O, m8, n, w);  // dQ = scale dS K
        for (long i = 0; i < m; i++) {
          SIMD() for (long d = 0; d < w; d++) O[i * w + d] *= scale;
          narrow(O + i * w, dq.at(q0 + i, h), width);
        }
      }
  }
}

// out = norm(dropout(y) + residual) * weight + bias; keeps normed (rows x width) and 1 / deviation.
template <class T>
void add_norm(const T* y, const T* residual, const float* weight, const float* bias, T* out,
              T* normed, float* inverse, long rows, long width, float eps, Dropout drop,
              bool dropping, int threads) {
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> line(width);
    float* x = line.data();
#pragma omp for schedule(static)
    for (long i = 0; i < rows; i++) {
      const long o = i * width;
      SIMD() for (long j = 0; j < width; j++) x[j] = load(y[o + j]);
      if (dropping) drop.times(x, uint32_t(o), int(width));
      if (residual)
        SIMD() for (long j = 0; j < width; j++) x[j] += load(residual[o + j]);
      float sum = 0, square = 0;
      SIMD(reduction(+ : sum)) for (long j = 0; j < width; j++) sum += x[j];
      const float mean = sum / width;
      SIMD(reduction(+ : square))
      for (long j = 0; j < width; j++) {
        x[j] -= mean;
        square += x[j] * x[j];
      }
      const float r = 1.f / std::sqrt(square / width + eps);
      inverse[i] = r;
      SIMD() for (long j = 0; j < width; j++) {
        const float n = x[j] * r;
        store(normed + o + j, n);
        store(out + o + j, n * weight[j] + bias[j]);
      }
    }
  }
}

// Gradients of add_norm: of y, of the residual (null where there is none) and, where asked for
// (not null), of weight and bias. Sums over rows are taken thread by thread, in order.
template <class T>
void add_norm_back(const T* grad, const T* normed, const float* inverse, const float* weight,
                   T* dy, T* dresidual, float* dweight, float* dbias, long rows, long width,
                   Dropout drop, bool dropping, int threads) {
  std::vector<float> parts(dweight ? size_t(2 * threads * width) : 0, 0.f);
#pragma omp parallel num_threads(threads)
  {
#ifdef _OPENMP
    const int me = omp_get_thread_num();
#else
    const int me = 0;
#endif
    std::vector<float> line(2 * width);
    float *g = line.data(), *n = g + width;
    float* mine = dweight ? parts.data() + 2 * me * width : nullptr;
#pragma omp for schedule(static)
    for (long i = 0; i < rows; i++) {
      const long o = i * width;
      float a = 0, c = 0;
      SIMD() for (long j = 0; j < width; j++) {
        n[j] = load(normed[o + j]);
        g[j] = load(grad[o + j]);
      }
      if (mine)
        SIMD() for (long j = 0; j < width; j++) { mine[j] += g[j] * n[j]; mine[width + j] += g[j]; }
      SIMD(reduction(+ : a, c))
      for (long j = 0; j < width; j++) {
        g[j] *= weight[j];
        a += g[j];
        c += g[j] * n[j];
      }
      a /= width;
      c /= width;
      const float r = inverse[i];
      SIMD() for (long j = 0; j < width; j++) g[j] = r * (g[j] - a - n[j] * c);
      if (dresidual)
        SIMD() for (long j = 0; j < width; j++) store(dresidual + o + j, g[j]);
      if (dropping) drop.times(g, uint32_t(o), int(width));
      SIMD() for (long j = 0; j < width; j++) store(dy + o + j, g[j]);
    }
  }
  for (int t = 0; dweight && t < threads; t++)
    for (long j = 0; j < width; j++) {
      dweight[j] += parts[2 * t * width + j];
      dbias[j] += parts[(2 * t + 1) * width + j];
    }
}

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

// --- the optimizer ---

// AdamW (Loshchilov & Hutter 2019) of n numbers: keep = 1 - rate * decay, size = rate / (1 - b1^t),
// root = sqrt(1 - b2^t) in step t. optim.py has the same.
struct Piece {
  float *p, *m, *v;
  const float* g;
  long n;
  float keep, size, root;
};

// The sum of the gradients' squares; the same for any number of threads.
double squares(const Piece* pieces, long count, int threads) {
  std::vector<double> sums(count);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (long c = 0; c < count; c++) {
    const float* const g = pieces[c].g;
    for (long i = 0; i < pieces[c].n; i += 1024) {
      const long end = std::min(pieces[c].n, i + 1024);
      float sum = 0;
      SIMD(reduction(+ : sum)) for (long j = i; j < end; j++) sum += g[j] * g[j];
      sums[c] += sum;
    }
  }
  double all = 0;
  for (const double s : sums) all += s;
  return all;
}

// One step with gradients times `scale`.
void adamw(const Piece* pieces, long count, float scale, float first, float second, float eps, int threads) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (long c = 0; c < count; c++) {
    const Piece& e = pieces[c];
    const float root = 1 / e.root;
    SIMD() for (long i = 0; i < e.n; i++) {
      const float g = e.g[i] * scale;
      const float m = e.m[i] = first * e.m[i] + (1 - first) * g;
      const float v = e.v[i] = second * e.v[i] + (1 - second) * g * g;
      e.p[i] = e.p[i] * e.keep - e.size * m / (std::sqrt(v) * root + eps);
    }
  }
}

// Rows of a matrix that had no gradient for some steps: `last` is the step that a row has, `since` the
// last with a gradient (0: none), and keep, size and root are of each step from the first on.
struct Late {
  float *p, *m, *v;
  int32_t *last, *since;
  const float *keep, *size, *root;
  long width;
  float first, second, eps;
};

void adamw_late(const Late& e, const int64_t* rows, long count, long now, int threads) {
  // By then m is 2e-12 of what it was and moves nothing: only decay is left.
  constexpr long done = 256;
  const float ebb = std::sqrt(e.second);
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> roots(e.width);
    float* const r = roots.data();
#pragma omp for schedule(dynamic, 64)
    for (long c = 0; c < count; c++) {
      const long row = rows[c], from = e.last[row], since = e.since[row];
      if (from >= now) continue;
      float *const p = e.p + row * e.width, *const m = e.m + row * e.width, *const v = e.v + row * e.width;
      long t = from;
      if (since && t < since + done) {
        SIMD() for (long j = 0; j < e.width; j++) r[j] = std::sqrt(v[j]);
        for (; t < std::min(now, since + done); t++) {
          const float keep = e.keep[t], size = e.size[t], root = 1 / e.root[t];
          SIMD() for (long j = 0; j < e.width; j++) {
            m[j] *= e.first;
            r[j] *= ebb;
            p[j] = p[j] * keep - size * m[j] / (r[j] * root + e.eps);
          }
        }
      }
      if (since) {
        const float fade = std::pow(e.first, float(now - t)), less = std::pow(e.second, float(now - from));
        SIMD() for (long j = 0; j < e.width; j++) {
          m[j] *= fade;
          v[j] *= less;
        }
      }
      for (; t < now; t++) {
        const float keep = e.keep[t];
        if (keep != 1)
          SIMD() for (long j = 0; j < e.width; j++) p[j] *= keep;
      }
      e.last[row] = int32_t(now);
    }
  }
}

// --- LoRA's thin products: a rank is a line of k or n numbers; lines are filled up to eights ---

inline long up8(long n) { return (n + 7) / 8 * 8; }

// Lines of a thin matrix, element (l, j) at m[l * row + j * column], those that lack are zero.
std::vector<float> lines(const float* m, long rank, long n, long row, long column) {
  std::vector<float> out(size_t(up8(rank) * n), 0.f);
  for (long l = 0; l < rank; l++)
    for (long j = 0; j < n; j++) out[size_t(l * n + j)] = m[l * row + j * column];
  return out;
}

// low (many <= 4 rows from i on) = scale drop(x) down^T; rows of x (k numbers) are `step` apart.
// `part` has place for four rows of k.
template <class T>
inline void to_low(const T* x, long step, const float* down, float* low, long i, long many, long k,
                   long rank, float scale, Dropout drop, float* part) {
  for (long u = 0; u < many; u++) {
    widen(x + (i + u) * step, part + u * k, k);
    if (drop.limit) drop.times(part + u * k, uint32_t((i + u) * k), int(k));
  }
  for (long l = 0; l < rank; l += 4) {
    Vec s[16] = {};
    for (long j = 0; j < k; j += 16) {
      Vec w[4];
      for (int c = 0; c < 4; c++) w[c] = load16(down + (l + c) * k + j);
      for (int u = 0; u < 4; u++) {
        const Vec v = load16(part + u * k + j);
        for (int c = 0; c < 4; c++) s[4 * u + c] += v * w[c];
      }
    }
    const Vec total = sums(s) * scale;
    for (long u = 0; u < many; u++)
      std::memcpy(low + (i + u) * rank + l, reinterpret_cast<const float*>(&total) + 4 * u, 16);
  }
}

// low = scale drop(x) A^T; y += low B^T + bias (may be null). x (rows x k), A (rank x k), B (n x
// rank), y (rows x n, `step` from row to row), low (rows x rank filled up to eights); k and n are
// multiples of 16.
template <class T>
void low_rank(const T* x, const float* a, const float* b, const T* bias, T* y, long step,
              float* low, long rows, long k, long n, long rank, float scale, Dropout drop,
              int threads) {
  const bool whole = rank % 8 == 0;  // then A's lines are as they are needed
  const std::vector<float> filled = lines(a, whole ? 0 : rank, k, k, 1);
  const std::vector<float> up = lines(b, rank, n, 1, rank);
  const float* const down = whole ? a : filled.data();
  rank = up8(rank);
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> part(4 * k, 0.f);
#pragma omp for schedule(static)
    for (long block = 0; block < (rows + 3) / 4; block++) {
      const long i = block * 4, many = rows - i < 4 ? rows - i : 4;
      to_low(x, k, down, low, i, many, k, rank, scale, drop, part.data());
      const float* from[4];
      for (long u = 0; u < 4; u++) from[u] = low + (i + (u < many ? u : 0)) * rank;
      for (long j = 0; j < n; j += 16) {
        Vec s[4] = {};
        for (long l = 0; l < rank; l++) {
          const Vec v = load16(up.data() + l * n + j);
          for (int u = 0; u < 4; u++) s[u] += from[u][l] * v;
        }
        const Vec zero = {};
        const Vec add = bias ? load16(bias + j) : zero;
        for (int u = 0; u < many; u++) {
          T* o = y + (i + u) * step + j;
          store16(o, load16(o) + s[u] + add);
        }
      }
    }
  }
}

// Rows at a time in a gradient: what they need stays in the caches.
constexpr long CHUNK = 128;

// Adds low^T drop(x) of `many` rows from `start` on to out (rank x k; the first rows set it), and,
// where `to` is given, drop(low with) to `to`. Rows of x are `step` apart, those of `to` k. Called by
// all threads of a team, each of which always has the same columns.
template <class T>
void from_low(const float* low, const T* x, long step, const float* with, T* to, float* out,
              long start, long many, long k, long rank, Dropout drop) {
#pragma omp for schedule(static) nowait
  for (long j = 0; j < k; j += 16) {
    Vec seen[CHUNK], factor[CHUNK], back[CHUNK];
    const Vec one = Vec{} + 1.f;
    for (long i = 0; i < many; i++) {
      seen[i] = load16(x + (start + i) * step + j);
      if (drop.limit) {
        factor[i] = drop.apply(one, uint32_t((start + i) * k + j));
        seen[i] *= factor[i];
      }
    }
    for (long l = 0; l < rank; l += 8) {
      Vec s[8], w[8];
      for (int c = 0; c < 8; c++) {
        const long at = (l + c) * k + j;
        s[c] = start ? load16(out + at) : Vec{};
        w[c] = to ? load16(with + at) : Vec{};
      }
      const float* d = low + start * rank + l;
      if (to)
        for (long i = 0; i < many; i++, d += rank) {
          Vec even = l ? back[i] : Vec{}, odd = {};
          for (int c = 0; c < 8; c += 2) {
            s[c] += d[c] * seen[i];
            s[c + 1] += d[c + 1] * seen[i];
            even += d[c] * w[c];
            odd += d[c + 1] * w[c + 1];
          }
          back[i] = even + odd;
        }
      else
        for (long i = 0; i < many; i++, d += rank)
          for (int c = 0; c < 8; c++) s[c] += d[c] * seen[i];
      for (int c = 0; c < 8; c++) store16(out + (l + c) * k + j, s[c]);
    }
    if (to)
      for (long i = 0; i < many; i++) {
        T* o = to + (start + i) * k + j;
        store16(o, load16(o) + (drop.limit ? back[i] * factor[i] : back[i]));
      }
  }
}

// Gradients of low_rank from g, y's gradient (rows x n, `step` from row to row): adds to dx what
// comes through A (null where nobody asks), writes da (rank x k) and db (n x rank). `low` is what
// low_rank gave.
template <class T>
void low_rank_back(const T* g, long step, const T* x, const float* a, const float* b, const float* low, T* dx,
                   float* da, float* db, long rows, long k, long n, long rank, float scale,
                   Dropout drop, int threads) {
  const bool whole = rank % 8 == 0;  // then A's lines are as they are needed
  const std::vector<float> filled = lines(a, whole ? 0 : rank, k, k, 1);
  const std::vector<float> up = lines(b, rank, n, 1, rank);
  const float* const down = whole ? a : filled.data();
  const long full = up8(rank);
  std::vector<float> dlow(size_t(rows * full)), sum_a(size_t(full * k)), sum_b(size_t(full * n));
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> part(4 * n, 0.f);
    for (long start = 0; start < rows; start += CHUNK) {
      const long many = rows - start < CHUNK ? rows - start : CHUNK, end = start + many;
#pragma omp for schedule(static)
      for (long i = start; i < end; i += 4)
        to_low(g, step, up.data(), dlow.data(), i, end - i < 4 ? end - i : 4, n, full, scale,
               {0, 0, 1.f}, part.data());
      from_low<T>(low, g, step, nullptr, nullptr, sum_b.data(), start, many, n, full, {0, 0, 1.f});
      from_low(dlow.data(), x, k, down, dx, sum_a.data(), start, many, k, full, drop);
    }
#pragma omp barrier
#pragma omp for schedule(static)
    for (long j = 0; j < n; j++)
      for (long l = 0; l < rank; l++) db[j * rank + l] = sum_b[size_t(l * n + j)];
  }
  std::memcpy(da, sum_a.data(), size_t(rank * k) * sizeof(float));
}

// Attention in whichever way is fast here.
template <class T>
void attend(const Attention<T>& a, int threads) {
  attention(a, threads);
}

// --- layers: products with adapters within ---
#ifdef __AVX512F__
#define LAYERS 1

inline long up32(long n) { return (n + 31) / 32 * 32; }

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

// An adapter on some columns of y = x W^T; fused.py has the same.
template <class T>
struct Adapter {
  const float *a, *b;    // A (rank x k), B (columns x rank)
  T* low;                // scale drop(x) A^T, as the way back reads it
  uint32_t* kept;        // a bit for each element of x; null where nothing is dropped
  float *da, *db;        // gradients of A and B
  long first, columns, rank;
  float scale;           // of the adapter and, where elements are dropped, of those that are not
  uint32_t seed, limit;
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
// (Dettmers et al. 2023, in bitsandbytes' layout). k, n and blocks are multiples of 32. fused.py has
// the same.
struct Rows {
  const float* whole;  // null where `codes` are given
  const uint8_t* codes;
  const float *numbers, *scales;
  long block, n;
};

// A layer x W^T + bias, x with k and the result with n numbers a row, and its adapters; k, n and
// adapters' columns are multiples of 32. W^T and W are laid out, or, of bfloat16, its rows are given
// in `pieces`, one below the other, and it is laid out in each call. dw (n x k) and dbias are null
// where these do not learn. fused.py has the same.
template <class T>
struct Layer {
  const T *ahead, *back, *bias;
  float *dw, *dbias;
  const Adapter<T>* parts;
  const Rows* rows;
  long count, pieces, k, n;
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

// --- in float32, on vectors ---
//
// A right side B (k x n) is laid out in panels of 32 columns, k lines each. ROWS rows and a panel's
// columns of a result are kept in registers.
constexpr int ROWS = 12;

// Element (i, j) of B at m[i * row + j * column].
void panels(const float* m, long row, long column, long k, long n, float* out) {
#pragma omp parallel for schedule(static) if (k * n > 1 << 18)
  for (long j = 0; j < n; j += 32)
    for (long i = 0; i < k; i++)
      for (long c = 0; c < 32; c++) out[j * k + i * 32 + c] = m[i * row + (j + c) * column];
}
// s (ROWS x 32) = or, with `more`, += A B, A's rows `step` apart, B a panel of k lines. It is in the
// second cache, not in the first. Not inlined: once is enough to compile.
__attribute__((noinline)) void times_panel(const float* a, long step, const float* b, long k, bool more, float* s) {
  Vec t[ROWS][2];
  for (int u = 0; u < ROWS; u++)
    for (int v = 0; v < 2; v++) t[u][v] = more ? load16(s + u * 32 + v * 16) : Vec{};
  const auto line = [=](long l, int v) {
    __builtin_prefetch(b + (l + 8) * 32 + v * 16);
    return load16(b + l * 32 + v * 16);
  };
  accumulate<false>(a, step, line, k, t);
  for (int u = 0; u < ROWS; u++)
    for (int v = 0; v < 2; v++) store16(s + u * 32 + v * 16, t[u][v]);
}

// A layer's thin matrices: `down` to the low side, a line a rank (ranks filled up to eights), and `up`
// from it, as panels; each direction has its own.
struct Thin {
  std::vector<std::vector<float>> down;
  std::vector<Place<float>> up;
  Thin(const Layer<float>& layer, bool back) : down(layer.count), up(layer.count) {
    for (long c = 0; c < layer.count; c++) {
      const Adapter<float>& p = layer.parts[c];
      const long wide = back ? layer.k : p.columns;
      up[c] = place<float>(p.rank * wide);
      if (back) panels(p.a, layer.k, 1, p.rank, wide, up[c].get());
      else panels(p.b, 1, p.rank, p.rank, wide, up[c].get());
      down[c] = back ? lines(p.b, p.rank, p.columns, 1, p.rank) : lines(p.a, p.rank, layer.k, layer.k, 1);
    }
  }
};

// Rows that go through a weight together: it is read from far away once for all of them, and they stay
// in a core's own cache.
inline long at_once(long rows, int threads, long k) {
  const long own = (rows + threads - 1) / threads, most = std::max(long(ROWS), 262144 / k);
  const long parts = std::max(1L, (own + most - 1) / most), each = (own + parts - 1) / parts;
  return std::max(long(ROWS), (each + ROWS - 1) / ROWS * ROWS);
}

// The low side of rows i to `end`: low (rows x rank, filled up to eights) = scale A B^T, where B is
// `down`, and of A's elements (rows `step` apart) those count that `kept` names.
__attribute__((noinline)) void lower(const Adapter<float>& p, const float* a, long step, const uint32_t* kept,
                                     const float* down, long k, long i, long end, float* low) {
  const long rank = up8(p.rank);
  for (; i < end; i += 2) {
    const long next = std::min(i + 1, end - 1);
    for (long l = 0; l < rank; l += 8) {
      Vec s[16] = {};
      for (long j = 0; j < k; j += 16) {
        const long e[2] = {i * step + j, next * step + j};
        const Vec x = some16(kept, e[0], a + e[0]), y = some16(kept, e[1], a + e[1]);
        for (int c = 0; c < 8; c++) {
          const Vec with = load16(down + (l + c) * k + j);
          s[c] += x * with;
          s[8 + c] += y * with;
        }
      }
      const Vec total = sums(s) * p.scale;
      std::memcpy(low + next * rank + l, reinterpret_cast<const float*>(&total) + 8, 32);
      std::memcpy(low + i * rank + l, &total, 32);
    }
  }
}

// y = x W^T + bias, and on each adapter's columns + scale drop(x) A^T B^T; or, with `gelu`, GELU of
// that, and its derivative where `slope` is given. An adapter's `low` has a line of ranks, filled up
// to eights, for each row.
void adapted(const float* x, const Layer<float>& layer, float* y, bool gelu, float* slope, long rows, int threads) {
  const Adapter<float>* const parts = layer.parts;
  const long count = layer.count, k = layer.k, n = layer.n, some = at_once(rows, threads, k);
  const Thin thin(layer, false);
#pragma omp parallel num_threads(threads)
  {
    const Place<float> ends = place<float>(ROWS * k);
    alignas(64) float line[ROWS * 32];
#pragma omp for schedule(dynamic, 1)
    for (long start = 0; start < rows; start += some) {
      const long end = std::min(rows, start + some);
      for (long c = 0; c < count; c++) {
        const Adapter<float>& p = parts[c];
        for (long e = start * k; p.kept && e < end * k; e += 32) p.kept[e / 32] = kept_bits(p, uint32_t(e));
        lower(p, x, k, p.kept, thin.down[c].data(), k, start, end, p.low);
      }
      // Only the last rows of all are filled up.
      const long whole = rows / ROWS * ROWS;
      if (end > whole) filled<ROWS>(x + whole * k, rows - whole, k, ends.get());
      for (long j = 0; j < n; j += 32)
        for (long i = start; i < end; i += ROWS) {
          const long many = std::min(long(ROWS), rows - i);
          times_panel(many == ROWS ? x + i * k : ends.get(), k, layer.ahead + j * k, k, false, line);
          for (long c = 0; c < count; c++) {
            const Adapter<float>& p = parts[c];
            if (j < p.first || j >= p.first + p.columns) continue;
            const long rank = up8(p.rank);
            times_panel(p.low + i * rank, rank, thin.up[c].get() + (j - p.first) * p.rank, p.rank, true, line);
          }
          for (long u = 0; u < many; u++) {
            const long to = (i + u) * n + j;
            finish(line + u * 32, layer.bias ? layer.bias + j : nullptr, gelu, slope ? slope + to : nullptr, y + to);
          }
        }
    }
  }
}

// out (rank x 32 columns; element (l, c) at out[l * row + c * column]) = low^T x, where x's elements are
// read as `kept` says; rows of x, `step` apart, start with the first of these columns, those of low
// (rank numbers, filled up to eights) lie one after the other.
__attribute__((noinline)) void gather(const float* low, long rank, const float* x, long step, const uint32_t* kept, long rows,
                   float* out, long row, long column) {
  const auto line = [=](long i, int v) {
    const long e = i * step + 16 * v;
    __builtin_prefetch(x + e + 12 * step);  // too far away for the processor to fetch it by itself
    return some16(kept, e, x + e);
  };
  for (long l = 0; l < rank; l += 8) {
    Vec s[8][2] = {};
    accumulate<true>(low + l, up8(rank), line, rows, s);
    for (long u = 0; u < std::min(8L, rank - l); u++)
      for (long c = 0; c < 32; c++) out[(l + u) * row + c * column] = s[u][c / 16][c % 16];
  }
}

// Gradients of `adapted` from g, y's gradient (rows x n): dx (rows x k; null where nobody asks), times
// `slope` and plus `more` where they are given, and those of the adapters and of the bias. W does not learn.
void adapted_back(const float* g, const float* x, const Layer<float>& layer, float* dx, const float* slope,
                  const float* more, long rows, int threads) {
  const Adapter<float>* const parts = layer.parts;
  const long count = layer.count, k = layer.k, n = layer.n, some = at_once(rows, threads, n);
  const Thin thin(layer, true);
  std::vector<Place<float>> low(count);
  for (long c = 0; c < count; c++) low[c] = place<float>(up8(parts[c].rank) * (rows + ROWS));
#pragma omp parallel num_threads(threads)
  {
    const Place<float> ends = place<float>(ROWS * n);
    alignas(64) float line[ROWS * 32], own[ROWS * 32];
#pragma omp for schedule(dynamic, 1)
    for (long start = 0; start < rows; start += some) {
      const long end = std::min(rows, start + some);
      for (long c = 0; c < count; c++) {
        const Adapter<float>& p = parts[c];
        lower(p, g + p.first, n, nullptr, thin.down[c].data(), p.columns, start, end, low[c].get());
      }
      const long whole = rows / ROWS * ROWS;
      if (end > whole) filled<ROWS>(g + whole * n, rows - whole, n, ends.get());
      for (long j = 0; dx && j < k; j += 32)
        for (long i = start; i < end; i += ROWS) {
          const long many = std::min(long(ROWS), rows - i);
          times_panel(many == ROWS ? g + i * n : ends.get(), n, layer.back + j * n, n, false, line);
          for (long c = 0; c < count; c++) {
            const Adapter<float>& p = parts[c];
            const long rank = up8(p.rank);
            times_panel(low[c].get() + i * rank, rank, thin.up[c].get() + j * p.rank, p.rank, !p.kept,
                        p.kept ? own : line);
            for (long u = 0; p.kept && u < many; u++)
              for (int v = 0; v < 32; v += 16)
                add_some16(p.kept[((i + u) * k + j) / 32] >> v, load16(own + u * 32 + v), line + u * 32 + v);
          }
          for (long u = 0; u < many; u++) {
            const long to = (i + u) * k + j;
            finish_back(line + u * 32, slope ? slope + to : nullptr, more ? more + to : nullptr, dx + to);
          }
        }
    }
    // All rows are needed from here on, column by column.
    if (layer.dbias) {
#pragma omp for schedule(static) nowait
      for (long j = 0; j < n; j += 16) {
        Vec sum = {};
        for (long i = 0; i < rows; i++) sum += load16(g + i * n + j);
        store16(layer.dbias + j, sum);
      }
    }
    for (long c = 0; c < count; c++) {
      const Adapter<float>& p = parts[c];
#pragma omp for schedule(dynamic, 1) nowait
      for (long j = 0; j < k; j += 32)
        gather(low[c].get(), p.rank, x + j, k, p.kept ? p.kept + j / 32 : nullptr, rows, p.da + j, k, 1);
#pragma omp for schedule(dynamic, 1) nowait
      for (long j = 0; j < p.columns; j += 32)
        gather(p.low, p.rank, g + p.first + j, n, nullptr, rows, p.db + j * p.rank, 1, p.rank);
    }
  }
}
#endif

// --- in bfloat16, adapters within: on matrix tiles (AMX), or on vectors that multiply pairs ---
//
// A tile is 16 lines of 64 bytes. A product's left side is read as it lies, 16 rows by 32 columns at
// a time; its right side B (k x n) has to be laid out: tiles of 32 lines by 16 columns, two lines
// side by side, one column of tiles after the other (Intel 64 manual, TDPBF16PS). VDPBF16PS reads
// the same, a line of a tile at a time.
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#define HALVES 1

constexpr long TILE = 512;  // numbers in a tile of bfloat16

// 32 x 32 numbers of a result: S, which lies where `start` says, is the sum of what `add` is given, and
// there after `take`; so are at least as many of its rows as `start` asks for. With LOWER or RIGHT
// false, its rows or columns from 16 on are zero. Of B's lines at least the first `lines` count.
#if defined(__AMX_BF16__) && defined(__linux__)
#define TILES 1

bool has_tiles = false;  // see layers()

// gcc takes these instructions to read nothing: what they read has to be written before.
inline void settle(const void* p) { asm volatile("" ::"r"(p) : "memory"); }

// The calling thread's eight tiles while this lives; what others configured comes back after it.
class Tiles {
  alignas(64) unsigned char before[64];
  float* s = nullptr;
  long line = 0;
  template <bool LOWER>
  static void load_left(const bf16* a, long step) {
    _tile_loadd(4, a, step * 2);
    if (LOWER) _tile_loadd(5, a + 16 * step, step * 2);
  }
  template <bool RIGHT>
  static void load_right(const bf16* b, long next) {
    _tile_loadd(6, b, 64);
    if (RIGHT) _tile_loadd(7, b + next, 64);
  }
  template <bool LOWER, bool RIGHT>
  static void multiply() {
    _tile_dpbf16ps(0, 4, 6);
    if (RIGHT) _tile_dpbf16ps(1, 4, 7);
    if (LOWER) _tile_dpbf16ps(2, 5, 6);
    if (LOWER && RIGHT) _tile_dpbf16ps(3, 5, 7);
  }

 public:
  Tiles() {
    _tile_storeconfig(before);
    alignas(64) unsigned char own[64] = {1};
    for (int t = 0; t < 8; t++) {
      own[16 + 2 * t] = 64;
      own[48 + t] = 16;
    }
    settle(own);
    _tile_loadconfig(own);
  }
  ~Tiles() {
    settle(before);
    if (before[0]) _tile_loadconfig(before);
    else _tile_release();
  }
  void start(float* to, long step = 32, long = 32) {
    s = to;
    line = step;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  // S += A B; rows of A are `step` apart, `b` points at the first of two columns of so many tiles.
  // `meanwhile` is called after each step: what it does costs little, since tiles are multiplied beside it.
  template <bool LOWER = true, bool RIGHT = true, class F>
  void add(const bf16* a, long step, const bf16* b, long slabs, F meanwhile) {
    settle(a);
    for (long e = 0; e < slabs; e++) {
      load_left<LOWER>(a + 32 * e, step);
      load_right<RIGHT>(b + e * TILE, slabs * TILE);
      multiply<LOWER, RIGHT>();
      meanwhile();
    }
  }
  template <bool LOWER = true, bool RIGHT = true>
  void add(const bf16* a, long step, const bf16* b, long lines) {
    add<LOWER, RIGHT>(a, step, b, up32(lines) / 32, [] {});
  }
  // S += (A + C) (B + D) without C D, where D follows B within a column of tiles.
  template <class F>
  void add_parts(const bf16* a, const bf16* c, long step, const bf16* b, long slabs, F meanwhile) {
    const long part = slabs * TILE;
    settle(a);
    for (long e = 0; e < slabs; e++) {
      load_left<true>(c + 32 * e, step);
      load_right<true>(b + e * TILE, 2 * part);
      multiply<true, true>();
      load_left<true>(a + 32 * e, step);
      multiply<true, true>();
      load_right<true>(b + part + e * TILE, 2 * part);
      multiply<true, true>();
      meanwhile();
    }
  }
  void take() {
    _tile_stored(0, s, line * 4);
    _tile_stored(1, s + 16, line * 4);
    _tile_stored(2, s + 16 * line, line * 4);
    _tile_stored(3, s + 16 * line + 16, line * 4);
  }
};
#else
// Some rows of S = or, with `more`, += A B; S stays in registers meanwhile.
template <int MANY, int VECS>
__attribute__((noinline)) void add_pairs(const bf16* a, long step, const bf16* b, long next, long pairs,
                                         bool more, float* s, long line) {
  __m512 sum[MANY][VECS];
  for (int u = 0; u < MANY; u++)
    for (int v = 0; v < VECS; v++) sum[u][v] = more ? _mm512_loadu_ps(s + u * line + 16 * v) : _mm512_setzero_ps();
  const bf16* four[(MANY + 3) / 4];  // as in `accumulate`
  for (int u = 0; u < MANY; u += 4) {
    four[u / 4] = a + u * step;
    asm("" : "+r"(four[u / 4]));
  }
  for (long l = 0; l < pairs; l++) {
    __m512bh y[VECS];
    for (int v = 0; v < VECS; v++) {
      __builtin_prefetch(b + (l + 8) * 32 + v * next);
      y[v] = (__m512bh)_mm512_loadu_si512(b + l * 32 + v * next);
    }
    for (int u = 0; u < MANY; u++) {
      int pair;
      std::memcpy(&pair, four[u / 4] + (u % 4) * step, 4);
      const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
      for (int v = 0; v < VECS; v++) sum[u][v] = _mm512_dpbf16_ps(sum[u][v], x, y[v]);
    }
    for (auto& f : four) f += 2;
  }
  for (int u = 0; u < MANY; u++)
    for (int v = 0; v < VECS; v++) _mm512_storeu_ps(s + u * line + 16 * v, sum[u][v]);
}

class Tiles {
  float* s = nullptr;
  long line = 0, rows = 32;
  bool more = false;

  template <int MANY, int VECS>
  void some(const bf16* a, long step, const bf16* b, long next, long pairs, long from) {
    add_pairs<MANY, VECS>(a + from * step, step, b, next, pairs, more, s + from * line, line);
  }
  void add_all(const bf16* a, long step, const bf16* b, long next, long pairs) {
    some<11, 2>(a, step, b, next, pairs, 0);
    if (rows > 11) some<11, 2>(a, step, b, next, pairs, 11);
    if (rows > 22) some<10, 2>(a, step, b, next, pairs, 22);
    more = true;
  }

 public:
  void start(float* to, long step = 32, long many = 32) {
    s = to;
    line = step;
    rows = many;
    more = false;
  }
  // S += A B; rows of A are `step` apart, `b` points at the first of two columns of so many tiles.
  // `meanwhile` is called so many times, before S is written.
  template <class F>
  void add(const bf16* a, long step, const bf16* b, long slabs, F meanwhile) {
    for (long e = 0; e < slabs; e++) meanwhile();
    add_all(a, step, b, slabs * TILE, slabs * 16);
  }
  template <bool LOWER = true, bool RIGHT = true>
  void add(const bf16* a, long step, const bf16* b, long lines) {
    const long next = up32(lines) * 16, pairs = (lines + 1) / 2;
    if (LOWER && RIGHT) return add_all(a, step, b, next, pairs);
    for (long u = 0; u < 32 && !more; u++) std::memset(s + u * line, 0, 128);
    for (long from = 0; from < (LOWER ? 32 : 16); from += RIGHT ? 8 : 16)
      some<RIGHT ? 8 : 16, RIGHT ? 2 : 1>(a, step, b, next, pairs, from);
    more = true;
  }
  void take() {}
};
#endif

// B (k x n), element (i, j) at m[i * row + j * column], laid out in P parts and filled up with zeros.
template <int P = 1, class S>
void lay_out(const S* m, long row, long column, long k, long n, bf16* out) {
  const long lines = up32(k) / 2, wide = up32(n) / 16;  // lines are of two
  if (k % 32 || n % 32) std::memset(out, 0, size_t(P * lines * wide * 32) * sizeof(bf16));
#pragma omp parallel for schedule(static) if (k * n > 1 << 18)
  for (long tile = 0; tile < wide; tile++) {
    const S* from = m + tile * 16 * column;
    bf16* to = out + tile * P * lines * 32;
    const long many = std::min(16L, n - tile * 16);
    for (long i = 0; i < k; i += 2, from += 2 * row, to += 32) {
      const long next = i + 1 < k ? row : 0;  // an odd last line stands beside zeros
      for (long c = 0; c < many; c++) {
        float x = load(from[c * column]), y = next ? load(from[c * column + next]) : 0.f;
        for (int p = 0; p < P; p++) {
          bf16* const pair = to + p * lines * 32 + 2 * c;
          store(pair, x);
          store(pair + 1, y);
          x -= load(pair[0]);
          y -= load(pair[1]);
        }
      }
    }
  }
}

// Sixteen numbers, to the nearest of bfloat16, and those back in float32.
inline __m256i narrowed(__m512 x) {
  const __m256bh h = _mm512_cvtneps_pbh(x);
  __m256i out;
  std::memcpy(&out, &h, 32);
  return out;
}
inline __m512 widened(__m256i h) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

// Sixteen words of each of sixteen lines, turned.
inline void turn_words(Vec* v) {
  turn<8>(v);
  turn<4>(v);
  turn<2>(v);
  turn<1>(v);
}

// Sixteen rows by 32 numbers, turned, as a tile of a right side; `sixteen` gives half a row.
template <class F>
inline void turned_tile(F sixteen, bf16* out) {
  Vec v[16];  // pairs of a row, then of a column
  for (long c = 0; c < 16; c++)
    for (int half = 0; half < 2; half++) {
      const __m256i some = sixteen(c, 16 * half);
      std::memcpy(reinterpret_cast<char*>(v + c) + 32 * half, &some, 32);
    }
  turn_words(v);
  std::memcpy(out, v, sizeof v);
}

// W (n x k), which is rows `first` to `first` + n of `all` that lie one below the other, laid out as
// `lay_out` does: W^T, or with `back` W itself. `sixteen` gives so many weights from a number on.
template <class F>
void lay_out_rows(F sixteen, long n, long k, long first, long all, bool back, bf16* out, int threads) {
  if (back) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long some = 0; some < n; some += 32)
      for (long j = 0; j < k; j += 16)
        for (long r = some; r < some + 32; r += 2) {
          const __m512i a = _mm512_cvtepu16_epi32(sixteen(r * k + j));
          const __m512i b = _mm512_cvtepu16_epi32(sixteen((r + 1) * k + j));
          _mm512_storeu_si512(out + j * all + (first + r) * 16, _mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
        }
    return;
  }
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long r = 0; r < n; r += 16)
    for (long j = 0; j < k; j += 32)
      turned_tile([&](long c, long e) { return sixteen((r + c) * k + j + e); }, out + (first + r) * k + j * 16);
}

// The weight of a layer that gives it in pieces: W^T, or with `back` W itself.
Place<bf16> laid_out(const Layer<bf16>& layer, bool back, int threads) {
  if (!layer.pieces) return {};
  Place<bf16> out = place<bf16>(layer.n * layer.k);
  long first = 0;
  for (long i = 0; i < layer.pieces; i++) {
    const Rows& w = layer.rows[i];
    const auto lay = [&](auto sixteen) {
      lay_out_rows(sixteen, w.n, layer.k, first, layer.n, back, out.get(), threads);
    };
    if (w.whole) {
      lay([=](long e) {
        __builtin_prefetch(w.whole + e + 64);
        return narrowed(_mm512_loadu_ps(w.whole + e));
      });
    } else {
      const __m512 numbers = _mm512_loadu_ps(w.numbers);
      lay([=](long e) {
        const __m128i both = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(w.codes + e / 2));
        const __m128i low = _mm_and_si128(both, _mm_set1_epi8(15));
        const __m128i high = _mm_and_si128(_mm_srli_epi16(both, 4), _mm_set1_epi8(15));
        const __m512i which = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(high, low));
        const __m512 scale = _mm512_set1_ps(w.scales[e / w.block]);
        return narrowed(_mm512_mul_ps(_mm512_permutexvar_ps(which, numbers), scale));
      });
    }
    first += w.n;
  }
  return out;
}

// 32 rows from i and columns from j on of a result, which are finished beside the steps of the next:
// `share` of so many steps is what is done beside each, so that all is done after the last.
struct Block {
  long i = 0, j = 0, many = 0, done = 0;
  template <class F>
  void some(long rows, F finish) {
    for (const long end = std::min(many, done + rows); done < end; done++) finish(*this, done);
  }
  static long share(long steps) { return (32 + steps - 1) / steps; }
};

// So many blocks of 32 rows go through a weight's columns together, four at most: it is read from far
// away once for all of them.
inline long together(long rows, int threads) {
  const long own = ((rows + 31) / 32 + threads - 1) / threads, rounds = (own + 3) / 4;
  return rounds ? (own + rounds - 1) / rounds : 1;
}
// A weight of bfloat16 that stays in a core's own cache is near anyway: single blocks share out better.
inline long together(long rows, int threads, long n, long k) {
  return n * k > 800000 ? together(rows, threads) : 1;
}

#ifdef TILES
// x (rows x k) W^T + bias in float32, or GELU of that, k and n multiples of 32. Each number is the sum
// of two of bfloat16, a + b, which holds 16 of its 24 bits, and of the four products that of the two
// small ones is left out (Henry, Tang & Heinecke 2019); above 3.39e38, bfloat16's range, it gives no
// number. W^T is laid out in two parts, one after the other in each column.
void product(const float* x, const bf16* w, const float* bias, float* y, long rows, long k, long n,
             bool gelu, int threads) {
  if (rows <= 0) return;
  const long slabs = k / 32, group = together(rows, threads);
#pragma omp parallel num_threads(threads)
  {
    Tiles tiles;
    const Place<bf16> memory = place<bf16>(group * 2 * 32 * k);
    alignas(64) float s[1024];
    const long each = Block::share(slabs);
    Block before;
    const auto done = [&](const Block& at, long u) {
      float* const none = nullptr;
      finish(s + u * 32, bias ? bias + at.j : bias, gelu, none, y + (at.i + u) * n + at.j);
    };
#pragma omp for schedule(dynamic, 1)
    for (long start = 0; start < rows; start += 32 * group) {
      const long end = std::min(rows, start + 32 * group);
      for (long i = start; i < end; i++) {
        bf16* const to = memory.get() + (i - start) / 32 * 2 * 32 * k + (i - start) % 32 * k;
        for (long j = 0; j < k; j += 16) {
          const __m512 v = _mm512_loadu_ps(x + i * k + j);
          const __m256i a = narrowed(v), b = narrowed(_mm512_sub_ps(v, widened(a)));
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + j), a);
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 32 * k + j), b);
        }
      }
      for (long j = 0; j < n; j += 32) {
        const bf16* const b = w + j / 16 * 2 * slabs * TILE;
        for (long i = start; i < end; i += 32) {
          const bf16* const a = memory.get() + (i - start) * 2 * k;
          tiles.start(s);
          tiles.add_parts(a, a + 32 * k, k, b, slabs, [&] { before.some(each, done); });
          before = {i, j, std::min(32L, end - i)};
          tiles.take();
        }
      }
      before.some(32, done);
    }
  }
}
#endif

// 32 x 32 numbers of S, times `scale`, as rows of bfloat16; the first `lines` of them turned as well.
inline void keep_low(float* s, float scale, long step, bf16* rows, long lines, bf16* turned, long all) {
  for (long u = 0; u < 32; u++) {
    for (long c = 0; c < 32; c += 16) store16(s + u * 32 + c, load16(s + u * 32 + c) * scale);
    narrow32(s + u * 32, rows + u * step);
  }
  for (long l = 0; l < lines; l += 16) {
    Vec v[2][16];
    for (int half = 0; half < 2; half++) {
      for (int u = 0; u < 16; u++) v[half][u] = load16(s + (16 * half + u) * 32 + l);
      turn_words(v[half]);
    }
    for (long u = 0; u < 16 && l + u < lines; u++) {
      float both[32];
      store16(both, v[0][u]);
      store16(both + 16, v[1][u]);
      narrow32(both, turned + (l + u) * all);
    }
  }
}

// A layer's thin matrices as tiles, `down` to the low side and `up` from it (each direction has its
// own layout), and the largest rank, filled up.
struct TiledThin {
  std::vector<Place<bf16>> down, up;
  long most = 32;
  explicit TiledThin(const Layer<bf16>& layer) : down(layer.count), up(layer.count) {
    for (long c = 0; c < layer.count; c++) {
      const Adapter<bf16>& p = layer.parts[c];
      const long rank = up32(p.rank);
      down[c] = place<bf16>(layer.k * rank);
      up[c] = place<bf16>(rank * p.columns);
      most = std::max(most, rank);
    }
  }
};

// The low side of 32 rows: `rows` (32 x rank, filled up) = scale A B, and turned; A's rows are `step`
// apart, B is laid out. S has room for 32 x 32 numbers.
inline void lower(Tiles& tiles, const Adapter<bf16>& p, const bf16* a, long step, const bf16* b, long lines,
                  float* s, bf16* rows, bf16* turned, long all) {
  const long rank = up32(p.rank);
  for (long l = 0; l < rank; l += 32) {
    const bf16* with = b + l * lines;
    tiles.start(s);
    if (p.rank - l > 16) tiles.add(a, step, with, lines);
    else tiles.add<true, false>(a, step, with, lines);
    tiles.take();
    keep_low(s, p.scale, rank, rows + l, p.rank - l, turned + l * all, all);
  }
}

// y = x W^T + bias, and on each adapter's columns + scale drop(x) A^T B^T; or, with `gelu`, GELU of
// that, and its derivative where `slope` is given. An adapter's `low` is turned (rank x rows, both
// filled up to 32).
void adapted(const bf16* x, const Layer<bf16>& layer, bf16* y, bool gelu, bf16* slope, long rows, int threads) {
  const Adapter<bf16>* const parts = layer.parts;
  const long count = layer.count, k = layer.k, n = layer.n;
  const Place<bf16> anew = laid_out(layer, false, threads);
  const bf16 *const w = anew ? anew.get() : layer.ahead, *const bias = layer.bias;
  const long slabs = k / 32, all = up32(rows), group = together(rows, threads, n, k);
  const TiledThin thin(layer);
  const long low = count * 32 * thin.most;  // of a block
#pragma omp parallel num_threads(threads)
  {
    Tiles tiles;
    const Place<bf16> own = place<bf16>(2 * 32 * k + group * low);
    bf16 *const ends = own.get(), *const dropped = ends + 32 * k, *const lows = dropped + 32 * k;
    alignas(64) float s[1024];
    const long each = Block::share(slabs);
    Block before;
    const auto done = [&](const Block& at, long u) {
      const long to = (at.i + u) * n + at.j;
      finish(s + u * 32, bias ? bias + at.j : nullptr, gelu, slope ? slope + to : nullptr, y + to);
    };
#pragma omp for schedule(static)
    for (long t = 0; t < 2 * count; t++) {
      const Adapter<bf16>& p = parts[t / 2];
      if (t % 2) lay_out(p.b, 1, p.rank, p.rank, p.columns, thin.up[t / 2].get());
      else lay_out(p.a, 1, k, k, p.rank, thin.down[t / 2].get());
    }
#pragma omp for schedule(dynamic, 1)
    for (long start = 0; start < rows; start += 32 * group) {
      const long end = std::min(rows, start + 32 * group);
      for (long i = start; i < end; i += 32) {
        const long many = std::min(32L, rows - i);
        const bf16* const from = filled<32>(x + i * k, many, k, ends);  // no other block is filled up
        bf16* const mine = lows + (i - start) / 32 * low;
        for (long c = 0; c < count; c++) {
          const Adapter<bf16>& p = parts[c];
          const bf16* seen = from;
          if (p.kept) {
            for (long u = 0; u < 32; u++)
              for (long j = 0; j < k; j += 32) {
                const uint32_t bits = u < many ? kept_bits(p, uint32_t((i + u) * k + j)) : 0;
                const __m512i v = _mm512_loadu_si512(from + u * k + j);
                _mm512_storeu_si512(dropped + u * k + j, _mm512_maskz_mov_epi16(bits, v));
                if (u < many) p.kept[((i + u) * k + j) / 32] = bits;
              }
            seen = dropped;
          }
          lower(tiles, p, seen, k, thin.down[c].get(), k, s, mine + c * 32 * thin.most, p.low + i, all);
        }
      }
      for (long j = 0; j < n; j += 32)
        for (long i = start; i < end; i += 32) {
          const long many = std::min(32L, rows - i);
          const bf16* const mine = lows + (i - start) / 32 * low;
          tiles.start(s, 32, many);
          tiles.add(many == 32 ? x + i * k : ends, k, w + j / 16 * slabs * TILE, slabs,
                    [&] { before.some(each, done); });
          for (long c = 0; c < count; c++) {
            const Adapter<bf16>& p = parts[c];
            if (j < p.first || j >= p.first + p.columns) continue;
            const long rank = up32(p.rank);
            tiles.add(mine + c * 32 * thin.most, rank, thin.up[c].get() + (j - p.first) * rank, p.rank);
          }
          before = {i, j, many};
          tiles.take();
        }
      before.some(32, done);
    }
  }
}

// Numbers j to j + 31 of rows i and i + 1 of x side by side, number by number, in two halves; what
// `kept` does not name is zero, and so are rows from `rows` on.
inline void pair_up(const bf16* x, long step, long i, long rows, long j, const uint32_t* kept, __m512i* to) {
  __m512i v[2];
  for (int e = 0; e < 2; e++) {
    const bool real = i + e < rows;
    const uint32_t bits = !real ? 0 : kept ? kept[((i + e) * step + j) / 32] : ~0u;
    v[e] = _mm512_maskz_loadu_epi16(bits, x + (real ? i + e : 0) * step + j);
  }
  const Word pairs = counted(0) * 0x10001u + 0x200000u;  // 0, 32, 1, 33, ...
  __m512i order;
  std::memcpy(&order, &pairs, 64);
  to[0] = _mm512_permutex2var_epi16(v[0], order, v[1]);
  to[1] = _mm512_permutex2var_epi16(v[0], _mm512_add_epi16(order, _mm512_set1_epi16(16)), v[1]);
}

// 32 columns of x from j on as rows, each of `all` numbers.
inline void turn_columns(const bf16* x, long step, long j, long rows, long all, bf16* to) {
  for (long i = 0; i < all; i += 32) {
    __m512i v[2][16];
    for (long u = 0; u < 16; u++) {
      __m512i both[2];
      pair_up(x, step, i + 2 * u, rows, j, nullptr, both);
      v[0][u] = both[0];
      v[1][u] = both[1];
    }
    for (int half = 0; half < 2; half++) {
      turn_words(reinterpret_cast<Vec*>(v[half]));
      for (long c = 0; c < 16; c++) _mm512_storeu_si512(to + (16 * half + c) * all + i, v[half][c]);
    }
  }
}

// Columns j to j + 31 of x, whose `rows` rows are filled up to `all`, laid out as a right side.
inline void right_of(const bf16* x, long step, long rows, long all, long j, const uint32_t* kept, bf16* out) {
  for (long i = 0; i < all; i += 2) {
    __m512i both[2];
    for (long ahead = i + 16; ahead < std::min(i + 18, rows); ahead++) fetch(x + ahead * step + j, 32);
    pair_up(x, step, i, rows, j, kept, both);
    for (int half = 0; half < 2; half++) _mm512_storeu_si512(out + 16 * (half * all + i), both[half]);
  }
}

// out (rank x `columns` from j on; element (l, c) at out[l * row + c * column]) = low x, where x's
// elements are read as `kept` says. All of them have `all` rows or columns, of which `rows` are real.
inline void gather(Tiles& tiles, const bf16* low, long rank, long all, const bf16* x, long step, long j,
                   const uint32_t* kept, long rows, float* out, long row, long column, bf16* space) {
  right_of(x, step, rows, all, j, kept, space);
  const bool lines = column == 1 && row % 16 == 0 && reinterpret_cast<uintptr_t>(out) % 64 == 0;
  alignas(64) float s[1024];
  for (long l = 0; l < rank; l += 32) {
    const long many = std::min(32L, rank - l);
    tiles.start(s);
    if (rank - l > 16) tiles.add(low + l * all, all, space, rows);
    else tiles.add<false, true>(low + l * all, all, space, rows);
    tiles.take();
    for (long u = 0; u < many; u++)
      if (lines)  // whole ones, which need not be read first
        for (long c = 0; c < 32; c += 16) _mm512_stream_ps(out + (l + u) * row + c, _mm512_load_ps(s + u * 32 + c));
      else
        for (long c = 0; c < 32; c++) out[(l + u) * row + c * column] = s[u * 32 + c];
  }
  if (lines) _mm_sfence();
}

// Gradients of `adapted` from g, y's gradient (rows x n): dx (rows x k; null where nobody asks), times
// `slope` and plus `more` where they are given, and those of the adapters, of W and of the bias.
void adapted_back(const bf16* g, const bf16* x, const Layer<bf16>& layer, bf16* dx, const bf16* slope,
                  const bf16* more, long rows, int threads) {
  const Adapter<bf16>* const parts = layer.parts;
  const long count = layer.count, k = layer.k, n = layer.n;
  const Place<bf16> anew = dx ? laid_out(layer, true, threads) : Place<bf16>();
  const bf16* const w = anew ? anew.get() : layer.back;
  const long slabs = n / 32, all = up32(rows), group = together(rows, threads, n, k);
  const TiledThin thin(layer);
  const long most = count * 32 * thin.most;  // the low sides of a block
  std::vector<Place<bf16>> low(count);
  for (long c = 0; c < count; c++) low[c] = place<bf16>(up32(parts[c].rank) * all);
  const Place<bf16> turned = layer.dw ? place<bf16>(n * all) : Place<bf16>();
#pragma omp parallel num_threads(threads)
  {
    Tiles tiles;
    const Place<bf16> memory = place<bf16>(std::max(32 * n, 32 * all) + group * most);
    bf16 *const ends = memory.get(), *const lows = ends + std::max(32 * n, 32 * all);
    // A block's numbers, and what each adapter adds where its input was kept.
    const Place<bf16> blocks = place<bf16>(2 * 1024 * (count + 1));
    float* const s = reinterpret_cast<float*>(blocks.get());
    const long each = Block::share(slabs);
    Block before;
    const auto done = [&](const Block& at, long u) {
      const long to = (at.i + u) * k + at.j;
      for (long c = 0; c < count; c++)
        for (int v = 0; parts[c].kept && v < 32; v += 16)
          add_some16(parts[c].kept[to / 32] >> v, load16(s + (c + 1) * 1024 + u * 32 + v), s + u * 32 + v);
      finish_back(s + u * 32, slope ? slope + to : nullptr, more ? more + to : nullptr, dx + to);
    };
#pragma omp for schedule(static)
    for (long t = 0; t < 2 * count; t++) {
      const Adapter<bf16>& p = parts[t / 2];
      if (t % 2) lay_out(p.b, p.rank, 1, p.columns, p.rank, thin.up[t / 2].get());
      else lay_out(p.a, k, 1, p.rank, k, thin.down[t / 2].get());
    }
#pragma omp for schedule(dynamic, 1)
    for (long start = 0; start < rows; start += 32 * group) {
      const long end = std::min(rows, start + 32 * group);
      for (long i = start; i < end; i += 32) {
        const bf16* const from = filled<32>(g + i * n, std::min(32L, rows - i), n, ends);
        for (long c = 0; c < count; c++) {
          const Adapter<bf16>& p = parts[c];
          lower(tiles, p, from + p.first, n, thin.up[c].get(), p.columns, s,
                lows + (i - start) / 32 * most + c * 32 * thin.most, low[c].get() + i, all);
        }
      }
      for (long j = 0; dx && j < k; j += 32)
        for (long i = start; i < end; i += 32) {
          const long many = std::min(32L, rows - i);
          const bf16* const mine = lows + (i - start) / 32 * most;
          const auto add_own = [&](long c) {
            const long rank = up32(parts[c].rank);
            tiles.add(mine + c * 32 * thin.most, rank, thin.down[c].get() + j * rank, parts[c].rank);
          };
          tiles.start(s, 32, many);
          tiles.add(many == 32 ? g + i * n : ends, n, w + j / 16 * slabs * TILE, slabs,
                    [&] { before.some(each, done); });
          for (long c = 0; c < count; c++)
            if (!parts[c].kept) add_own(c);
          before = {i, j, many};
          tiles.take();
          for (long c = 0; c < count; c++) {
            if (!parts[c].kept) continue;
            tiles.start(s + (c + 1) * 1024, 32, many);
            add_own(c);
            tiles.take();
          }
        }
      before.some(32, done);
    }
    if (layer.dw || layer.dbias) {
#pragma omp for schedule(dynamic, 1)
      for (long j = 0; j < n; j += 32) {
        if (turned) turn_columns(g, n, j, rows, all, turned.get() + j * all);
        if (!layer.dbias) continue;
        Vec sum[2] = {};
        for (long i = 0; i < rows; i++)
          for (int half = 0; half < 2; half++) sum[half] += load16(g + i * n + j + 16 * half);
        std::memcpy(layer.dbias + j, sum, sizeof sum);
      }
    }
    // All rows are needed from here on, column by column.
    if (layer.dw) {
#pragma omp for schedule(dynamic, 1) nowait
      for (long j = 0; j < k; j += 32)
        gather(tiles, turned.get(), n, all, x, k, j, nullptr, rows, layer.dw + j, k, 1, ends);
    }
    for (long c = 0; c < count; c++) {
      const Adapter<bf16>& p = parts[c];
#pragma omp for schedule(dynamic, 1) nowait
      for (long j = 0; j < k; j += 32)
        gather(tiles, low[c].get(), p.rank, all, x, k, j, p.kept, rows, p.da + j, k, 1, ends);
#pragma omp for schedule(dynamic, 1) nowait
      for (long j = 0; j < p.columns; j += 32)
        gather(tiles, p.low, p.rank, all, g, n, p.first + j, nullptr, rows, p.db + j * p.rank, 1, p.rank,
               ends);
    }
  }
}

// --- attention on tiles ---

// Rows of one head, filled up with zeros to `all` rows of w numbers; those of head `later` come near.
inline void rows_of(View<const bf16> v, long t, long h, long later, long n, long width, long all, long w, bf16* to) {
  for (long i = 0; i < all; i++) {
    if (i < n) fetch(v.at(t + i, later), width);
    for (long j = 0; j < w; j += 32) {
      const long left = i < n ? width - j : 0;
      const __mmask32 real = left >= 32 ? ~0u : left > 0 ? (1u << left) - 1 : 0;
      _mm512_storeu_si512(to + i * w + j, _mm512_maskz_loadu_epi16(real, v.at(t + i, h) + j));
    }
  }
}
// X^T and X (n x w), laid out as right sides.
inline void right_of_turned(const bf16* x, long n, long w, bf16* out) {
  const auto half_row = [](const bf16* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); };
  for (long i = 0; i < n; i += 16)
    for (long j = 0; j < w; j += 32)
      turned_tile([&](long c, long e) { return half_row(x + (i + c) * w + j + e); }, out + i * w + j * 16);
}
inline void right_of(const bf16* x, long n, long w, bf16* out) {
  for (long j = 0; j < w; j += 32) right_of(x, w, n, n, j, nullptr, out + j * n);
}
// C (m x n) = A (m x k) B, B laid out; both sides are filled up to whole tiles in memory.
inline void times(Tiles& tiles, const bf16* a, long m, long k, const bf16* b, long n, float* c) {
  const long step = up32(k), wide = up32(n);
  for (long i = 0; i < m; i += 32)
    for (long j = 0; j < wide; j += 32) {
      tiles.start(c + i * wide + j, wide, m - i);
      tiles.add(a + i * step, step, b + j * step, k);
      tiles.take();
    }
}
// X (n x m) turned, rounded: (m x n).
inline void turned(const float* x, long n, long m, bf16* out) {
  for (long i = 0; i < m; i += 16)
    for (long j = 0; j < n; j += 32) {
      alignas(64) float both[16][32];
      for (int half = 0; half < 2; half++) {
        Vec v[16];
        for (long c = 0; c < 16; c++) v[c] = load16(x + (j + 16 * half + c) * m + i);
        turn_words(v);
        for (long c = 0; c < 16; c++) store16(both[c] + 16 * half, v[c]);
      }
      for (long c = 0; c < 16; c++) narrow32(both[c], out + (i + c) * n + j);
    }
}
// Rows of one head, row i times scale(i).
template <class F>
inline void give(const float* x, F scale, long n, long width, long w, View<bf16> to, long t, long h) {
  for (long i = 0; i < n; i++) {
    const float by = scale(i);
    bf16* const row = to.at(t + i, h);
    long j = 0;
    for (; j + 16 <= width; j += 16) store16(row + j, load16(x + i * w + j) * by);
    for (; j < width; j++) store(row + j, x[i * w + j] * by);
  }
}

// `attention` on tiles: weights, and what goes back through them, are rounded to bfloat16 once. Scores
// stand turned, a line a token that is seen: sums and maxima of those who ask are sums of lines.
void attention_on_tiles(const Attention<bf16>& a, int threads) {
  const long width = a.width, w = up32(width), most = up32(std::max(1L, a.longest)), side = most * w, square = most * most;
  const bool dropping = a.drop.limit > 0, causal = a.causal && a.all;
  const float keep = dropping ? a.drop.scale : 1.f;
#pragma omp parallel num_threads(threads)
  {
    Tiles tiles;
    const Place<bf16> halves = place<bf16>(9 * side + 3 * square), wholes = place<bf16>(2 * (2 * square + side + most));
    bf16 *const Q = halves.get(), *const K = Q + side, *const V = K + side, *const G = V + side;
    // Laid out: Q^T, G^T, Q, K and G; going forward, V in G's place.
    bf16 *const QT = G + side, *const GT = QT + side, *const QR = GT + side, *const KR = QR + side;
    bf16 *const GR = KR + side, *const VR = GR;
    bf16 *const D = GR + side, *const DT = D + square, *const ST = DT + square;
    float *const S = reinterpret_cast<float*>(wholes.get()), *const X = S + square, *const O = X + square;
    float *const factor = O + side;
#pragma omp for schedule(dynamic, 1) collapse(2)
    for (long b = 0; b < a.texts; b++)
      for (long h = 0; h < a.heads; h++) {
        const long t = a.rows[b], n = a.ends[b] - t, m = a.all ? n : 1, q = a.all ? t : b;
        const long np = up32(n), mp = up32(m), later = std::min(h + threads, a.heads - 1);
        rows_of(a.q, q, h, later, m, width, mp, w, Q);
        rows_of(a.k, t, h, later, n, width, np, w, K);
        rows_of(a.v, t, h, later, n, width, np, w, V);
        right_of_turned(Q, mp, w, QT);
        times(tiles, K, n, width, QT, m, S);
        if (a.grad) {
          rows_of({a.grad, a.heads * width, width}, q, h, later, m, width, mp, w, G);
          right_of_turned(G, mp, w, GT);
          times(tiles, V, n, width, GT, m, X);
        }
        const uint32_t first = uint32_t((b * a.heads + h) * a.longest);
        for (long i = 0; i < m; i += 16) {
          const Word asks = counted(uint32_t(i));
          const Word line = (asks + first) * uint32_t(a.longest) * Dropout::step + a.drop.seed;
          const Vec none = Vec{} - 1e30f;
          const auto seen = [&](long j, Vec x, Vec other) {
            return causal ? pick(Word(asks >= uint32_t(j)), x, other) : x;
          };
          const auto kept = [&](long j, Vec x) {
            return dropping ? pick(Word(Dropout::mix(line + uint32_t(j) * Dropout::step) >= a.drop.limit), x, Vec{}) : x;
          };
          Vec top = none, sum = {}, mean = {};
          for (long j = 0; j < n; j++) top = larger(top, seen(j, load16(S + j * mp + i) * a.scale, none));
          for (long j = 0; j < n; j++) {
            float* const s = S + j * mp + i;
            // Of what is not seen the exponential may be anything.
            const Vec e = seen(j, exp_below(load16(s) * a.scale - top), Vec{});
            sum += e;
            store16(s, a.grad ? e : kept(j, e));
          }
          const Vec inverse = n ? 1.f / sum : Vec{};
          if (!a.grad) {
            store16(factor + i, inverse * keep);
            continue;
          }
          // dP = G V^T; through dropout and softmax: dS = P (mask dP - sum_j P mask dP)
          for (long j = 0; j < n; j++) {
            float *const s = S + j * mp + i, *const x = X + j * mp + i;
            const Vec p = load16(s) * inverse, mask = kept(j, Vec{} + keep), past = mask * load16(x);
            mean += p * past;
            store16(DT + j * mp + i, p * mask);
            store16(s, p);
            store16(x, past);
          }
          for (long j = 0; j < n; j++) {
            float* const s = S + j * mp + i;
            const Vec d = load16(s) * (load16(X + j * mp + i) - mean);
            store16(ST + j * mp + i, d);
            store16(s, d);
          }
        }
        // What stands beside those who ask is multiplied by zeros, and must be finite for that.
        if (a.grad && up16(m) < mp)
          for (long j = 0; j < n; j++) {
            store16(DT + j * mp + mp - 16, Vec{});
            store16(ST + j * mp + mp - 16, Vec{});
          }
        // Tokens that fill up are seen by nobody.
        std::memset(S + n * mp, 0, size_t((np - n) * mp) * sizeof(float));
        turned(S, np, mp, D);
        if (!a.grad) {
          right_of(V, np, w, VR);
          times(tiles, D, m, n, VR, width, O);
          give(O, [=](long i) { return factor[i]; }, m, width, w, {a.out, a.heads * width, width}, q, h);
          continue;
        }
        const auto by_scale = [&](long) { return a.scale; };
        right_of(G, mp, w, GR);
        times(tiles, DT, n, m, GR, width, O);
        give(O, [](long) { return 1.f; }, n, width, w, a.dv, t, h);
        right_of(Q, mp, w, QR);
        times(tiles, ST, n, m, QR, width, O);
        give(O, by_scale, n, width, w, a.dk, t, h);
        right_of(K, np, w, KR);
        times(tiles, D, m, n, KR, width, O);
        give(O, by_scale, m, width, w, a.dq, q, h);
      }
  }
}

template <>
void attend(const Attention<bf16>& a, int threads) {
#ifdef TILES
  if (!has_tiles) return attention(a, threads);
#endif
  attention_on_tiles(a, threads);
}

#endif

#ifdef LAYERS
// A sublayer in BERT's order (Vaswani et al. 2017): norm(x + drop(out(f(in(x))))), where f is attention
// within each text (`bounds` given; `in` makes queries, keys and values) or GELU. With `asking`, which
// makes the queries, only the first token of each text asks and has a result; `in` makes keys and values
// then. fused.py has the same.
template <class T>
struct Sublayer {
  Layer<T> in, out;
  const Layer<T>* asking;
  const T* x;
  T *inner;              // queries, keys and values; of GELU its derivative
  T *firsts, *queries;   // with `asking`: x of those who ask, and their queries
  T *act, *result, *normed;
  float* inverse;
  const float *weight, *shift;  // of the norm
  const int64_t* bounds;
  const T* g;            // gradient of the result, and of x (null where nobody asks)
  T* dx;
  float *dweight, *dshift;  // null where the norm does not learn; else zeros, to be added to
  long rows, texts, heads, longest;
  float eps, scale;
  Dropout attending, after;
  // Of the result, and of what is added to it.
  long asks() const { return asking ? texts : rows; }
  const T* residual() const { return asking ? firsts : x; }
};

template <class T>
Attention<T> attention_of(const Sublayer<T>& h, T* out, const T* grad, T* dqueries, T* made) {
  const long k = h.out.k, width = k / h.heads, n = h.in.n;
  const auto part = [=](auto* from, long which) {
    return View<std::remove_pointer_t<decltype(from)>>{from + which * k, n, width};
  };
  const T* const inner = h.inner;
  const T* const queries = h.queries;
  const long keys = h.asking ? 0 : 1;
  const View<const T> q = h.asking ? View<const T>{queries, k, width} : part(inner, 0);
  const View<T> dq = h.asking ? View<T>{dqueries, k, width} : part(made, 0);
  return {q, part(inner, keys), part(inner, keys + 1), h.bounds, h.bounds + 1, h.texts, h.heads, width,
          h.longest, !h.asking, false, h.scale, h.attending, out, grad, dq, part(made, keys),
          part(made, keys + 1)};
}

template <class T>
void forward(const Sublayer<T>& h, int threads) {
  const long n = h.out.n, k = h.out.k, asks = h.asks();
  if (!h.bounds) {
    adapted(h.x, h.in, h.act, true, h.inner, h.rows, threads);
  } else {
    adapted(h.x, h.in, h.inner, false, nullptr, h.rows, threads);
    if (h.asking) {
      for (long t = 0; t < asks; t++)
        std::memcpy(h.firsts + t * h.in.k, h.x + h.bounds[t] * h.in.k, size_t(h.in.k) * sizeof(T));
      adapted(h.firsts, *h.asking, h.queries, false, nullptr, asks, threads);
    }
    attend(attention_of<T>(h, h.act, nullptr, nullptr, nullptr), threads);
    // Rows that fill up belong to no text, and must be finite.
    const long end = h.asking ? asks : h.bounds[h.texts];
    std::memset(h.act + end * k, 0, size_t((asks - end) * k) * sizeof(T));
  }
  const Place<T> y = place<T>(asks * n);
  adapted(h.act, h.out, y.get(), false, nullptr, asks, threads);
  add_norm<T>(y.get(), h.residual(), h.weight, h.shift, h.result, h.normed, h.inverse, asks, n, h.eps,
              h.after, h.after.limit > 0, threads);
}

template <class T>
void backward(const Sublayer<T>& h, int threads) {
  const long n = h.out.n, k = h.out.k, asks = h.asks();
  const Place<T> dy = place<T>(asks * n), dact = place<T>(asks * k);
  // Without dropout, x and what is added to it have the same gradient.
  const Place<T> dresidual = h.after.limit ? place<T>(asks * n) : Place<T>();
  add_norm_back<T>(h.g, h.normed, h.inverse, h.weight, dy.get(), dresidual.get(), h.dweight, h.dshift,
                   asks, n, h.after, h.after.limit > 0, threads);
  const T* const residual = dresidual ? dresidual.get() : dy.get();
  if (!h.bounds) {
    adapted_back(dy.get(), h.act, h.out, dact.get(), h.inner, nullptr, asks, threads);
    adapted_back(dact.get(), h.x, h.in, h.dx, nullptr, residual, h.rows, threads);
    return;
  }
  adapted_back(dy.get(), h.act, h.out, dact.get(), nullptr, nullptr, asks, threads);
  const long wide = h.in.n, end = h.bounds[h.texts];
  const Place<T> made = place<T>(wide * h.rows), dqueries = h.asking ? place<T>(asks * k) : Place<T>();
  std::memset(made.get() + wide * end, 0, size_t(wide * (h.rows - end)) * sizeof(T));
  attend(attention_of<T>(h, nullptr, dact.get(), dqueries.get(), made.get()), threads);
  adapted_back(made.get(), h.x, h.in, h.dx, nullptr, h.asking ? nullptr : residual, h.rows, threads);
  if (!h.asking) return;
  const long wx = h.in.k;
  const Place<T> dfirsts = h.dx ? place<T>(asks * wx) : Place<T>();
  adapted_back(dqueries.get(), h.firsts, *h.asking, dfirsts.get(), nullptr, residual, asks, threads);
  for (long t = 0; h.dx && t < asks; t++) {
    T* const to = h.dx + h.bounds[t] * wx;
    for (long j = 0; j < wx; j += 16) store16(to + j, load16(to + j) + load16(dfirsts.get() + t * wx + j));
  }
}

// Sublayers one after the other: the result of one is the x of the next.
template <class T>
void forward(const Sublayer<T>* some, long count, int threads) {
  for (long i = 0; i < count; i++) forward(some[i], threads);
}
template <class T>
void backward(const Sublayer<T>* some, long count, int threads) {
  for (long i = count - 1; i >= 0; i--) backward(some[i], threads);
}
#endif

}  // namespace

// Which whole layers run here: 1 for float32's, 2 for bfloat16's, 4 if those are on matrix tiles.
extern "C" int layers() {
  int found = 0;
#ifdef LAYERS
  found |= 1;
#endif
#ifdef TILES
  has_tiles = syscall(SYS_arch_prctl, 0x1023, 18) == 0;  // ARCH_REQ_XCOMP_PERM, XTILEDATA; once a process
  if (has_tiles) found |= 2 | 4;
#elif defined(HALVES)
  found |= 2;
#endif
  return found;
}

#ifdef HALVES
extern "C" void lay_out_bfloat16(const bf16* m, long row, long column, long k, long n, bf16* out) {
  lay_out(m, row, column, k, n, out);
}
#endif
#ifdef TILES
extern "C" void lay_out_float32(const float* m, long row, long column, long k, long n, bf16* out) {
  lay_out<2>(m, row, column, k, n, out);
}
extern "C" void product_float32(const float* x, const bf16* w, const float* bias, float* y, long rows,
                                long k, long n, int gelu, int threads) {
  product(x, w, bias, y, rows, k, n, gelu, threads);
}
#endif

#define LAYER_KERNELS(NAME, T)                                                                    \
  extern "C" void adapted_##NAME(const Layer<T>* layer, const T* x, T* y, int gelu, long rows,    \
                                 int threads) {                                                   \
    adapted(x, *layer, y, gelu != 0, nullptr, rows, threads);                                     \
  }                                                                                               \
  extern "C" void adapted_back_##NAME(const Layer<T>* layer, const T* g, const T* x, T* dx,       \
                                      long rows, int threads) {                                   \
    adapted_back(g, x, *layer, dx, nullptr, nullptr, rows, threads);                              \
  }                                                                                               \
  extern "C" void sublayers_##NAME(const Sublayer<T>* some, long count, int threads) {            \
    forward(some, count, threads);                                                                \
  }                                                                                               \
  extern "C" void sublayers_back_##NAME(const Sublayer<T>* some, long count, int threads) {       \
    backward(some, count, threads);                                                               \
  }

#ifdef HALVES
LAYER_KERNELS(bfloat16, bf16)
#endif
#ifdef LAYERS
LAYER_KERNELS(float32, float)
extern "C" void panels_float32(const float* m, long row, long column, long k, long n, float* out) {
  panels(m, row, column, k, n, out);
}
#endif

extern "C" void squares_float32(const Piece* pieces, long count, double* sum, int threads) {
  *sum = squares(pieces, count, threads);
}
extern "C" void adamw_float32(const Piece* pieces, long count, float scale, float first, float second,
                              float eps, int threads) {
  adamw(pieces, count, scale, first, second, eps, threads);
}
extern "C" void adamw_late_float32(const Late* e, const int64_t* rows, long count, long now, int threads) {
  adamw_late(*e, rows, count, now, threads);
}

#define KERNELS(NAME, T)                                                                          \
  extern "C" void attention_##NAME(                                                               \
      const T* q, const T* k, const T* v, long qt, long qh, long kt, long kh, long vt, long vh,   \
      const int64_t* rows, const int64_t* ends, long texts, long heads, long width, long longest, \
      int all, int causal, float scale, uint32_t seed, uint32_t limit, float keep, T* out,        \
      const T* grad, T* dq, T* dk, T* dv, long s, int threads) {                                  \
    attend<T>({{q, qt, qh}, {k, kt, kh}, {v, vt, vh}, rows, ends, texts, heads, width, longest,   \
               all != 0, causal != 0, scale, {seed, limit, keep}, out, grad, {dq, s, width},      \
               {dk, s, width}, {dv, s, width}}, threads);                                         \
  }                                                                                               \
  extern "C" void add_norm_##NAME(const T* y, const T* residual, const float* weight,             \
                                  const float* bias, T* out, T* normed, float* inverse,           \
                                  long rows, long width, float eps, uint32_t seed,                \
                                  uint32_t limit, float keep, int threads) {                      \
    add_norm<T>(y, residual, weight, bias, out, normed, inverse, rows, width, eps,                \
                {seed, limit, keep}, limit > 0, threads);                                         \
  }                                                                                               \
  extern "C" void add_norm_back_##NAME(                                                           \
      const T* grad, const T* normed, const float* inverse, const float* weight, T* dy,           \
      T* dresidual, float* dweight, float* dbias, long rows, long width, uint32_t seed,           \
      uint32_t limit, float keep, int threads) {                                                  \
    add_norm_back<T>(grad, normed, inverse, weight, dy, dresidual, dweight, dbias, rows, width,   \
                     {seed, limit, keep}, limit > 0, threads);                                    \
  }                                                                                               \
  extern "C" void dropout_##NAME(const T* x, T* out, long n, uint32_t seed, uint32_t limit,       \
                                 float keep, int threads) {                                       \
    dropout<T>(x, out, n, {seed, limit, keep}, threads);                                          \
  }                                                                                               \
  extern "C" void gelu_##NAME(const T* x, T* out, T* slope, long n, int threads) {                \
    gelu<T>(x, out, slope, n, threads);                                                           \
  }

#define LOW_RANK(NAME, T)                                                                         \
  extern "C" void low_rank_##NAME(const T* x, const float* a, const float* b, const T* bias, T* y, \
                                  long step, float* low, long rows, long k, long n, long rank,    \
                                  float scale, uint32_t seed, uint32_t limit, float keep,         \
                                  int threads) {                                                  \
    low_rank<T>(x, a, b, bias, y, step, low, rows, k, n, rank, scale, {seed, limit, keep},        \
                threads);                                                                         \
  }                                                                                               \
  extern "C" void low_rank_back_##NAME(                                                           \
      const T* g, long step, const T* x, const float* a, const float* b, const float* low, T* dx, \
      float* da, float* db, long rows, long k, long n, long rank, float scale, uint32_t seed,                \
      uint32_t limit, float keep, int threads) {                                                  \
    low_rank_back<T>(g, step, x, a, b, low, dx, da, db, rows, k, n, rank, scale,                  \
                     {seed, limit, keep}, threads);                                                                    \
  }

KERNELS(float32, float)
KERNELS(bfloat16, bf16)
LOW_RANK(float32, float)
LOW_RANK(bfloat16, bf16)
