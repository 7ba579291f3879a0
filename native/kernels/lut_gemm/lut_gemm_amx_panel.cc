// Many tokens in fast and accurate mode: integer panels times signed bytes by the tile unit.
//
// tdpbsud multiplies 16 tokens x 64 columns of signed bytes with 64 columns x 16 rows of codes: a tile of activations
// is 16 tokens' bytes as prepared, a tile of weights two chunks of the panel, a line of 64 bytes for every four
// columns. Products of a span leave the tiles for a buffer and fold to fp32 from there while the tile unit is at the
// next span: a block of tokens and rows keeps what it owes the sums until its successor has begun.
//
// Tokens are cut into blocks of one height; the last block begins early enough to be full and folds only its own.
#include "kernels/lut_gemm/lut_gemm_avx512.h"
#include "kernels/lut_gemm/lut_gemm_integer_panel.h"

namespace lutra {

namespace {

constexpr int64_t kTile = 16;           // tokens and rows of a tile
constexpr int64_t kTileInts = 16 * 16;  // of products

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t line_bytes[16] = {};
  uint8_t lines[16] = {};
};

// Blocks of tokens of one height.
struct Blocks {
  int64_t count;
  int64_t height;
  int64_t tokens;

  int64_t begin(int64_t b) const { return lut_min(b * height, tokens - height); }
  int64_t skip(int64_t b) const { return b * height - begin(b); }  // tokens that the block before has
};

Blocks blocks_of(int64_t tokens) {
  const int64_t count = (tokens + kTile - 1) / kTile;
  return {count, (tokens + count - 1) / count, tokens};
}

// Configures the tiles, which costs as much as a fifth of a panel's product: 0-3 are products, 4 and 5 activations, 6
// and 7 weights.
void begin(int64_t tokens) {
  TileConfig config;
  for (int i = 0; i < 8; ++i) {
    config.line_bytes[i] = 64;
    config.lines[i] = static_cast<uint8_t>(i < 6 ? blocks_of(tokens).height : 16);
  }
  // The intrinsic names only the first bytes of what it reads: all of it must be in memory.
  __asm__ volatile("" ::"m"(config));
  _tile_loadconfig(&config);
}

void end() { _tile_release(); }

// What the products in a buffer still owe the sums: N blocks of tokens from `block` on times M registers of rows.
struct Debt {
  const int32_t* products;  // [digit][N][M][16 tokens][16 rows]
  const float* fold;        // scales, then offsets
  const float* tail;        // of the first block's first token, at the span's step
  int64_t sum_at;           // from there to the span's sum
  float* out;
  int64_t block;
  bool accumulate;
};

template <int D, int N, int M>
LUTRA_INLINE void pay(const Debt& debt, const Blocks& blocks) {
  __m512 scale[M];
  __m512 offset[M];
  LUTRA_UNROLL
  for (int m = 0; m < M; ++m) {
    scale[m] = _mm512_load_ps(debt.fold + 16 * m);
    offset[m] = _mm512_load_ps(debt.fold + kLutTileRows + 16 * m);
  }
  for (int n = 0; n < N; ++n) {
    const int64_t begin = blocks.begin(debt.block + n) - blocks.begin(debt.block);
    for (int64_t i = blocks.skip(debt.block + n); i < blocks.height; ++i) {
      const float* tail = debt.tail + (begin + i) * (integer_token_bytes(D) / 4);
      const __m512 step = _mm512_set1_ps(tail[0]);
      const __m512 sum = _mm512_set1_ps(tail[debt.sum_at]);
      float* out = debt.out + (begin + i) * kLutTileRows;
      LUTRA_UNROLL
      for (int m = 0; m < M; ++m) {
        const int32_t* at = debt.products + (n * M + m) * kTileInts + i * 16;
        __m512i product = _mm512_load_si512(at);
        if (D == 2)
          product = _mm512_add_epi32(_mm512_slli_epi32(product, 8), _mm512_load_si512(at + N * M * kTileInts));
        const __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(product), step);
        const __m512 before = debt.accumulate ? _mm512_load_ps(out + 16 * m) : _mm512_setzero_ps();
        _mm512_store_ps(out + 16 * m, _mm512_fmadd_ps(scale[m], value, _mm512_fmadd_ps(offset[m], sum, before)));
      }
    }
  }
}

// The products of `steps` times 64 columns: x is the first token's digits, `next` bytes from block to block.
template <int N, int M>
LUTRA_INLINE void tile_products(const uint8_t* panel, const uint8_t* x, int64_t next, int64_t stride, int64_t steps) {
  static_assert(N * M <= 4 && N <= 2, "tiles");
  _tile_zero(0);
  if constexpr (N * M > 1) _tile_zero(1);
  if constexpr (N * M > 2) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t s = 0; s < steps; ++s, panel += 2 * kIntegerChunkBytes, x += 64) {
    _tile_loadd(4, x, stride);
    _tile_loadd(6, panel, 256);
    _tile_dpbsud(0, 4, 6);
    if constexpr (N == 2) {
      _tile_loadd(5, x + next, stride);
      if constexpr (M == 2) {
        _tile_loadd(7, panel + 64, 256);
        _tile_dpbsud(1, 4, 7);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
      } else {
        _tile_dpbsud(1, 5, 6);
      }
    } else if constexpr (M == 4) {
      _tile_loadd(7, panel + 64, 256);
      _tile_dpbsud(1, 4, 7);
      _tile_loadd(6, panel + 128, 256);
      _tile_dpbsud(2, 4, 6);
      _tile_loadd(7, panel + 192, 256);
      _tile_dpbsud(3, 4, 7);
    }
  }
}

template <int N, int M>
LUTRA_INLINE void store_products(int32_t* products) {
  _tile_stored(0, products, 64);
  if constexpr (N * M > 1) _tile_stored(1, products + kTileInts, 64);
  if constexpr (N * M > 2) {
    _tile_stored(2, products + 2 * kTileInts, 64);
    _tile_stored(3, products + 3 * kTileInts, 64);
  }
}

struct Panel {
  const LutTile& tile;
  int64_t first;
  int64_t last;
  const uint8_t* panel;
  const uint8_t* prepared;
  float* sums;
  bool accumulate;
};

// Blocks [begin, end) of tokens, N at a time, times M registers of rows from `row` on.
template <int D, int N, int M>
void multiply_blocks(const Panel& p, const Blocks& blocks, int64_t begin, int64_t end, int64_t row) {
  alignas(64) int32_t buffers[2][D * N * M * kTileInts];
  constexpr int64_t kStride = integer_token_bytes(D);
  Debt debt = {};
  int turn = 0;
  for (int64_t b = begin; b < end; b += N) {
    const uint8_t* x = p.prepared + blocks.begin(b) * kStride;
    const int64_t next = N == 2 ? (blocks.begin(b + 1) - blocks.begin(b)) * kStride : 0;
    int64_t part = 0;
    for (int64_t k = p.first; k < p.last; ++part) {
      const int64_t group_end = lut_group_end(k, p.last, p.tile.group_size);
      while (k < group_end) {
        const int64_t span_end = integer_span_end(k, group_end);
        const int64_t at = k - p.first;
        const int64_t steps = (span_end - k + 63) / 64;
        const uint8_t* weights = p.panel + at / kLutChunk * kIntegerChunkBytes + row * 4;
        int32_t* products = buffers[turn];
        tile_products<N, M>(weights, x + at, next, kStride, steps);
        if (debt.products) pay<D, N, M>(debt, blocks);
        store_products<N, M>(products);
        if (D == 2) {
          tile_products<N, M>(weights, x + kIntegerCols + at, next, kStride, steps);
          store_products<N, M>(products + N * M * kTileInts);
        }
        const int64_t step_at = at / kIntegerBlock;
        debt = {products,
                reinterpret_cast<const float*>(p.panel + kIntegerFoldAt) + part * kIntegerFoldFloats + row,
                reinterpret_cast<const float*>(x + D * kIntegerCols) + step_at,
                kIntegerSums + at / kLutChunk - step_at,
                p.sums + blocks.begin(b) * kLutTileRows + row,
                b,
                p.accumulate || at > 0};
        turn ^= 1;
        k = span_end;
      }
    }
  }
  if (debt.products) pay<D, N, M>(debt, blocks);
}

template <int D>
void multiply(const LutTile& tile, int64_t first, int64_t last, const uint8_t* panel, const uint8_t* prepared,
              int64_t tokens, float* sums, bool accumulate) {
  const Panel p = {tile, first, last, panel, prepared, sums, accumulate};
  const Blocks blocks = blocks_of(tokens);
  const int64_t count = blocks.count;
  const int64_t pairs = count / 2 * 2;
  if (tile.stored_rows == kLutTileRows) {
    multiply_blocks<D, 2, 2>(p, blocks, 0, pairs, 0);
    multiply_blocks<D, 2, 2>(p, blocks, 0, pairs, 32);
    multiply_blocks<D, 1, 4>(p, blocks, pairs, count, 0);
  } else {
    for (int64_t row = 0; row < tile.stored_rows; row += kTile) {
      multiply_blocks<D, 2, 1>(p, blocks, 0, pairs, row);
      multiply_blocks<D, 1, 1>(p, blocks, pairs, count, row);
    }
  }
}

constexpr LutPanelKernels with_tiles(LutPanelKernels panels) {
  panels.begin = begin;
  panels.end = end;
  return panels;
}
constexpr LutPanelKernels kFast = with_tiles(integer_panels<1>("u8 tiles", multiply<1>));
constexpr LutPanelKernels kFastPlanes = with_tiles(integer_planes_panels("u8 tiles of rounded values", multiply<1>));
constexpr LutPanelKernels kAccurate = with_tiles(integer_panels<2>("u8 tiles, two digits of x", multiply<2>));

}  // namespace

const LutPanelKernels* lut_gemm_amx_panels(LutMode mode, int bits, bool planes, int64_t group_size, int64_t tokens) {
  const LutPanelKernels* vnni = lut_gemm_avx512vbmi_panels(mode, bits, planes, group_size, tokens);
  // A span of whole chunks that is not one of whole steps of 64 columns: only a group that ends with the row may.
  const bool whole = group_size % 64 == 0 || group_size % kLutChunk != 0;
  const bool integers = mode == kLutFast || (mode == kLutAccurate && !planes);
  if (!integers || !whole || group_size == 16 || tokens < (mode == kLutFast ? 5 : 4)) return vnni;
  if (mode == kLutAccurate) return &kAccurate;
  return planes ? &kFastPlanes : &kFast;
}

}  // namespace lutra
