// LoRA's thin products: a rank is a line of k or n numbers; lines are filled up to eights.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "abi.h"
#include "dropout.h"
#include "gelu.h"
#include "vec.h"

namespace {

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

// A thin product of some rows' own: y += x down^T up on some columns of rows `first` to `last`. `down`
// (rank x k) and `up` (rank x columns) are filled up to fours with lines of zeros.
struct Segment {
  const float *down, *up;
  long first, last, rank, column, columns;
  FIELDS(Segment, down, up, first, last, rank, column, columns)
};

// All segments of x (rows x k) and y (rows x n), no two of which have a number of y in common; then,
// with `through`, GELU of y. k, n and columns are multiples of 16.
template <class T>
__attribute__((noinline)) void segments(const Segment* some, long count, const T* x, T* y, long rows, long k,
                                        long n, bool through, int threads) {
  long most = 0;
  for (long s = 0; s < count; s++) most = std::max(most, some[s].rank);
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> part(4 * k, 0.f), low(4 * most, 0.f);
#pragma omp for schedule(dynamic, 1)
    for (long c = 0; c < count; c++) {
      const Segment& p = some[c];
      for (long i = p.first; p.rank && i < p.last; i += 4) {
        const long many = std::min(4L, p.last - i), rank = p.rank;
        to_low(x + i * k, k, p.down, low.data(), 0, many, k, rank, 1.f, {0, 0, 1.f}, part.data());
        const float* from[4];
        for (long u = 0; u < 4; u++) from[u] = low.data() + (u < many ? u : 0) * rank;
        for (long j = 0; j < p.columns; j += 16) {
          Vec s[4] = {};
          for (long l = 0; l < rank; l++) {
            const Vec v = load16(p.up + l * p.columns + j);
            for (int u = 0; u < 4; u++) s[u] += from[u][l] * v;
          }
          for (long u = 0; u < many; u++) {
            T* const o = y + (i + u) * n + p.column + j;
            store16(o, load16(o) + s[u]);
          }
        }
      }
    }
    if (through) {
#pragma omp for schedule(static)
      for (long e = 0; e < rows * n; e += 16) {
        Vec slope;
        store16(y + e, gelu_of(load16(y + e), &slope));
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

}  // namespace
