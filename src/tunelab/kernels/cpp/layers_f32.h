// Layers in float32 on vectors, products with adapters within.
//
// A right side B (k x n) is laid out in panels of 32 columns, k lines each. ROWS rows and a panel's
// columns of a result are kept in registers.
#pragma once

#include <algorithm>
#include <vector>

#include "layers.h"
#include "low_rank.h"

#ifdef WIDE_VECTORS
namespace {

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

}  // namespace
#endif  // WIDE_VECTORS
