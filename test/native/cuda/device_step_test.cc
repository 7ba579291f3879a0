// The operators of a model step through the backend's C ABI, against the references of the processor's kernels.
#include <algorithm>
#include <array>
#include <cmath>

#include "core/half.h"
#include "cuda/lut_gemm/fragments.h"
#include "kernels/activation/activation.h"
#include "kernels/attention/attention.h"
#include "kernels/norm/norm.h"
#include "kernels/rope/rope.h"
#include "test_device.h"

using namespace lutra;
using namespace lutra::test;

namespace {

constexpr float kNan = NAN;
constexpr float kInfinity = INFINITY;
constexpr double kLimit = 1e-12;  // NMSE: the bound of `exact`

std::vector<float> drawn(size_t count, uint64_t seed) {
  std::vector<float> values(count);
  fill(values.data(), count, Distribution::kNormal, seed);
  return values;
}

struct Heads {
  int heads, kv_heads, head_dim;
};

// A cache of some capacity with queries behind it, as the processor's reference wants it and on the device.
struct AttentionCase {
  AttentionCase(Device& device, Heads heads, int tokens, int64_t capacity, int64_t window, uint64_t seed)
      : q(drawn(static_cast<size_t>(tokens * heads.heads * heads.head_dim), seed)),
        keys(drawn(static_cast<size_t>(capacity * heads.kv_heads * heads.head_dim), seed + 1)),
        values(drawn(keys.size(), seed + 2)) {
    op.bytes = sizeof op;
    op.cache_dtype = static_cast<int32_t>(Dtype::kF32);
    op.tokens = tokens;
    op.heads = heads.heads;
    op.kv_heads = heads.kv_heads;
    op.head_dim = heads.head_dim;
    op.capacity = capacity;
    op.window = window;
    op.q = device.uploaded(q);
    op.y = device.uploaded(std::vector<float>(q.size(), kNan));
    op.workspace = device.workspace(LUTRA_CUDA_OP_ATTENTION, op);
  }

  std::vector<float> run(Device& device, int32_t position) {
    op.position = device.uploaded(std::vector<int32_t>{position});
    op.keys = device.uploaded(keys);
    op.values = device.uploaded(values);
    device.launch(LUTRA_CUDA_OP_ATTENTION, op);
    return device.downloaded(op.y, q.size());
  }

  std::vector<double> answer(int64_t position) const {
    const int64_t stride = int64_t{op.kv_heads} * op.head_dim;
    std::vector<double> y(q.size());
    for (int64_t row = 0; row < int64_t{op.tokens} * op.heads; ++row) {
      const int64_t end = position + row / op.heads + 1;
      const int64_t begin = op.window > 0 ? std::max<int64_t>(0, end - op.window) : 0;
      const int64_t head = row % op.heads / (op.heads / op.kv_heads);
      const size_t from = static_cast<size_t>(begin * stride + head * op.head_dim);
      std::vector<double> weights(static_cast<size_t>(end - begin));
      const size_t at = static_cast<size_t>(row * op.head_dim);
      attention_reference(q.data() + at, keys.data() + from, values.data() + from, stride, end - begin, op.head_dim,
                          1.0 / std::sqrt(op.head_dim), weights.data(), y.data() + at);
    }
    return y;
  }

  LutraCudaAttention op = {};
  std::vector<float> q, keys, values;
};

struct Top {
  int32_t index;
  float value;
};

Top arg_max(Device& device, const std::vector<float>& x) {
  LutraCudaArgMax op = {};
  op.bytes = sizeof op;
  op.rows = 1;
  op.cols = static_cast<int64_t>(x.size());
  op.x = device.uploaded(x);
  op.index = device.uploaded(std::vector<int32_t>{-7});
  op.value = device.uploaded(std::vector<float>{kNan});
  op.workspace = device.workspace(LUTRA_CUDA_OP_ARG_MAX, op);
  device.launch(LUTRA_CUDA_OP_ARG_MAX, op);
  return {device.downloaded(op.index, 1)[0], device.downloaded(op.value, 1)[0]};
}

}  // namespace

LUTRA_TEST(cuda_step, fragments_are_made_on_the_device_as_on_the_host) {
  if (no_device()) return;
  for (int bits : {2, 3, 4})
    for (const auto& [rows, cols] : {std::array<int64_t, 2>{1, 1}, {16, 128}, {77, 300}, {130, 129}, {200, 33}}) {
      Device device;
      PackedLayout layout;
      layout.rows = rows;
      layout.cols = cols;
      layout.group_size = 32;
      layout.bits = bits;
      std::vector<uint32_t> tiles(static_cast<size_t>(layout.codes_words()));
      std::mt19937_64 random(static_cast<uint64_t>(rows + bits));
      for (uint32_t& word : tiles) word = static_cast<uint32_t>(random());
      std::vector<uint32_t> expected(static_cast<size_t>(cuda::fragment_words(layout)));
      CHECK(cuda::to_fragments(layout, tiles.data(), expected.data()).ok());
      LutraCudaFragments op = {};
      op.bytes = sizeof op;
      op.bits = bits;
      op.rows = rows;
      op.cols = cols;
      op.tiles = device.uploaded(tiles);
      op.fragments = device.uploaded(std::vector<uint32_t>(expected.size(), 0x5a5a5a5a));
      device.launch(LUTRA_CUDA_OP_FRAGMENTS, op);
      CHECK(device.downloaded(op.fragments, expected.size()) == expected);
    }
}

LUTRA_TEST(cuda_step, embedding_takes_rows_and_answers_nan_outside_the_table) {
  if (no_device()) return;
  Device device;
  constexpr size_t kWidth = 37;
  std::vector<float> table_rows = drawn(5 * kWidth, 3);
  std::vector<uint16_t> halves(table_rows.size());
  for (size_t i = 0; i < halves.size(); ++i) {
    halves[i] = float_to_bfloat16(table_rows[i]);
    table_rows[i] = bfloat16_to_float(halves[i]);
  }
  const std::vector<int32_t> ids = {4, 0, -1, 5, 2};
  LutraCudaEmbedding op = {};
  op.bytes = sizeof op;
  op.table_dtype = static_cast<int32_t>(Dtype::kBF16);
  op.tokens = 5;
  op.width = kWidth;
  op.table_rows = 5;
  op.table = device.uploaded(halves);
  op.ids = device.uploaded(ids);
  op.y = device.uploaded(std::vector<float>(5 * kWidth, 0.0f));
  device.launch(LUTRA_CUDA_OP_EMBEDDING, op);
  const std::vector<float> y = device.downloaded(op.y, 5 * kWidth);
  for (size_t i = 0; i < y.size(); ++i) {
    const int32_t id = ids[i / kWidth];
    CHECK(id < 0 || id > 4 ? std::isnan(y[i]) : y[i] == table_rows[static_cast<size_t>(id) * kWidth + i % kWidth]);
  }
}

LUTRA_TEST(cuda_step, rms_norm_adds_the_residual_first) {
  if (no_device()) return;
  for (size_t width : {1, 33, 512, 1300})
    for (bool adds : {false, true}) {
      Device device;
      constexpr size_t kTokens = 3;
      std::vector<float> x = drawn(kTokens * width, width);
      const std::vector<float> added = drawn(x.size(), width + 1), weight = drawn(width, 5);
      LutraCudaRmsNorm op = {};
      op.bytes = sizeof op;
      op.weight_dtype = static_cast<int32_t>(Dtype::kF32);
      op.epsilon = 1e-5f;
      op.tokens = kTokens;
      op.width = static_cast<int64_t>(width);
      op.x = device.uploaded(x);
      op.weight = device.uploaded(weight);
      op.y = device.uploaded(added);  // over what is added
      if (adds) op.added = op.y;
      device.launch(LUTRA_CUDA_OP_RMS_NORM, op);
      for (size_t i = 0; adds && i < x.size(); ++i) x[i] += added[i];
      CHECK(device.downloaded(op.x, x.size()) == x);
      std::vector<double> answer(x.size());
      for (size_t t = 0; t < kTokens; ++t)
        rms_norm_reference(x.data() + t * width, weight.data(), 1e-5f, answer.data() + t * width, op.width);
      CHECK_LE(nmse(device.downloaded(op.y, x.size()).data(), answer.data(), x.size()), kLimit);
    }
}

LUTRA_TEST(cuda_step, rope_turns_at_the_device_s_position_and_fills_the_caches) {
  if (no_device()) return;
  constexpr Heads kHeads = {6, 2, 10};
  constexpr size_t kTokens = 3, kCapacity = 8, kHalf = 5, kDim = 10;
  for (int32_t position : {0, 5, 7}) {
    Device device;
    const std::vector<float> q = drawn(kTokens * 60, 1), k = drawn(kTokens * 20, 2), v = drawn(kTokens * 20, 3);
    const std::vector<float> angles = drawn(kCapacity * kDim, 4);
    LutraCudaRope op = {};
    op.bytes = sizeof op;
    op.cache_dtype = static_cast<int32_t>(Dtype::kF32);
    op.tokens = kTokens;
    op.heads = kHeads.heads;
    op.kv_heads = kHeads.kv_heads;
    op.head_dim = kHeads.head_dim;
    op.capacity = kCapacity;
    op.position = device.uploaded(std::vector<int32_t>{position});
    op.cos_sin = device.uploaded(angles);
    op.q = device.uploaded(q);
    op.k = device.uploaded(k);
    op.v = device.uploaded(v);
    op.keys = device.uploaded(std::vector<float>(kCapacity * 20, -9.0f));
    op.values = device.uploaded(std::vector<float>(kCapacity * 20, -9.0f));
    device.launch(LUTRA_CUDA_OP_ROPE, op);
    const std::vector<float> turned_q = device.downloaded(op.q, q.size()), turned_k = device.downloaded(op.k, k.size());
    const auto keys = device.downloaded(static_cast<float*>(op.keys), kCapacity * 20);
    const auto values = device.downloaded(static_cast<float*>(op.values), kCapacity * 20);
    for (size_t row = 0; row < kCapacity; ++row)
      for (size_t i = 0; i < 20; ++i) {
        const size_t token = row - static_cast<size_t>(position);
        const bool written = row >= static_cast<size_t>(position) && token < kTokens;
        CHECK(keys[row * 20 + i] == (written ? turned_k[token * 20 + i] : -9.0f));
        CHECK(values[row * 20 + i] == (written ? v[token * 20 + i] : -9.0f));
      }
    for (size_t head = 0; head < kTokens * 6; ++head) {
      const size_t at = static_cast<size_t>(position) + head / 6;
      double answer[kDim];
      if (at >= kCapacity) {
        CHECK(std::equal(&q[head * kDim], &q[head * kDim] + kDim, &turned_q[head * kDim]));
        continue;
      }
      rope_reference(&q[head * kDim], &angles[at * kDim], &angles[at * kDim + kHalf], kHalf, answer);
      CHECK_LE(nmse(&turned_q[head * kDim], answer, kDim), kLimit);
    }
  }
}

LUTRA_TEST(cuda_step, attention_matches_the_reference) {
  if (no_device()) return;
  struct Shape {
    Heads heads;
    int tokens;
    int64_t capacity;
    int32_t position;
    int64_t window;
  };
  for (const Shape& shape : {Shape{{1, 1, 8}, 1, 1, 0, 0},
                             {{4, 2, 16}, 5, 64, 0, 0},
                             {{3, 3, 128}, 1, 400, 399, 0},
                             {{4, 1, 64}, 1, 300, 256, 0},
                             {{8, 1, 72}, 2, 700, 690, 100},
                             {{6, 2, 20}, 9, 600, 250, 300},
                             {{2, 1, 256}, 3, 130, 64, 1},
                             {{2, 2, 6}, 17, 90, 60, 0}}) {
    Device device;
    AttentionCase problem(device, shape.heads, shape.tokens, shape.capacity, shape.window, 11);
    const std::vector<float> y = problem.run(device, shape.position);
    CHECK_LE(nmse(y.data(), problem.answer(shape.position).data(), y.size()), kLimit);
    CHECK(problem.run(device, shape.position) == y);
  }
}

LUTRA_TEST(cuda_step, attention_has_the_same_bits_for_a_token_alone_and_among_others) {
  if (no_device()) return;
  constexpr Heads kHeads = {4, 2, 24};
  constexpr int32_t kFirst = 254;  // the third token opens the second range
  Device device;
  AttentionCase together(device, kHeads, 6, 600, 0, 5);
  const std::vector<float> all = together.run(device, kFirst);
  const size_t width = 4 * 24;
  for (int32_t token = 0; token < 6; ++token) {
    AttentionCase alone(device, kHeads, 1, 600, 0, 5);
    const size_t at = static_cast<size_t>(token) * width;
    alone.q.assign(together.q.begin() + static_cast<long>(at), together.q.begin() + static_cast<long>(at + width));
    alone.keys = together.keys;
    alone.values = together.values;
    alone.op.q = device.uploaded(alone.q);
    const std::vector<float> y = alone.run(device, kFirst + token);
    CHECK(std::equal(y.begin(), y.end(), all.begin() + static_cast<long>(at)));
  }
}

LUTRA_TEST(cuda_step, attention_sees_no_row_past_its_position_and_hides_no_nan_before_it) {
  if (no_device()) return;
  constexpr Heads kHeads = {2, 1, 16};
  constexpr int32_t kPosition = 70;
  Device device;
  AttentionCase problem(device, kHeads, 2, 320, 0, 7);
  std::fill(problem.keys.begin() + 72 * 16, problem.keys.end(), kNan);
  std::fill(problem.values.begin() + 72 * 16, problem.values.end(), kNan);
  const std::vector<float> y = problem.run(device, kPosition);
  CHECK_LE(nmse(y.data(), problem.answer(kPosition).data(), y.size()), kLimit);
  problem.values[71 * 16 + 3] = kNan;  // the second token's own
  const std::vector<float> spoiled = problem.run(device, kPosition);
  for (size_t i = 0; i < spoiled.size(); ++i)
    CHECK(i >= 32 && i % 16 == 3 ? std::isnan(spoiled[i]) : spoiled[i] == y[i]);
  problem.keys[5 * 16] = kNan;
  for (float value : problem.run(device, kPosition)) CHECK(std::isnan(value));
}

LUTRA_TEST(cuda_step, swiglu_matches_the_reference_at_all_sizes) {
  if (no_device()) return;
  Device device;
  std::vector<float> gate = drawn(700, 1);
  const std::vector<float> up = drawn(700, 2);
  gate[0] = -200.0f;
  gate[1] = 200.0f;
  gate[2] = kNan;
  LutraCudaSwiglu op = {};
  op.bytes = sizeof op;
  op.count = 700;
  op.gate = op.y = device.uploaded(gate);
  op.up = device.uploaded(up);
  device.launch(LUTRA_CUDA_OP_SWIGLU, op);
  const std::vector<float> y = device.downloaded(op.y, gate.size());
  std::vector<double> answer(gate.size());
  swiglu_reference(gate.data(), up.data(), answer.data(), 700);
  CHECK(std::fabs(y[0]) <= 1e-30f && y[1] == 200.0f * up[1] && std::isnan(y[2]));
  CHECK_LE(nmse(y.data() + 3, answer.data() + 3, gate.size() - 3), kLimit);
}

LUTRA_TEST(cuda_step, arg_max_takes_the_lowest_index_and_tells_of_nan) {
  if (no_device()) return;
  Device device;
  for (size_t count : {1, 300, 5000, 40000}) {
    std::vector<float> x = drawn(count, count);
    const size_t best = count * 2 / 3;
    x[best] = x[count - 1] = 100.0f;
    const Top top = arg_max(device, x);
    CHECK(top.index == static_cast<int32_t>(best) && top.value == 100.0f);
    x[best] = kInfinity;
    CHECK(arg_max(device, x).value == kInfinity);
    x[count / 2] = kNan;
    const Top spoiled = arg_max(device, x);
    CHECK(std::isnan(spoiled.value) &&
          spoiled.index == (count / 2 == best || count == 1 ? 0 : static_cast<int32_t>(best)));
  }
  std::vector<float> lowest(600, -kInfinity);
  CHECK(arg_max(device, lowest).index == 0);
  lowest[0] = kNan;
  lowest[5] = 1.0f;
  CHECK(arg_max(device, lowest).index == 0);
}

LUTRA_TEST(cuda_step, one_recorded_step_serves_every_position) {
  if (no_device()) return;
  constexpr Heads kHeads = {4, 2, 8};
  constexpr int64_t kCapacity = 300;
  Device device;
  AttentionCase problem(device, kHeads, 1, kCapacity, 0, 9);
  int32_t* const position = device.uploaded(std::vector<int32_t>{0});
  std::vector<float> angles(static_cast<size_t>(kCapacity) * 8, 0.0f);
  for (size_t row = 0; row < static_cast<size_t>(kCapacity); ++row)
    for (size_t i = 0; i < 4; ++i) angles[row * 8 + i] = 1.0f;  // no turn: keys go in as they are
  LutraCudaRope rope = {};
  rope.bytes = sizeof rope;
  rope.cache_dtype = static_cast<int32_t>(Dtype::kF32);
  rope.tokens = 1;
  rope.kv_heads = 2;
  rope.head_dim = 8;
  rope.capacity = kCapacity;
  rope.position = problem.op.position = position;
  rope.cos_sin = device.uploaded(angles);
  rope.k = device.uploaded(std::vector<float>(16));
  rope.v = device.uploaded(std::vector<float>(16));
  rope.keys = device.uploaded(std::vector<float>(problem.keys.size(), kNan));
  rope.values = device.uploaded(std::vector<float>(problem.keys.size(), kNan));
  problem.op.keys = rope.keys;
  problem.op.values = rope.values;
  LutraCudaGraph* graph = nullptr;
  device.expect(table()->begin_capture(device.context(), nullptr));
  device.launch(LUTRA_CUDA_OP_ROPE, rope);
  device.launch(LUTRA_CUDA_OP_ATTENTION, problem.op);
  device.expect(table()->end_capture(device.context(), nullptr, &graph));
  for (int32_t step = 0; step < 260; ++step) {
    const size_t row = static_cast<size_t>(step) * 16;
    const auto upload = [&](const void* to, const void* from, size_t bytes) {
      device.expect(table()->upload(device.context(), nullptr, const_cast<void*>(to), from, bytes));
    };
    upload(position, &step, sizeof step);
    upload(rope.k, &problem.keys[row], 16 * sizeof(float));
    upload(rope.v, &problem.values[row], 16 * sizeof(float));
    device.expect(table()->replay(device.context(), nullptr, graph));
    if (step % 51 > 1) continue;
    const std::vector<float> y = device.downloaded(problem.op.y, problem.q.size());
    CHECK_LE(nmse(y.data(), problem.answer(step).data(), y.size()), kLimit);
  }
}

LUTRA_TEST(cuda_step, steps_refuse_what_they_cannot_do) {
  if (no_device()) return;
  Device device;
  float* const some = device.uploaded(std::vector<float>(64));
  const auto refused = [&](int32_t number, const auto& op) {
    CHECK(device.launched(number, op) == LUTRA_CUDA_ARGUMENT);
  };
  LutraCudaRmsNorm norm = {sizeof norm, 0, -1.0f, 0, 1, 8, some, nullptr, some, some};
  refused(LUTRA_CUDA_OP_RMS_NORM, norm);
  norm.epsilon = 0.0f;
  norm.width = 0;
  refused(LUTRA_CUDA_OP_RMS_NORM, norm);
  norm.width = 8;
  norm.weight_dtype = static_cast<int32_t>(Dtype::kI8);
  refused(LUTRA_CUDA_OP_RMS_NORM, norm);
  refused(LUTRA_CUDA_OP_SWIGLU, LutraCudaSwiglu{sizeof(LutraCudaSwiglu), 0, int64_t{1} << 60, some, some, some});
  refused(LUTRA_CUDA_OP_EMBEDDING, LutraCudaEmbedding{});
  LutraCudaAttention attention = {};
  attention.bytes = sizeof attention;
  attention.tokens = 1;
  attention.heads = 3;
  attention.kv_heads = 2;
  attention.head_dim = 8;
  attention.capacity = 4;
  refused(LUTRA_CUDA_OP_ATTENTION, attention);
  attention.kv_heads = 3;
  attention.tokens = 5;
  refused(LUTRA_CUDA_OP_ATTENTION, attention);
  uint64_t bytes = 0;
  CHECK(table()->workspace(device.context(), LUTRA_CUDA_OP_ATTENTION, &attention, &bytes) == LUTRA_CUDA_ARGUMENT);
  LutraCudaRope rope = {};
  rope.bytes = sizeof rope;
  rope.tokens = 1;
  rope.heads = 1;
  rope.head_dim = 3;
  rope.capacity = 4;
  rope.position = reinterpret_cast<int32_t*>(some);
  rope.q = some;
  refused(LUTRA_CUDA_OP_ROPE, rope);
  norm.weight_dtype = 0;
  device.launch(LUTRA_CUDA_OP_RMS_NORM, norm);  // and go on
}
