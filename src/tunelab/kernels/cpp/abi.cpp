// The compiled unit, and what Python calls. Each kernel has a twin in torch (the optimizer's is torch's
// own), to which tests/reference hold it.
#include <cstdint>
#include <iterator>
#if defined(__AMX_BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "abi.h"
#include "adamw.h"
#include "attention.h"
#include "attention_bf16.h"
#include "dropout.h"
#include "gelu.h"
#include "layers_bf16.h"
#include "layers_f32.h"
#include "low_rank.h"
#include "norm.h"
#include "sublayers.h"

namespace {

// Each kernel as Python calls it: a mask is three numbers. What is inlined depends on the size of the
// whole unit: what is added or taken away here can change the machine code of the kernels themselves.
namespace entry {

template <class T>
void attention(const T* q, const T* k, const T* v, long qt, long qh, long kt, long kh, long vt, long vh,
               const int64_t* rows, const int64_t* ends, long texts, long heads, long width, long longest,
               int all, int causal, float scale, uint32_t seed, uint32_t limit, float keep, T* out,
               const T* grad, T* dq, T* dk, T* dv, long s, int threads) {
  attend<T>({{q, qt, qh}, {k, kt, kh}, {v, vt, vh}, rows, ends, texts, heads, width, longest, all != 0,
             causal != 0, scale, {seed, limit, keep}, out, grad, {dq, s, width}, {dk, s, width}, {dv, s, width}},
            threads);
}

template <class T>
void add_norm(const T* y, const T* residual, const float* weight, const float* bias, T* out, T* normed,
              float* inverse, long rows, long width, float eps, uint32_t seed, uint32_t limit, float keep,
              int threads) {
  ::add_norm<T>(y, residual, weight, bias, out, normed, inverse, rows, width, eps, {seed, limit, keep},
                limit > 0, threads);
}

template <class T>
void add_norm_back(const T* grad, const T* normed, const float* inverse, const float* weight, T* dy,
                   T* dresidual, float* dweight, float* dbias, long rows, long width, uint32_t seed,
                   uint32_t limit, float keep, int threads) {
  ::add_norm_back<T>(grad, normed, inverse, weight, dy, dresidual, dweight, dbias, rows, width,
                     {seed, limit, keep}, limit > 0, threads);
}

template <class T>
void dropout(const T* x, T* out, long n, uint32_t seed, uint32_t limit, float keep, int threads) {
  ::dropout<T>(x, out, n, {seed, limit, keep}, threads);
}

template <class T>
void gelu(const T* x, T* out, T* slope, long n, int threads) {
  ::gelu<T>(x, out, slope, n, threads);
}

void squares(const Piece* pieces, long count, double* sum, int threads) {
  *sum = ::squares(pieces, count, threads);
}

void adamw(const Piece* pieces, long count, float scale, float first, float second, float eps, int threads) {
  ::adamw(pieces, count, scale, first, second, eps, threads);
}

void adamw_late(const LateRows* e, const int64_t* rows, long count, long now, int threads) {
  ::adamw_late(*e, rows, count, now, threads);
}

template <class T>
void low_rank(const T* x, const float* a, const float* b, const T* bias, T* y, long step, float* low,
              long rows, long k, long n, long rank, float scale, uint32_t seed, uint32_t limit, float keep,
              int threads) {
  ::low_rank<T>(x, a, b, bias, y, step, low, rows, k, n, rank, scale, {seed, limit, keep}, threads);
}

template <class T>
void low_rank_back(const T* g, long step, const T* x, const float* a, const float* b, const float* low,
                   T* dx, float* da, float* db, long rows, long k, long n, long rank, float scale,
                   uint32_t seed, uint32_t limit, float keep, int threads) {
  ::low_rank_back<T>(g, step, x, a, b, low, dx, da, db, rows, k, n, rank, scale, {seed, limit, keep},
                     threads);
}

template <class T>
void segments(const Segment* some, long count, const T* x, T* y, long rows, long k, long n, int gelu,
              int threads) {
  ::segments<T>(some, count, x, y, rows, k, n, gelu != 0, threads);
}

#ifdef WIDE_VECTORS
template <class T>
void adapted(const Layer<T>* layer, const T* x, T* y, int gelu, long rows, int threads) {
  ::adapted(x, *layer, y, gelu != 0, nullptr, rows, threads);
}

template <class T>
void adapted_back(const Layer<T>* layer, const T* g, const T* x, T* dx, long rows, int threads) {
  ::adapted_back(g, x, *layer, dx, nullptr, nullptr, rows, threads);
}

template <class T>
void sublayers(const Sublayer<T>* some, long count, int threads) {
  forward(some, count, threads);
}

template <class T>
void sublayers_back(const Sublayer<T>* some, long count, int threads) {
  backward(some, count, threads);
}

void panels(const float* m, long row, long column, long k, long n, float* out) {
  ::panels(m, row, column, k, n, out);
}
#endif

#ifdef BF16_PAIRS
void lay_out(const bf16* m, long row, long column, long k, long n, bf16* out) {
  ::lay_out(m, row, column, k, n, out);
}
#endif

#ifdef MATRIX_TILES
void lay_out_in_parts(const float* m, long row, long column, long k, long n, bf16* out) {
  ::lay_out<2>(m, row, column, k, n, out);
}

void product(const float* x, const bf16* w, const float* bias, float* y, long rows, long k, long n,
             int gelu, int threads) {
  ::product(x, w, bias, y, rows, k, n, gelu, threads);
}
#endif

}  // namespace entry

// What runs wherever it was compiled, and layers in bfloat16; behind each the last row is empty.
const Row functions[] = {
    FUNCTION(attention, float32, entry::attention<float>),
    FUNCTION(attention, bfloat16, entry::attention<bf16>),
    FUNCTION(add_norm, float32, entry::add_norm<float>),
    FUNCTION(add_norm, bfloat16, entry::add_norm<bf16>),
    FUNCTION(add_norm_back, float32, entry::add_norm_back<float>),
    FUNCTION(add_norm_back, bfloat16, entry::add_norm_back<bf16>),
    FUNCTION(dropout, float32, entry::dropout<float>),
    FUNCTION(dropout, bfloat16, entry::dropout<bf16>),
    FUNCTION(gelu, float32, entry::gelu<float>),
    FUNCTION(gelu, bfloat16, entry::gelu<bf16>),
    FUNCTION(low_rank, float32, entry::low_rank<float>),
    FUNCTION(low_rank, bfloat16, entry::low_rank<bf16>),
    FUNCTION(low_rank_back, float32, entry::low_rank_back<float>),
    FUNCTION(low_rank_back, bfloat16, entry::low_rank_back<bf16>),
    FUNCTION(segments, float32, entry::segments<float>),
    FUNCTION(segments, bfloat16, entry::segments<bf16>),
    FUNCTION(squares, float32, entry::squares),
    FUNCTION(adamw, float32, entry::adamw),
    FUNCTION(adamw_late, float32, entry::adamw_late),
#ifdef WIDE_VECTORS
    FUNCTION(adapted, float32, entry::adapted<float>),
    FUNCTION(adapted_back, float32, entry::adapted_back<float>),
    FUNCTION(sublayers, float32, entry::sublayers<float>),
    FUNCTION(sublayers_back, float32, entry::sublayers_back<float>),
    FUNCTION(panels, float32, entry::panels),
#endif
    {}};
#ifdef BF16_PAIRS
const Row functions_bf16[] = {
    FUNCTION(adapted, bfloat16, entry::adapted<bf16>),
    FUNCTION(adapted_back, bfloat16, entry::adapted_back<bf16>),
    FUNCTION(sublayers, bfloat16, entry::sublayers<bf16>),
    FUNCTION(sublayers_back, bfloat16, entry::sublayers_back<bf16>),
    FUNCTION(lay_out, bfloat16, entry::lay_out),
#ifdef MATRIX_TILES
    FUNCTION(lay_out, float32, entry::lay_out_in_parts),
    FUNCTION(product, float32, entry::product),
#endif
    {}};
#endif

// The last but one is of layers in bfloat16, the last is null.
const Row* tables[] = {
    functions,
    record_rows<Piece>.data(),
    record_rows<LateRows>.data(),
    record_rows<Segment>.data(),
    record_rows<Dropout>.data(),
#ifdef WIDE_VECTORS
    record_rows<WeightRows>.data(),
    record_rows<Adapter<float>>.data(),
    record_rows<Layer<float>>.data(),
    record_rows<Sublayer<float>>.data(),
#endif
#ifdef BF16_PAIRS
    record_rows<Adapter<bf16>>.data(),
    record_rows<Layer<bf16>>.data(),
    record_rows<Sublayer<bf16>>.data(),
    functions_bf16,
#endif
    nullptr};

}  // namespace

// What this library has for this processor: tables of rows. The number goes up when Row changes.
extern "C" const Row* const* abi_1() {
#ifdef MATRIX_TILES
  has_tiles = syscall(SYS_arch_prctl, 0x1023, 18) == 0;  // ARCH_REQ_XCOMP_PERM, XTILEDATA; once a process
  if (!has_tiles) tables[std::size(tables) - 2] = nullptr;
#endif
  return tables;
}
