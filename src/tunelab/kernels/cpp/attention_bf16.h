// Attention in bfloat16, whose products are those of tiles.h.
#pragma once

#include <algorithm>
#include <cstring>

#include "attention.h"
#include "layers.h"
#include "tiles.h"

#ifdef BF16_PAIRS
namespace {

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
#ifdef MATRIX_TILES
  if (!has_tiles) return attention(a, threads);
#endif
  attention_on_tiles(a, threads);
}

}  // namespace
#endif  // BF16_PAIRS
