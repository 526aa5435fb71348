// Softmax attention within each text, forward and back, on vectors.
#pragma once

#include <algorithm>
#include <vector>

#include "dropout.h"
#include "vec.h"

namespace {

// Where a tensor's element (token, head, 0) lies: data + token * token_step + head * head_step.
template <class T>
struct View {
  T* data;
  long token, head;
  T* at(long t, long h) const { return data + t * token + h * head; }
};

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

// Attention in whichever way is fast here.
template <class T>
void attend(const Attention<T>& a, int threads) {
  attention(a, threads);
}

}  // namespace
