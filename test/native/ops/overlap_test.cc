// Results that share memory with operands: refused, where they would depend on who writes first.
#include "../operands.h"
#include "ops/linear.h"
#include "ops/transformer.h"
#include "quantize/column_order.h"

using namespace lutra;
using namespace lutra::test;

namespace {

// Views into one block of memory.
struct Block {
  std::vector<double> memory = std::vector<double>(4096);
  TensorView at(size_t byte, std::initializer_list<int64_t> shape, Dtype dtype = Dtype::kF32) {
    TensorView view;
    view.data = reinterpret_cast<uint8_t*>(memory.data()) + byte;
    view.dtype = dtype;
    for (int64_t size : shape) view.shape[view.rank++] = size;
    return view;
  }
};

constexpr size_t kFar = 8192;
constexpr size_t kLast = 4 * 8 * sizeof(float) - sizeof(float);  // where f32 [4,8] from 0 has its last element

}  // namespace

LUTRA_TEST(ops, results_may_not_overlap_operands) {
  Lanes lanes(2);
  Context& c = lanes.context;
  Block block;
  const TensorView x = block.at(0, {4, 8}), far = block.at(kFar, {4, 8}), near = block.at(kLast, {4, 8});
  const TensorView square = block.at(kFar, {8, 8}), line = block.at(kLast, {8}), far_line = block.at(kFar, {8});
  const TensorView ids = block.at(2 * kFar, {4}, Dtype::kI32);
  const auto refused = [](const Status& status) { return status.code == Code::kOption; };

  CHECK(linear(c, x, square, block.at(2 * kFar, {4, 8})).ok());
  CHECK(refused(linear(c, x, square, near)));
  CHECK(refused(linear(c, x, square, x)));
  CHECK(refused(linear(c, x, square, block.at(kFar + 64, {4, 8}))));
  CHECK(refused(add_bias(c, x, line)));
  CHECK(refused(accumulate_gram(c, x, block.at(kLast - 4, {8, 8}, Dtype::kF64))));
  CHECK(refused(embedding(c, x, ids, near)));
  CHECK(refused(cache_append(c, near, x, 0)));
  CHECK(refused(rope(c, x, near, 8, 0)));
  CHECK(refused(rms_norm(c, x, far_line, 0.0f, near)));
  CHECK(refused(rms_norm(c, x, line, 0.0f, x)));
  CHECK(rms_norm(c, x, far_line, 1.0f, x).ok());
  CHECK(refused(swiglu(c, x, far, near)));
  CHECK(refused(swiglu(c, far, x, near)));
  CHECK(swiglu(c, x, far, far).ok());
  CHECK(refused(add(c, x, near)));
  CHECK(add(c, x, x).ok());
  CHECK(refused(softmax(c, x, near)));
  CHECK(softmax(c, x, x).ok());
  const TensorView other = block.at(2 * kFar, {4, 8});
  const AttentionShape shape{2, 2, 4, 0, 0};
  CHECK(attention(c, x, far, other, shape, block.at(kFar + 512, {4, 8})).ok());
  CHECK(refused(attention(c, x, far, other, shape, near)));
  CHECK(refused(attention(c, far, x, other, shape, near)));
  CHECK(refused(attention(c, far, other, x, shape, near)));
  CHECK(refused(convert(c, x, block.at(kLast, {4, 8}, Dtype::kF16))));
  CHECK(convert(c, x, block.at(kLast + sizeof(float), {4, 8}, Dtype::kF16)).ok());

  const TensorView order = block.at(2 * kFar, {8}, Dtype::kI32);
  for (int32_t i = 0; i < 8; ++i) order.as<int32_t>()[i] = i;
  const TensorView hessian = block.at(0, {8, 8}, Dtype::kF64);
  CHECK(refused(prepare_hessian(c, hessian, order, 0.0, hessian)));
  CHECK(refused(gather_columns(c, x, order, near)));
}
