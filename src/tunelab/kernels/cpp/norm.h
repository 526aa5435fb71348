// Dropout, residual and layer norm in one pass, and the way back.
#pragma once

#include <cmath>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "dropout.h"
#include "vec.h"

namespace {

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

}  // namespace
