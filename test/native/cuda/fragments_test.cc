// The device's order of codes: an exact inverse of the tiles' order, each bit once, padding zero.
#include "cuda/lut_gemm/fragments.h"

#include <algorithm>
#include <array>

#include "../parity/lut_gemm_cases.h"

using namespace lutra;
using namespace lutra::cuda;
using namespace lutra::test;

namespace {

uint64_t set_bits(const uint32_t* words, int64_t count) {
  uint64_t bits = 0;
  for (int64_t i = 0; i < count; ++i) bits += static_cast<uint64_t>(__builtin_popcount(words[i]));
  return bits;
}

}  // namespace

LUTRA_TEST(cuda, fragments_are_an_exact_inverse_of_tiles) {
  for (int bits : {2, 3, 4})
    for (const auto& [rows, cols] :
         {std::array<int64_t, 2>{1, 1}, {16, 128}, {17, 129}, {64, 32}, {65, 300}, {200, 1}}) {
      LutCase problem;
      problem.layout = make_layout(rows, cols, cols, bits, WeightKind::kUniform, OffsetKind::kNone, Dtype::kF16);
      LutOperands operands(problem);
      const int64_t tile_words = problem.layout.codes_words();
      Guarded<uint32_t> fragments(static_cast<size_t>(fragment_words(problem.layout)));
      Guarded<uint32_t> back(static_cast<size_t>(tile_words));
      CHECK(to_fragments(problem.layout, operands.words(), fragments.data()).ok());
      CHECK(set_bits(fragments.data(), fragment_words(problem.layout)) == set_bits(operands.words(), tile_words));
      for (int64_t i = 0; i < rows * cols; i += 7)
        CHECK(fragment_code(problem.layout, fragments.data(), i / cols, i % cols) ==
              operands.codes()[static_cast<size_t>(i)]);
      CHECK(from_fragments(problem.layout, fragments.data(), back.data()).ok());
      CHECK(std::equal(back.data(), back.data() + tile_words, operands.words()));
    }
}

LUTRA_TEST(cuda, fragments_have_a_place_of_its_own_for_every_bit) {
  for (int bits : {2, 3, 4}) {
    std::vector<int> uses(static_cast<size_t>(unit_lane_words(bits)) * 16, 0);
    for (int q = 0; q < 4 * kUnitSteps; ++q)
      for (int j = 0; j < bits; ++j) {
        const FragmentPlace place = fragment_place(bits, q, j);
        ++uses[static_cast<size_t>(place.word * 16 + place.bit)];
      }
    CHECK(std::count(uses.begin(), uses.end(), 1) == static_cast<int64_t>(uses.size()));
    std::vector<int> words(static_cast<size_t>(unit_words(bits)), 0);
    for (int lane = 0; lane < kWarp; ++lane)
      for (int w = 0; w < unit_lane_words(bits); ++w) ++words[static_cast<size_t>(unit_word_at(bits, lane, w))];
    CHECK(std::count(words.begin(), words.end(), 1) == static_cast<int64_t>(words.size()));
  }
}

LUTRA_TEST(cuda, fragments_refuse_widths_without_a_kernel) {
  uint32_t word = 0;
  for (int bits : {1, 5, 8}) {
    const PackedLayout layout = make_layout(1, 1, 1, bits, WeightKind::kUniform, OffsetKind::kNone, Dtype::kF16);
    CHECK(to_fragments(layout, &word, &word).code == Code::kUnsupported);
    CHECK(from_fragments(layout, &word, &word).code == Code::kUnsupported);
  }
}
