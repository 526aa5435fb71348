// The optimizer: the norm of gradients, a step, and rows that are brought up to date.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "abi.h"
#include "vec.h"

namespace {

// AdamW (Loshchilov & Hutter 2019) of n numbers: keep = 1 - rate * decay, size = rate / (1 - b1^t),
// root = sqrt(1 - b2^t) in step t.
struct Piece {
  float *p, *m, *v;
  const float* g;
  long n;
  float keep, size, root;
  FIELDS(Piece, p, m, v, g, n, keep, size, root)
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
struct LateRows {
  float *p, *m, *v;
  int32_t *last, *since;
  const float *keep, *size, *root;
  long width;
  float first, second, eps;
  FIELDS(LateRows, p, m, v, last, since, keep, size, root, width, first, second, eps)
};

void adamw_late(const LateRows& e, const int64_t* rows, long count, long now, int threads) {
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

}  // namespace
