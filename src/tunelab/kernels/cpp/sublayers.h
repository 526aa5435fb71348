// Sublayers of a transformer's encoder: layer in, attention or GELU, layer out, residual and norm.
#pragma once

#include <cstring>
#include <type_traits>

#include "abi.h"
#include "attention.h"
#include "attention_bf16.h"
#include "layers_bf16.h"
#include "layers_f32.h"
#include "norm.h"

#ifdef WIDE_VECTORS
namespace {

// A sublayer in BERT's order (Vaswani et al. 2017): norm(x + drop(out(f(into(x))))), where f is attention
// within each text (`bounds` given; `into` makes queries, keys and values) or GELU. With `asking`, which
// makes the queries, only the first token of each text asks and has a result; `into` makes keys and values
// then.
template <class T>
struct Sublayer {
  Layer<T> into, out;
  const Layer<T>* asking;
  const T* x;
  T *inner;              // queries, keys and values; of GELU its derivative
  T *firsts, *queries;   // with `asking`: x of those who ask, and their queries
  T *act, *result, *normed;
  float* inverse;
  const float *weight, *shift;  // of the norm
  const int64_t* bounds;
  const T* g;            // gradient of the result, and of x (null where nobody asks)
  T* dx;
  float *dweight, *dshift;  // null where the norm does not learn; else zeros, to be added to
  long rows, texts, heads, longest;
  float eps, scale;
  Dropout attending, after;
  FIELDS(Sublayer, into, out, asking, x, inner, firsts, queries, act, result, normed, inverse, weight, shift,
         bounds, g, dx, dweight, dshift, rows, texts, heads, longest, eps, scale, attending, after)

  // Of the result, and of what is added to it.
  long asks() const { return asking ? texts : rows; }
  const T* residual() const { return asking ? firsts : x; }
};

template <class T>
Attention<T> attention_of(const Sublayer<T>& h, T* out, const T* grad, T* dqueries, T* made) {
  const long k = h.out.k, width = k / h.heads, n = h.into.n;
  const auto part = [=](auto* from, long which) {
    return View<std::remove_pointer_t<decltype(from)>>{from + which * k, n, width};
  };
  const T* const inner = h.inner;
  const T* const queries = h.queries;
  const long keys = h.asking ? 0 : 1;
  const View<const T> q = h.asking ? View<const T>{queries, k, width} : part(inner, 0);
  const View<T> dq = h.asking ? View<T>{dqueries, k, width} : part(made, 0);
  return {q, part(inner, keys), part(inner, keys + 1), h.bounds, h.bounds + 1, h.texts, h.heads, width,
          h.longest, !h.asking, false, h.scale, h.attending, out, grad, dq, part(made, keys),
          part(made, keys + 1)};
}

template <class T>
void forward(const Sublayer<T>& h, int threads) {
  const long n = h.out.n, k = h.out.k, asks = h.asks();
  if (!h.bounds) {
    adapted(h.x, h.into, h.act, true, h.inner, h.rows, threads);
  } else {
    adapted(h.x, h.into, h.inner, false, nullptr, h.rows, threads);
    if (h.asking) {
      for (long t = 0; t < asks; t++)
        std::memcpy(h.firsts + t * h.into.k, h.x + h.bounds[t] * h.into.k, size_t(h.into.k) * sizeof(T));
      adapted(h.firsts, *h.asking, h.queries, false, nullptr, asks, threads);
    }
    attend(attention_of<T>(h, h.act, nullptr, nullptr, nullptr), threads);
    // Rows that fill up belong to no text, and must be finite.
    const long end = h.asking ? asks : h.bounds[h.texts];
    std::memset(h.act + end * k, 0, size_t((asks - end) * k) * sizeof(T));
  }
  const Place<T> y = place<T>(asks * n);
  adapted(h.act, h.out, y.get(), false, nullptr, asks, threads);
  add_norm<T>(y.get(), h.residual(), h.weight, h.shift, h.result, h.normed, h.inverse, asks, n, h.eps,
              h.after, h.after.limit > 0, threads);
}

template <class T>
void backward(const Sublayer<T>& h, int threads) {
  const long n = h.out.n, k = h.out.k, asks = h.asks();
  const Place<T> dy = place<T>(asks * n), dact = place<T>(asks * k);
  // Without dropout, x and what is added to it have the same gradient.
  const Place<T> dresidual = h.after.limit ? place<T>(asks * n) : Place<T>();
  add_norm_back<T>(h.g, h.normed, h.inverse, h.weight, dy.get(), dresidual.get(), h.dweight, h.dshift,
                   asks, n, h.after, h.after.limit > 0, threads);
  const T* const residual = dresidual ? dresidual.get() : dy.get();
  if (!h.bounds) {
    adapted_back(dy.get(), h.act, h.out, dact.get(), h.inner, nullptr, asks, threads);
    adapted_back(dact.get(), h.x, h.into, h.dx, nullptr, residual, h.rows, threads);
    return;
  }
  adapted_back(dy.get(), h.act, h.out, dact.get(), nullptr, nullptr, asks, threads);
  const long wide = h.into.n, end = h.bounds[h.texts];
  const Place<T> made = place<T>(wide * h.rows), dqueries = h.asking ? place<T>(asks * k) : Place<T>();
  std::memset(made.get() + wide * end, 0, size_t(wide * (h.rows - end)) * sizeof(T));
  attend(attention_of<T>(h, nullptr, dact.get(), dqueries.get(), made.get()), threads);
  adapted_back(made.get(), h.x, h.into, h.dx, nullptr, h.asking ? nullptr : residual, h.rows, threads);
  if (!h.asking) return;
  const long wx = h.into.k;
  const Place<T> dfirsts = h.dx ? place<T>(asks * wx) : Place<T>();
  adapted_back(dqueries.get(), h.firsts, *h.asking, dfirsts.get(), nullptr, residual, asks, threads);
  for (long t = 0; h.dx && t < asks; t++) {
    T* const to = h.dx + h.bounds[t] * wx;
    for (long j = 0; j < wx; j += 16) store16(to + j, load16(to + j) + load16(dfirsts.get() + t * wx + j));
  }
}

// Sublayers one after the other: the result of one is the x of the next.
template <class T>
void forward(const Sublayer<T>* some, long count, int threads) {
  for (long i = 0; i < count; i++) forward(some[i], threads);
}
template <class T>
void backward(const Sublayer<T>* some, long count, int threads) {
  for (long i = count - 1; i >= 0; i--) backward(some[i], threads);
}

}  // namespace
#endif  // WIDE_VECTORS
