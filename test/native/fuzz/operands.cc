#include "fuzz/operands.h"

#include <cstring>
#include <limits>

namespace lutra::fuzz {

namespace {

constexpr int64_t kSizes[] = {0, 1, 2, 3, 4, 6, 8, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 96, 130};
constexpr int64_t kMostElements = 1 << 14;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
// The first half are numbers that one meets.
constexpr float kValues[] = {0.5F,  -1, 0.25F,  2,      1e-3F,   -0.75F, 1,         3,
                             3e38F, 0,  1e-40F, -3e38F, -1e-40F, -0.0F,  kInfinity, kNan};
constexpr uint16_t kHalves[] = {0x3800, 0xbc00, 0x3400, 0x4000, 0x1419, 0xba00, 0x3c00, 0x4200,
                                0x7bff, 0x0000, 0x0001, 0xfbff, 0x8001, 0x8000, 0x7c00, 0x7e00};
constexpr double kParameters[] = {0,     1,     2,      3,      4,      5,      6,      8,       16,
                                  32,    64,    -1,     0.5,    1e-3,   0.01,   2.4,    10,      1e-300,
                                  0x1p7, 0x1p8, 0x1p16, 0x1p31, 0x1p32, 0x1p52, 0x1p53, -0x1p53, -0x1p31};

uint32_t mixed(uint32_t x) {
  x ^= x >> 16;
  x *= 0x85ebca6bU;
  x ^= x >> 13;
  x *= 0xc2b2ae35U;
  return x ^ x >> 16;
}

template <typename T>
void put(const TensorView& view, int64_t i, T value) {
  std::memcpy(view.as<uint8_t>() + static_cast<size_t>(i) * sizeof(T), &value, sizeof(T));
}

void put_real(const TensorView& view, int64_t i, size_t which) {
  if (view.dtype == Dtype::kF32) put(view, i, kValues[which]);
  if (view.dtype == Dtype::kF64) put(view, i, static_cast<double>(kValues[which]));
  if (view.dtype == Dtype::kF16 || view.dtype == Dtype::kBF16) put(view, i, kHalves[which]);
}

bool is_real(Dtype dtype) { return dtype != Dtype::kU8 && dtype != Dtype::kI8 && dtype != Dtype::kI32; }

}  // namespace

Operands::Operands(Input& input) : input_(input) {
  for (int64_t& size : sizes_) size = input.pick(kSizes);
}

int64_t Operands::size() {
  const uint8_t choice = input_.byte();
  const int64_t first = sizes_[choice & 3];
  const int64_t second = sizes_[(choice >> 2) & 3];
  switch (choice >> 4) {
    case 0:
    case 1:
    case 2:
      return input_.pick(kSizes);
    case 3:
      return 1;
    case 4:
      return second ? ceil_div(first, second) : first;
    case 5:
      return first * second <= 256 ? first * second : second;
    case 6:
      return first + 1;
    default:
      return first;
  }
}

uint8_t* Operands::block(size_t bytes, size_t slack) {
  blocks_.push_back(std::make_unique<uint8_t[]>(bytes + slack));
  return blocks_.back().get() + slack;
}

void Operands::fill(const TensorView& view, int kind) {
  const int64_t n = view.elements();
  const uint32_t seed = input_.byte();
  uint8_t* bytes = view.as<uint8_t>();
  if (kind == 0) return;  // zeros
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t random = mixed(static_cast<uint32_t>(i) * 0x9e3779b9U + seed);
    if (kind == 1 && is_real(view.dtype)) {
      put_real(view, i, random % 8);
    } else if (kind == 2 && is_real(view.dtype)) {
      put_real(view, i, random % 16);
    } else if (kind == 3 && is_real(view.dtype)) {
      // One on the diagonal, zero beside it: what factorisations like.
      put_real(view, i, view.cols() && i / view.cols() == i % view.cols() ? 6 : 9);
    } else if (kind <= 3 && view.dtype == Dtype::kI32) {
      put(view, i, static_cast<int32_t>(kind == 1 ? i : random % 8));
    } else if (kind <= 3) {
      bytes[i] = static_cast<uint8_t>(kind == 1 ? random % 4 : random);
    } else {
      for (size_t b = 0; b < dtype_bytes(view.dtype); ++b)
        bytes[static_cast<size_t>(i) * dtype_bytes(view.dtype) + b] = static_cast<uint8_t>(mixed(random + b));
    }
  }
}

TensorView Operands::filled(Dtype dtype, std::vector<int64_t> shape) {
  TensorView view;
  view.dtype = dtype;
  view.rank = static_cast<int>(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) view.shape[i] = shape[i];
  while (view.rank > 1 && view.elements() > kMostElements) --view.rank;
  // Aligned to its elements and to nothing more, as rows of a larger tensor are.
  view.data = block(view.bytes(), dtype_bytes(dtype) * (input_.byte() % 4));
  fill(view, input_.byte() % 5);
  return view;
}

TensorView Operands::tensor() {
  const uint8_t choice = input_.byte();
  if (choice < 24 && !tensors_.empty()) {
    TensorView view = tensors_[choice % tensors_.size()];
    if (choice >= 16 && view.shape[0] > 1) --view.shape[0];
    return view;
  }
  constexpr Dtype kTypes[] = {Dtype::kF32, Dtype::kF32, Dtype::kF32, Dtype::kF16, Dtype::kBF16,
                              Dtype::kF64, Dtype::kU8,  Dtype::kI32, Dtype::kI8};
  const Dtype dtype = input_.pick(kTypes);
  std::vector<int64_t> shape;
  constexpr int kRanks[] = {2, 2, 2, 1, 1, 3, 4};
  const int rank = input_.pick(kRanks);
  for (int i = 0; i < rank; ++i) shape.push_back(size());
  tensors_.push_back(filled(dtype, shape));
  return tensors_.back();
}

PackedView Operands::packed() {
  constexpr Dtype kStored[] = {Dtype::kF16, Dtype::kBF16, Dtype::kF32};
  PackedView view;
  PackedLayout& layout = view.layout;
  layout.rows = sizes_[0] + 1;
  layout.cols = sizes_[1] + 1;
  if (input_.byte() & 1) layout.cols = round_up(layout.cols, 32);
  layout.bits = 1 + input_.byte() % 8;
  constexpr int64_t kGroups[] = {16, 32, 64, 128, 0};
  layout.group_size = input_.pick(kGroups);
  if (!layout.group_size) layout.group_size = layout.cols;
  layout.kind = static_cast<WeightKind>(input_.byte() % 2);
  layout.offset_kind = static_cast<OffsetKind>(input_.byte() % 3);
  layout.scale_dtype = input_.pick(kStored);
  layout.offset_dtype = input_.pick(kStored);
  if (!check_layout(layout).ok()) layout.offset_kind = OffsetKind::kReal;
  if (!check_layout(layout).ok()) __builtin_trap();
  view.codes = reinterpret_cast<uint32_t*>(block(static_cast<size_t>(layout.codes_words()) * 4, 0));
  std::memset(const_cast<uint32_t*>(view.codes), input_.byte(), static_cast<size_t>(layout.codes_words()) * 4);
  view.scales = filled(layout.scale_dtype, {layout.scales_elements()}).data;
  const Dtype offset = layout.offset_kind == OffsetKind::kZeroCode ? Dtype::kU8 : layout.offset_dtype;
  if (layout.offsets_elements()) view.offsets = filled(offset, {layout.offsets_elements()}).data;
  SubBranch& pair = view.sub_branch;
  pair.rank = input_.byte() % 4;
  constexpr Dtype kPairs[] = {Dtype::kF16, Dtype::kBF16, Dtype::kI8};
  pair.dtype = input_.pick(kPairs);
  if (pair.rank > layout.rows || pair.rank > layout.cols) pair.rank = 0;
  if (pair.rank) {
    pair.a = filled(pair.dtype, {pair.rank, layout.cols}).data;
    pair.b = filled(pair.dtype, {layout.rows, pair.rank}).data;
    pair.a_scales = filled(Dtype::kF32, {pair.rank}).as<float>();
    pair.b_scales = filled(Dtype::kF32, {layout.rows}).as<float>();
  }
  return view;
}

double Operands::parameter() {
  const uint8_t choice = input_.byte();
  return choice & 1 ? static_cast<double>(size()) : kParameters[(choice >> 1) % std::size(kParameters)];
}

int64_t Operands::position() { return input_.byte() & 3 ? size() : static_cast<int64_t>(input_.word() % (1ULL << 40)); }

}  // namespace lutra::fuzz
