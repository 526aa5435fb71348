// Fused kernels of the packed engine (tunelab/kernels.py builds, loads and documents them).
//
// Everything is computed in float32; `float` or bfloat16 is only how tensors are stored. Each kernel
// has a twin in torch in kernels.py, held to it by tests/reference/test_kernels.py. The dropout mask
// is a function of (seed, index), so that it need not be kept for the backward pass.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
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

// Factors of n elements under dropout, from element `start` on: 0, or 1 / (1 - p). `limit` is
// p * 2^32; the hash is murmur3's finaliser.
struct Dropout {
  uint32_t seed, limit;
  float scale;
  template <class W>
  inline W hash(W h) const {
    h = h * 0x9e3779b9u + seed;
    h ^= h >> 16;
    h *= 0x85ebca6bu;
    h ^= h >> 13;
    h *= 0xc2b2ae35u;
    return h ^ (h >> 16);
  }
  // x times the factors of sixteen elements.
  inline Vec apply(Vec x, uint32_t start) const {
    const Word steps = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const Word kept = Word(hash<Word>(steps + start) >= limit);  // ones or zeros
    Word bits;
    x *= scale;
    std::memcpy(&bits, &x, 64);
    bits &= kept;
    std::memcpy(&x, &bits, 64);
    return x;
  }
  void times(float* x, uint32_t start, int n) const {
    int j = 0;
    for (; j + 16 <= n; j += 16) {
      Vec* at = reinterpret_cast<Vec*>(x + j);
      *at = apply(*at, start + uint32_t(j));
    }
    for (; j < n; j++) x[j] *= hash<uint32_t>(start + uint32_t(j)) >= limit ? scale : 0.f;
  }
};

// exp(x), relative error 2e-7; written out so that any compiler makes vector code of it.
inline float fast_exp(float x) {
  x = x < -87.f ? -87.f : (x > 88.f ? 88.f : x);
  float n = std::nearbyintf(x * 1.44269504f);
  float f = x - n * 0.693359375f;
  f -= n * -2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * f + 1.3981999507e-3f;
  y = y * f + 8.3334519073e-3f;
  y = y * f + 4.1665795894e-2f;
  y = y * f + 1.6666665459e-1f;
  y = y * f + 5.0000001201e-1f;
  y = y * f * f + f + 1.f;
  int32_t e = (int32_t(n) + 127) << 23;
  float two;
  std::memcpy(&two, &e, 4);
  return y * two;
}

// erf(x) = 1 - (a1 t + ... + a5 t^5) exp(-x^2), t = 1 / (1 + 0.3275911 |x|), error 1.5e-7
// (Abramowitz & Stegun 7.1.26); gives exp(-x^2) as well, which GELU's derivative needs.
inline float fast_erf(float x, float* e) {
  float a = std::fabs(x), t = 1.f / (1.f + 0.3275911f * a);
  *e = fast_exp(-a * a);
  float y = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t
             + 0.254829592f) * t * *e;
  return std::copysign(1.f - y, x);
}

// ROWS rows of C (m x n) = A (m x k) B (k x n), from row i on.
template <int ROWS>
inline void multiply_rows(const float* a, long row, long column, const float* b, float* c, long i,
                          long k, long n) {
  for (long j = 0; j < n; j += 16) {
    Vec s[ROWS] = {};
    for (long l = 0; l < k; l++) {
      const Vec y = *reinterpret_cast<const Vec*>(b + l * n + j);
      for (int u = 0; u < ROWS; u++) s[u] += a[(i + u) * row + l * column] * y;
    }
    for (int u = 0; u < ROWS; u++) *reinterpret_cast<Vec*>(c + (i + u) * n + j) = s[u];
  }
}

// C (m x n) = A (m x k) B (k x n). Rows of B and C are n long, a multiple of 16. A's element (i, l)
// lies at a[i * row + l * column].
void multiply(const float* a, long row, long column, const float* b, float* c, long m, long k,
              long n) {
  long i = 0;
  for (; i + 8 <= m; i += 8) multiply_rows<8>(a, row, column, b, c, i, k, n);
  for (; i + 2 <= m; i += 2) multiply_rows<2>(a, row, column, b, c, i, k, n);
  for (; i < m; i++) multiply_rows<1>(a, row, column, b, c, i, k, n);
}

inline long up16(long n) { return (n + 15) / 16 * 16; }

// Where a tensor's element (token, head, 0) lies: data + token * token_step + head * head_step.
template <class T>
struct View {
  T* data;
  long token, head;
  T* at(long t, long h) const { return data + t * token + h * head; }
};

// Softmax attention within each text. `rows[b] .. rows[b + 1]` are the tokens of text b; `all` false
// means that only its first token asks (query, out and their gradients then have a row a text).
// `grad` null: forward, writes out. Otherwise writes dq, dk, dv, computing the weights anew.
template <class T>
void attention(View<const T> q, View<const T> k, View<const T> v, const int64_t* rows, long texts,
               long heads, long width, long longest, bool all, bool causal, float scale,
               Dropout drop, bool dropping, T* out, const T* grad, View<T> dq, View<T> dk,
               View<T> dv, int threads) {
  const long w = up16(width);
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> memory;
#pragma omp for schedule(dynamic, 1) collapse(2)
    for (long b = 0; b < texts; b++)
      for (long h = 0; h < heads; h++) {
        const long t0 = rows[b], n = rows[b + 1] - t0, m = all ? n : 1, np = up16(n);
        const long q0 = all ? t0 : b;
        memory.assign(size_t(w * (6 * np) + 2 * np * np + w * np), 0.f);
        float* Q = memory.data();
        float *K = Q + w * np, *V = K + w * np, *KT = V + w * np, *O = KT + w * np;
        float *G = O + w * np, *X = G + w * np, *P = X + w * np, *D = P + np * np;
        for (long i = 0; i < m; i++)
          for (long d = 0; d < width; d++) Q[i * w + d] = load(q.at(q0 + i, h)[d]) * scale;
        for (long i = 0; i < n; i++)
          for (long d = 0; d < width; d++) {
            K[i * w + d] = KT[d * np + i] = load(k.at(t0 + i, h)[d]);
            V[i * w + d] = load(v.at(t0 + i, h)[d]);
          }
        multiply(Q, w, 1, KT, P, m, width, np);
        for (long i = 0; i < m; i++) {
          float* p = P + i * np;
          const long seen = causal && all ? i + 1 : n;
          float top = -INFINITY, sum = 0;
          SIMD(reduction(max : top)) for (long j = 0; j < seen; j++) top = p[j] > top ? p[j] : top;
          SIMD(reduction(+ : sum))
          for (long j = 0; j < seen; j++) {
            p[j] = fast_exp(p[j] - top);
            sum += p[j];
          }
          const float over = 1.f / sum;
          SIMD() for (long j = 0; j < seen; j++) p[j] *= over;
          for (long j = seen; j < np; j++) p[j] = 0;
        }
        // D: the weights after dropout
        const uint32_t base = uint32_t((b * heads + h) * longest);
        for (long i = 0; i < m; i++) {
          const uint32_t line = (base + uint32_t(i)) * uint32_t(longest);
          std::memcpy(D + i * np, P + i * np, np * sizeof(float));
          if (dropping) drop.times(D + i * np, line, int(np));
        }
        if (!grad) {
          multiply(D, np, 1, V, O, m, n, w);
          for (long i = 0; i < m; i++)
            for (long d = 0; d < width; d++)
              store(out + ((q0 + i) * heads + h) * width + d, O[i * w + d]);
          continue;
        }
        for (long i = 0; i < m; i++)
          for (long d = 0; d < width; d++)
            G[i * w + d] = load(grad[((q0 + i) * heads + h) * width + d]);
        multiply(D, 1, np, G, X, n, m, w);  // dV = D^T G
        for (long i = 0; i < n; i++)
          for (long d = 0; d < width; d++) store(dv.at(t0 + i, h) + d, X[i * w + d]);
        for (long i = 0; i < n; i++)
          for (long d = 0; d < width; d++) KT[d * np + i] = V[i * w + d];
        // dP = G V^T; through dropout and softmax: dS = P (mask dP - sum_j D dP)
        std::vector<float> dP(size_t(m * np), 0.f);
        multiply(G, w, 1, KT, dP.data(), m, width, np);
        for (long i = 0; i < m; i++) {
          float *p = P + i * np, *d = D + i * np, *g = dP.data() + i * np, sum = 0;
          const uint32_t line = (base + uint32_t(i)) * uint32_t(longest);
          SIMD(reduction(+ : sum)) for (long j = 0; j < np; j++) sum += d[j] * g[j];
          if (dropping) drop.times(g, line, int(np));
          SIMD() for (long j = 0; j < np; j++) g[j] = p[j] * (g[j] - sum);
        }
        multiply(dP.data(), 1, np, Q, X, n, m, w);  // dK = dS^T Q, Q is scaled already
        for (long i = 0; i < n; i++)
          for (long d = 0; d < width; d++) store(dk.at(t0 + i, h) + d, X[i * w + d]);
        multiply(dP.data(), np, 1, K, O, m, n, w);  // dQ = scale dS K
        for (long i = 0; i < m; i++)
          for (long d = 0; d < width; d++) store(dq.at(q0 + i, h) + d, O[i * w + d] * scale);
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

// GELU x Phi(x), exact, and its derivative Phi(x) + x phi(x): the backward pass is a product.
template <class T>
void gelu(const T* x, T* out, T* slope, long n, int threads) {
#pragma omp parallel for simd schedule(static) num_threads(threads)
  for (long i = 0; i < n; i++) {
    float e;
    const float z = load(x[i]), c = 0.5f * (1.f + fast_erf(z * 0.70710678f, &e));
    store(out + i, z * c);
    store(slope + i, c + z * 0.39894228f * e);
  }
}

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
  Word u;
  std::memcpy(&u, &x, 64);
  u = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  *reinterpret_cast<Half*>(p) = __builtin_convertvector(u, Half);
}

// low = scale drop_x(x) down^T; y += drop_y(low up) + bias (may be null). x (rows x k), down (rank x
// k), up (rank x n), y (rows x n), low (rows x rank); k and n are multiples of 16.
template <class T>
void low_rank(const T* x, const float* down, const float* up, const T* bias, T* y, float* low,
              long rows, long k, long n, long rank, float scale, Dropout drop_x, Dropout drop_y,
              int threads) {
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> memory(4 * k);
    float* const part = memory.data();
#pragma omp for schedule(static)
    for (long block = 0; block < (rows + 3) / 4; block++) {
      const long i = block * 4, many = rows - i < 4 ? rows - i : 4;
      for (long u = 0; u < many; u++) {
        const T* row = x + (i + u) * k;
        for (long j = 0; j < k; j += 16) store16(part + u * k + j, load16(row + j));
        if (drop_x.limit) drop_x.times(part + u * k, uint32_t((i + u) * k), int(k));
      }
      for (long l = 0; l < rank; l += 4) {
        // Ranks that are not there read the last that is; what they give is not kept.
        const float* to[4];
        for (int u = 0; u < 4; u++) to[u] = down + (l + u < rank ? l + u : rank - 1) * k;
        Vec s[4][4] = {};
        for (long j = 0; j < k; j += 16) {
          const Vec w[4] = {load16(to[0] + j), load16(to[1] + j), load16(to[2] + j),
                            load16(to[3] + j)};
          for (int u = 0; u < 4; u++) {
            const Vec v = load16(part + u * k + j);
            for (int c = 0; c < 4; c++) s[u][c] += v * w[c];
          }
        }
        for (int u = 0; u < many; u++)
          for (int c = 0; c < 4 && l + c < rank; c++) {
            float sum = 0;
            for (int v = 0; v < 16; v++) sum += s[u][c][v];
            low[(i + u) * rank + l + c] = scale * sum;
          }
      }
      for (long j = 0; j < n; j += 16) {
        Vec s[4] = {};
        for (long l = 0; l < rank; l++) {
          const Vec v = load16(up + l * n + j);
          for (int u = 0; u < 4; u++) s[u] += low[(i + (u < many ? u : 0)) * rank + l] * v;
        }
        const Vec zero = {};
        const Vec add = bias ? load16(bias + j) : zero;
        for (int u = 0; u < many; u++) {
          T* o = y + (i + u) * n + j;
          if (drop_y.limit) s[u] = drop_y.apply(s[u], uint32_t((i + u) * n + j));
          store16(o, load16(o) + s[u] + add);
        }
      }
    }
  }
}

// out (rank x k) = low^T drop(x), summed over rows in order: the gradient of `down` or `up`.
template <class T>
void low_rank_grad(const float* low, const T* x, float* out, long rows, long k, long rank,
                   Dropout drop, int threads) {
#pragma omp parallel for schedule(static) collapse(2) num_threads(threads)
  for (long j = 0; j < k; j += 16)
    for (long l = 0; l < (rank + 7) / 8; l++) {
      const long at = l * 8, take = rank - at < 8 ? rank - at : 8;
      Vec s[8] = {};
      if (take == 8) {
        for (long i = 0; i < rows; i++) {
          Vec v = load16(x + i * k + j);
          if (drop.limit) v = drop.apply(v, uint32_t(i * k + j));
          for (int w = 0; w < 8; w++) s[w] += low[i * rank + at + w] * v;
        }
      } else {
        for (long i = 0; i < rows; i++) {
          Vec v = load16(x + i * k + j);
          if (drop.limit) v = drop.apply(v, uint32_t(i * k + j));
          for (int w = 0; w < take; w++) s[w] += low[i * rank + at + w] * v;
        }
      }
      for (int w = 0; w < take; w++) store16(out + (at + w) * k + j, s[w]);
    }
}

}  // namespace

#define KERNELS(NAME, T)                                                                          \
  extern "C" void attention_##NAME(                                                               \
      const T* q, const T* k, const T* v, long qt, long qh, long kt, long kh, long vt, long vh,   \
      const int64_t* rows, long texts, long heads, long width, long longest, int all, int causal, \
      float scale, uint32_t seed, uint32_t limit, float keep, T* out, const T* grad, T* dq, T* dk,\
      T* dv, int threads) {                                                                       \
    const long s = heads * width;                                                                 \
    attention<T>({q, qt, qh}, {k, kt, kh}, {v, vt, vh}, rows, texts, heads, width, longest, all,  \
                 causal, scale, {seed, limit, keep}, limit > 0, out, grad, {dq, s, width},        \
                 {dk, s, width}, {dv, s, width}, threads);                                        \
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
  extern "C" void low_rank_##NAME(const T* x, const float* down, const float* up, const T* bias,  \
                                  T* y, float* low, long rows, long k, long n, long rank,         \
                                  float scale, uint32_t seed_x, uint32_t limit_x, float keep_x,   \
                                  uint32_t seed_y, uint32_t limit_y, float keep_y, int threads) { \
    low_rank<T>(x, down, up, bias, y, low, rows, k, n, rank, scale, {seed_x, limit_x, keep_x},    \
                {seed_y, limit_y, keep_y}, threads);                                              \
  }                                                                                               \
  extern "C" void low_rank_grad_##NAME(const float* low, const T* x, float* out, long rows,       \
                                       long k, long rank, uint32_t seed, uint32_t limit,          \
                                       float keep, int threads) {                                 \
    low_rank_grad<T>(low, x, out, rows, k, rank, {seed, limit, keep}, threads);                   \
  }

KERNELS(float32, float)
KERNELS(bfloat16, bf16)
LOW_RANK(float32, float)
LOW_RANK(bfloat16, bf16)
