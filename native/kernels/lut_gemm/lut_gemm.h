// Kernels of lut_gemm: y = W x for one 64-row tile of packed weights, by tables of partial sums or by integers.
//
// Plain data and declarations only: instruction-set files include nothing of the project but this header.
//
// How k is cut. Activations are scaled in blocks of 64 consecutive columns. A span is the part of a block that lies in
// one weight group; integers are summed over a span and fold to fp32 at its end. Group sizes are 16, a multiple of 32
// or the whole row, so a span is one half of a 32-column chunk (group size 16) or a number of whole chunks, the last of
// which may reach past `cols`: packed codes hold zero bits there and tables are built as if x were zero.
//
// The centred form. With h = (2^bits - 1) / 2 a uniform weight is s * (code - h) + c, c = offset + s * h; a plane's bit
// is (bit - 1/2) + 1/2. So y = sum over groups of [ sum_b alpha_b * sum_k (bit_b - 1/2) x_k + c * sum_k x_k ] with
// c = offset + sum_b alpha_b / 2. Tables hold the centred sums T[e] = sum_i (bit i of e ? +x_i : -x_i) / 2; their mean
// over e is zero, so rounding them leaves no common-mode error and c meets the true sum of x. Sets that round the
// activations themselves use the sum of the rounded activations instead, for the same reason.
#pragma once

#include <cstdint>

namespace lutra {

enum LutMode : int { kLutExact, kLutAccurate, kLutFast, kLutModes };
enum class LutFloat : uint8_t { kF32, kF16, kBF16 };
enum class LutOffset : uint8_t { kNone, kZeroCode, kReal };

// What a set rounds to fixed point in a mode: decides the form of the error bound. Rounding is to nearest, so an entry
// or an activation is off by half a step at most. A block whose largest magnitude is under kLutSmallest becomes zero.
enum class LutRounding : uint8_t { kNothing, kTables, kActivations };

constexpr int64_t kLutBlock = 64;     // columns that share one step
constexpr int64_t kLutChunk = 32;     // columns in one code word
constexpr int64_t kLutTileRows = 64;  // rows of a full tile, and the row stride of a panel
// Columns whose group sums share one fp32 sum before it joins the row's. A single sum over a long row or group gathers
// too many roundings, of one sign when x is constant: over 16384 columns 6e-12, where exact mode promises 1e-12.
constexpr int64_t kLutSegment = 512;
// Columns of an fp32 panel: also how many products fp32 sums before it folds. A constant x gives rounding errors of one
// sign, so the normalised error grows with this number's square: at 128 it can pass the 1e-12 of exact mode.
constexpr int64_t kLutPanelCols = 64;
constexpr int64_t kLutTableTokens = 8;  // up to so many tokens, fp32 panels do not pay
// What the largest entry of a block's byte tables becomes. Entries of a constant |x| are 0, |x| and 2 |x|: at 127 the
// middle one would fall between two steps and be off by half of one, always the same way. At 126 all three are whole.
constexpr float kLutByteEntry = 126.0f;
constexpr float kLutSmallest = 0x1p-110f;  // 32767 / kLutSmallest is finite

// One tile of weights as packing/layout.h lays it out.
struct LutTile {
  const uint32_t* codes;  // [chunk][plane][stored_rows]
  const void* scales;     // uniform: [group][stored_rows]; planes: [group][plane][stored_rows]
  const void* offsets;    // [group][stored_rows]: u8 zero codes or real offsets; unused for kNone
  int64_t rows;           // rows that exist, 1..stored_rows: y has exactly these
  int64_t stored_rows;    // 16, 32, 48 or 64
  int64_t cols;
  int64_t group_size;
  int bits;
  bool planes;
  LutOffset offset;
  LutFloat scale_type;
  LutFloat offset_type;
};

// What build() makes of one token's activations. `entries` is 64-byte aligned.
//   exact                    f32 [chunk][8][16]   centred tables of columns 4h..4h+3, h = 0..7     (avx2, avx512*)
//   accurate, avx512vbmi     u8  [chunk][2][byte][4][16] as fast, low bytes of u16 before high ones; biased by 32768
//   fast, avx512vbmi         u8  [chunk][2][4][16] byte j: tables of column groups 2j, then of 2j + 1; biased by 128
//   accurate and fast, ymm   s8  [chunk][digit][8][4] dword p: columns p, p + 8, p + 16, p + 24; digit 1 weighs 256
//   scalar                   f32 [64] a block (exact), else s16 [64]
//   neon                     u8  [chunk][8][byte][16]  byte tables of columns 4h..4h+3: of s8 (fast), s16 (accurate)
//                            and f32 (exact) values, the low byte first
struct LutTables {
  uint8_t* entries;
  float* steps;  // [block] what one unit of an entry is worth; unused by exact
  float* sums;   // [ceil(cols / 16)] at a span's first 16 columns: the sum of the span's activations
};

// Many tokens: the weights of a tile expanded once into a panel, the activations laid out once for all tiles. One of
// these is one way of doing it; panel and prepared activations are 64-byte aligned and of its own layout.
struct LutPanelKernels {
  const char* name;     // for people: "fp32 panels"
  int64_t cols;         // columns of a panel at most, a multiple of kLutBlock: panels begin at multiples of it
  int64_t panel_bytes;  // of a panel of kLutTileRows rows
  int64_t roundings;    // fp32 roundings that a product meets in its panel, its join with the sums included
  int64_t joins;        // and those that its sum meets in every later panel

  // What rounding of the operands may move, for the error bound. A product is off by at most
  //   half a step of |weight|, a step being the largest magnitude of x in its block / steps (0: x keeps its bits)
  //     and a block `block` columns, a multiple of kLutBlock
  //   relative * (|offset| + sum |alpha|) * |x as it was rounded|; where it is not 0, planes whose alphas sum to less
  //     than kLutSmallest may count as one value
  //   flushed * (|offset| + sum |alpha|), where small values count as zero
  int64_t block;
  float steps;
  double relative;
  double flushed;

  // Bytes of one panel's columns of so many tokens, a multiple of 64.
  int64_t (*prepared_bytes)(int64_t tokens);

  // Lays out columns [first, last) of x [tokens, ...], whose rows are x_stride apart; all of one panel.
  void (*prepare)(const float* x, int64_t x_stride, int64_t tokens, int64_t first, int64_t last, int64_t group_size,
                  uint8_t* prepared);

  void (*expand)(const LutTile& tile, int64_t first, int64_t last, uint8_t* panel);

  // sums [token][kLutTileRows] (+)= columns [first, last) of the tile times those of the tokens. 64-byte aligned; what
  // rows past tile.rows hold means nothing.
  void (*multiply)(const LutTile& tile, int64_t first, int64_t last, const uint8_t* panel, const uint8_t* prepared,
                   int64_t tokens, float* sums, bool accumulate);

  // What a thread does before its products with so many tokens and after them; null where there is nothing to do.
  void (*begin)(int64_t tokens) = nullptr;
  void (*end)() = nullptr;
};

struct LutGemmKernels {
  const char* name;
  int min_bits;
  int max_bits;
  int64_t block_bytes[kLutModes];  // of `entries` for one block of 64 columns
  LutRounding rounding[kLutModes];

  // Fills the tables of blocks [first, last). x has `cols` elements and is not read past them.
  void (*build)(LutMode mode, const float* x, int64_t cols, int64_t group_size, int64_t first, int64_t last,
                const LutTables& tables);

  // y[0 .. tile.rows) (+)= the tile times the activations of `tables`.
  void (*multiply)(LutMode mode, const LutTile& tile, const LutTables& tables, float* y, bool accumulate);

  // How so many tokens together are multiplied: by these panels, or token by token with tables where null.
  const LutPanelKernels* (*panels)(LutMode mode, int bits, bool planes, int64_t group_size, int64_t tokens);

  // What multiply() goes by, for people: "s16 tables".
  const char* (*describe)(LutMode mode, int bits, bool planes);
};

// The answer, in fp64 and for 1-8 planes: what a row's group stores, the weights of columns [first, last) by the
// formula of packing/layout.h, and the products with x.
struct LutGroup {
  double alphas[8];  // by plane; uniform: scale * 2^plane
  double offset;
};
LutGroup lut_gemm_reference_group(const LutTile& tile, int64_t row, int64_t group);
void lut_gemm_reference_weights(const LutTile& tile, int64_t row, int64_t first, int64_t last, double* weights);
void lut_gemm_reference(const LutTile& tile, const float* x, double* y);

extern const LutGemmKernels kLutGemmScalar;
extern const LutGemmKernels kLutGemmAvx2;
extern const LutGemmKernels kLutGemmAvxVnni;
extern const LutGemmKernels kLutGemmAvx512;
extern const LutGemmKernels kLutGemmAvx512Vbmi;
extern const LutGemmKernels kLutGemmAmx;
extern const LutGemmKernels kLutGemmNeon;
extern const LutGemmKernels kLutGemmNeonDot;
extern const LutGemmKernels kLutGemmNeonI8mm;

// The best set for this machine that takes this width, and that of the named instruction set; null where there is none
// or it cannot run.
const LutGemmKernels& lut_gemm_kernels(int bits);
const LutGemmKernels* lut_gemm_kernels(const char* name);

// --- Shared by the instruction-set files; static, so that no copy of one file can stand in for another's. ---

static inline int64_t lut_min(int64_t a, int64_t b) { return a < b ? a : b; }

static inline int64_t lut_group_end(int64_t k, int64_t cols, int64_t group_size) {
  return lut_min(cols, (k / group_size + 1) * group_size);
}

static inline int64_t lut_span_end(int64_t k, int64_t group_end) {
  return lut_min(group_end, (k / kLutBlock + 1) * kLutBlock);
}

// Which bits of a code word belong to the span that starts at k.
static inline uint32_t lut_span_bits(int64_t k, int64_t group_size) {
  if (group_size != 16) return 0xffffffffu;
  return (k & 16) ? 0xffff0000u : 0x0000ffffu;
}

// sums16 holds the sums of a block's four runs of 16 columns.
static inline void lut_store_sums(const float* sums16, int64_t block, int64_t cols, int64_t group_size, float* sums) {
  const int64_t begin = block * kLutBlock;
  const int64_t block_end = lut_min(cols, begin + kLutBlock);
  for (int64_t k = begin; k < block_end;) {
    const int64_t end = lut_span_end(k, lut_group_end(k, cols, group_size));
    float sum = 0.0f;
    for (int64_t run = (k - begin) / 16; run * 16 < end - begin; ++run) sum += sums16[run];
    sums[k / 16] = sum;
    k = end;
  }
}

// x from column 64 * block on: in place, or for the last block a copy in `padded` with zeros behind it.
static inline const float* lut_block(const float* x, int64_t cols, int64_t block, float* padded) {
  const int64_t begin = block * kLutBlock;
  if (begin + kLutBlock <= cols) return x + begin;
  for (int64_t i = 0; i < kLutBlock; ++i) padded[i] = begin + i < cols ? x[begin + i] : 0.0f;
  return padded;
}

// --- fp32 panels f32 [column][kLutTileRows], and their activations f32 [token][kLutPanelCols]. ---

constexpr int64_t kLutPanelBytes = kLutPanelCols * kLutTileRows * 4;

static inline int64_t lut_fp32_bytes(int64_t tokens) { return tokens * kLutPanelCols * 4; }

static inline void lut_fp32_prepare(const float* x, int64_t x_stride, int64_t tokens, int64_t first, int64_t last,
                                    int64_t, uint8_t* prepared) {
  float* out = reinterpret_cast<float*>(prepared);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t k = first; k < last; ++k) out[t * kLutPanelCols + k - first] = x[t * x_stride + k];
}

}  // namespace lutra
