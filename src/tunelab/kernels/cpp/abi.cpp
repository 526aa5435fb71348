// The compiled unit: everything that Python calls (tunelab/kernels.py has a twin in torch for each,
// to which tests/reference hold it; the optimizer's is torch's own).
#include <cstdint>
#if defined(__AMX_BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "vec.h"
#include "dropout.h"
#include "attention.h"
#include "norm.h"
#include "gelu.h"
#include "adamw.h"
#include "low_rank.h"
#include "layers_f32.h"
#include "layers_bf16.h"
#include "attention_bf16.h"
#include "sublayers.h"

// Which whole layers run here: 1 for float32's, 2 for bfloat16's, 4 if those are on matrix tiles.
extern "C" int layers() {
  int found = 0;
#ifdef WIDE_VECTORS
  found |= 1;
#endif
#ifdef MATRIX_TILES
  has_tiles = syscall(SYS_arch_prctl, 0x1023, 18) == 0;  // ARCH_REQ_XCOMP_PERM, XTILEDATA; once a process
  if (has_tiles) found |= 2 | 4;
#elif defined(BF16_PAIRS)
  found |= 2;
#endif
  return found;
}

#ifdef BF16_PAIRS
extern "C" void lay_out_bfloat16(const bf16* m, long row, long column, long k, long n, bf16* out) {
  lay_out(m, row, column, k, n, out);
}
#endif
#ifdef MATRIX_TILES
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

#ifdef BF16_PAIRS
LAYER_KERNELS(bfloat16, bf16)
#endif
#ifdef WIDE_VECTORS
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
