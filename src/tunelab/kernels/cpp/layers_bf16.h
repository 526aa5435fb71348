// Layers in bfloat16, products with adapters within.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "layers.h"
#include "tiles.h"

#ifdef BF16_PAIRS
namespace {

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
    const WeightRows& w = layer.rows[i];
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

#ifdef MATRIX_TILES
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

}  // namespace
#endif  // BF16_PAIRS
