// Sizes of packed weights from any eight numbers: what check_layout lets through must not overflow anywhere.
#include "fuzz/operands.h"

namespace {

void require(bool holds) {
  if (!holds) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lutra;
  fuzz::Input input(data, size);
  const auto number = [&] {
    const auto word = static_cast<int64_t>(input.word());
    return word >> (input.byte() % 64);
  };
  PackedLayout layout;
  layout.rows = number();
  layout.cols = number();
  layout.group_size = input.byte() & 1 ? layout.cols : number();
  layout.bits = narrowed<int>(number());
  layout.kind = narrowed<WeightKind>(number());
  layout.offset_kind = narrowed<OffsetKind>(number());
  layout.scale_dtype = narrowed<Dtype>(number());
  layout.offset_dtype = narrowed<Dtype>(number());
  if (!check_layout(layout).ok()) return 0;
  require(layout.tiles() >= 1 && layout.chunks() >= 1 && layout.groups() >= 1);
  require(layout.padded_rows() >= layout.rows && layout.padded_rows() % PackedLayout::kRowStep == 0);
  require(layout.codes_words() * 4 >= layout.padded_rows() * layout.bits);
  require(layout.scales_elements() * 4 > 0 && layout.offsets_elements() * 4 >= 0);
  const int64_t last = layout.tiles() - 1;
  const int64_t left = layout.tile_rows(last);
  require(left >= PackedLayout::kRowStep && left <= PackedLayout::kTileRows);
  require(layout.codes_at(last) + left * layout.chunks() * layout.bits == layout.codes_words());
  require(layout.scales_at(last) + left * layout.groups() * layout.scale_planes() == layout.scales_elements());
  SubBranch pair;
  pair.rank = number();
  pair.dtype = narrowed<Dtype>(number());
  pair.a = pair.b = &layout;
  if (check_sub_branch(layout, pair).ok()) require(pair.rank * layout.cols >= 0 && pair.rank * layout.rows >= 0);
  return 0;
}
