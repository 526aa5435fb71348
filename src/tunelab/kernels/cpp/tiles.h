// Products of 32 x 32 numbers in bfloat16: on matrix tiles (AMX), or on vectors that multiply pairs.
//
// A tile is 16 lines of 64 bytes. A product's left side is read as it lies, 16 rows by 32 columns at
// a time; its right side B (k x n) has to be laid out: tiles of 32 lines by 16 columns, two lines
// side by side, one column of tiles after the other (Intel 64 manual, TDPBF16PS). VDPBF16PS reads
// the same, a line of a tile at a time.
#pragma once

#include <algorithm>
#include <cstring>

#include "vec.h"

#ifdef BF16_PAIRS
namespace {

constexpr long TILE = 512;  // numbers in a tile of bfloat16

// 32 x 32 numbers of a result: S, which lies where `start` says, is the sum of what `add` is given, and
// there after `take`; so are at least as many of its rows as `start` asks for. With LOWER or RIGHT
// false, its rows or columns from 16 on are zero. Of B's lines at least the first `lines` count.
#ifdef MATRIX_TILES
bool has_tiles = false;  // see abi_1()

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

}  // namespace
#endif  // BF16_PAIRS
