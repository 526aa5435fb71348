// The tile instructions of Intel's AMX in plain C++, so that what uses them runs on other processors.
#pragma once
#include <immintrin.h>
#include <cstdint>
#include <cstring>
struct Emulated { unsigned char config[64]; float tile[8][256]; };
inline thread_local Emulated emulated;
inline void _tile_loadconfig_(const void* p) { std::memcpy(emulated.config, p, 64); }
inline void _tile_storeconfig_(void* p) { std::memcpy(p, emulated.config, 64); }
inline void _tile_release_() { std::memset(emulated.config, 0, 64); }
inline void _tile_zero_(int t) { std::memset(emulated.tile[t], 0, 1024); }
inline void _tile_loadd_(int t, const void* p, long step) {
  for (int i = 0; i < 16; i++) std::memcpy(emulated.tile[t] + 16 * i, static_cast<const char*>(p) + i * step, 64);
}
inline void _tile_stored_(int t, void* p, long step) {
  for (int i = 0; i < 16; i++) std::memcpy(static_cast<char*>(p) + i * step, emulated.tile[t] + 16 * i, 64);
}
inline void _tile_dpbf16ps_(int c, int a, int b) {
  for (int i = 0; i < 16; i++)
    for (int l = 0; l < 16; l++) {
      uint32_t pair;
      std::memcpy(&pair, emulated.tile[a] + 16 * i + l, 4);
      const __m512bh x = (__m512bh)_mm512_set1_epi32(int(pair)), y = (__m512bh)_mm512_loadu_si512(emulated.tile[b] + 16 * l);
      _mm512_storeu_ps(emulated.tile[c] + 16 * i, _mm512_dpbf16_ps(_mm512_loadu_ps(emulated.tile[c] + 16 * i), x, y));
    }
}
#undef _tile_loadconfig
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#define _tile_loadconfig _tile_loadconfig_
#define _tile_storeconfig _tile_storeconfig_
#define _tile_release _tile_release_
#define _tile_zero _tile_zero_
#define _tile_loadd _tile_loadd_
#define _tile_stored _tile_stored_
#define _tile_dpbf16ps _tile_dpbf16ps_
#include <sys/syscall.h>
#include <unistd.h>
#define syscall(...) 0
#ifndef __AMX_BF16__
#define __AMX_BF16__ 1
#endif
