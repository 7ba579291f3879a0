// Packing is a lossless permutation, and dequantize is the formula of packing/layout.h.
#include "../parity/lut_gemm_cases.h"

using namespace lutra;
using namespace lutra::test;

namespace {

TensorView matrix(void* data, Dtype dtype, int64_t rows, int64_t cols) { return {data, dtype, 2, {rows, cols}}; }

}  // namespace

LUTRA_TEST(packing, codes_come_back) {
  for (int bits = 1; bits <= 8; ++bits)
    for (int64_t rows : {1, 16, 17, 64, 65, 130})
      for (int64_t cols : {1, 31, 32, 33, 100}) {
        LutCase problem;
        problem.layout = make_layout(rows, cols, cols, bits, WeightKind::kPlanes, OffsetKind::kReal, Dtype::kF16);
        LutOperands operands(problem);
        Guarded<uint8_t> codes(static_cast<size_t>(rows * cols));
        Context context = one_lane();
        const TensorView words = {operands.words(), Dtype::kU8, 1, {4 * problem.layout.codes_words()}};
        CHECK(unpack_codes(context, problem.layout, words, matrix(codes.data(), Dtype::kU8, rows, cols)).ok());
        CHECK(!std::memcmp(codes.data(), operands.codes().data(), codes.size()));
      }
}

// Every bit of the words against the address that the layout's comment gives it; padding is zero.
LUTRA_TEST(packing, bits_lie_where_the_layout_says) {
  LutCase problem;
  problem.layout = make_layout(81, 70, 32, 3, WeightKind::kUniform, OffsetKind::kNone, Dtype::kF16);
  LutOperands operands(problem);
  size_t set = 0;
  for (int64_t m = 0; m < 96; ++m)
    for (int64_t k = 0; k < 96; ++k)
      for (int b = 0; b < 3; ++b) {
        const int64_t tile = m / 64;
        const int64_t tile_rows = tile == 0 ? 64 : 32;
        const int64_t word = tile * 64 * 3 * 3 + (k / 32 * 3 + b) * tile_rows + m % 64;
        const unsigned bit = (operands.words()[word] >> (k % 32)) & 1u;
        const bool exists = m < 81 && k < 70;
        CHECK(bit == (exists ? (operands.codes()[static_cast<size_t>(m * 70 + k)] >> b & 1u) : 0u));
        set += bit;
      }
  CHECK(set > 0);
  CHECK(problem.layout.codes_words() == 96 * 3 * 3);
}

LUTRA_TEST(packing, group_values_come_back_and_padding_is_zero) {
  for (Dtype dtype : {Dtype::kU8, Dtype::kF16, Dtype::kF32})
    for (int planes : {1, 3})
      for (int64_t rows : {1, 17, 64, 130}) {
        const PackedLayout layout = make_layout(rows, 100, 32, 3, WeightKind::kPlanes, OffsetKind::kReal, Dtype::kF16);
        const size_t bytes = static_cast<size_t>(rows * 4 * planes) * dtype_bytes(dtype);
        const size_t stored = static_cast<size_t>(layout.padded_rows() * 4 * planes) * dtype_bytes(dtype);
        Guarded<uint8_t> logical(bytes), tiled(stored), back(bytes);
        std::mt19937 random(7);
        int64_t nonzero = 0;
        for (size_t i = 0; i < bytes; ++i) logical[i] = static_cast<uint8_t>(1 + random() % 255);
        Context context = one_lane();
        const TensorView from = {logical.data(), dtype, 3, {rows, 4, planes}};
        const TensorView to = {tiled.data(), dtype, 1, {layout.padded_rows() * 4 * planes}};
        const TensorView again = {back.data(), dtype, 3, {rows, 4, planes}};
        CHECK(pack_group_values(context, layout, planes, from, to).ok());
        for (size_t i = 0; i < stored; ++i) nonzero += tiled[i] != 0;
        CHECK(nonzero == static_cast<int64_t>(bytes));
        CHECK(unpack_group_values(context, layout, planes, to, again).ok());
        CHECK(!std::memcmp(logical.data(), back.data(), bytes));
      }
}

LUTRA_TEST(packing, dequantize_is_the_formula_rounded_once) {
  for (int bits = 1; bits <= 8; ++bits)
    for (WeightKind kind : {WeightKind::kUniform, WeightKind::kPlanes})
      for (OffsetKind offset : {OffsetKind::kNone, OffsetKind::kZeroCode, OffsetKind::kReal})
        for (int64_t group : {int64_t{16}, int64_t{32}, int64_t{77}}) {
          if (kind == WeightKind::kPlanes && offset == OffsetKind::kZeroCode) continue;
          LutCase problem;
          problem.layout = make_layout(66, 77, group, bits, kind, offset, Dtype::kF16);
          LutOperands operands(problem);
          Guarded<float> w(66 * 77);
          Context context = one_lane();
          CHECK(dequantize(context, operands.view(), matrix(w.data(), Dtype::kF32, 66, 77)).ok());
          // 16-bit values and few planes: the fp64 sums are exact in any order.
          for (int64_t m = 0; m < 66; ++m)
            for (int64_t k = 0; k < 77; ++k)
              CHECK(w[static_cast<size_t>(m * 77 + k)] == static_cast<float>(operands.weight(m, k)));
        }
}

LUTRA_TEST(packing, misuse_is_refused) {
  const PackedLayout layout = make_layout(17, 40, 32, 2, WeightKind::kUniform, OffsetKind::kNone, Dtype::kF16);
  std::vector<uint8_t> codes(17 * 40, 3);
  std::vector<uint32_t> words(static_cast<size_t>(layout.codes_words()));
  Context context = one_lane();
  const TensorView good = matrix(codes.data(), Dtype::kU8, 17, 40);
  const TensorView out = {words.data(), Dtype::kU8, 1, {4 * layout.codes_words()}};
  CHECK(pack_codes(context, layout, good, out).ok());
  codes[100] = 4;
  CHECK(pack_codes(context, layout, good, out).code == Code::kOption);
  CHECK(pack_codes(context, layout, matrix(codes.data(), Dtype::kU8, 40, 17), out).code == Code::kShape);
  CHECK(pack_codes(context, layout, matrix(codes.data(), Dtype::kF32, 17, 40), out).code == Code::kDtype);
  CHECK(pack_codes(context, layout, good, {words.data(), Dtype::kU8, 1, {4 * layout.codes_words() - 4}}).code ==
        Code::kShape);
  CHECK(pack_group_values(context, layout, 9, good, out).code == Code::kOption);
}
