// The operators of a step as launches: shapes are checked as the processor's operators check them.
#include "ops/operand.h"
#include "program/device_program.h"

namespace lutra {

namespace {

constexpr int64_t kMostTokens = int64_t{1} << 24;

// f32 [n, d] with elements, as activations are.
Status require_rows(const TensorView& t, const char* what) {
  LUTRA_TRY(require_rank(t, 2, what));
  LUTRA_TRY(require_dtype(t, Dtype::kF32, what));
  return t.elements() > 0 && t.shape[0] <= kMostTokens ? ok_status() : error(Code::kShape, what, t.elements(), 1);
}

// Whether two runs of f32 share no memory: what is launched together has no order.
bool apart(const void* a, int64_t a_floats, const void* b, int64_t b_floats) {
  const uintptr_t a0 = reinterpret_cast<uintptr_t>(a);
  const uintptr_t b0 = reinterpret_cast<uintptr_t>(b);
  return a0 + static_cast<uintptr_t>(a_floats) * 4 <= b0 || b0 + static_cast<uintptr_t>(b_floats) * 4 <= a0;
}

template <typename Op>
Op sized() {
  Op op = {};
  op.bytes = sizeof op;
  return op;
}

LutraCudaMatrix matrix_of(const PackedView& view) {
  const PackedLayout& layout = view.layout;
  const SubBranch& branch = view.sub_branch;
  LutraCudaMatrix w = {};
  w.rows = layout.rows;
  w.cols = layout.cols;
  w.group_size = layout.group_size;
  w.bits = layout.bits;
  w.kind = static_cast<int32_t>(layout.kind);
  w.offset_kind = static_cast<int32_t>(layout.offset_kind);
  w.scale_dtype = static_cast<int32_t>(layout.scale_dtype);
  w.offset_dtype = static_cast<int32_t>(layout.offset_dtype);
  w.branch_dtype = static_cast<int32_t>(branch.dtype);
  w.branch_rank = branch.rank;
  w.codes = view.codes;
  w.scales = view.scales;
  w.offsets = view.offsets;
  w.branch_a = branch.a;
  w.branch_b = branch.b;
  w.branch_a_scales = branch.a_scales;
  w.branch_b_scales = branch.b_scales;
  return w;
}

}  // namespace

Status DeviceProgram::lut_gemm(std::span<const TensorView> t, std::span<const PackedView> packed, Mode mode,
                               bool batch_invariant) {
  const TensorView& x = t[0];
  LUTRA_TRY(require_rows(x, "lut_gemm: x must be f32 [n, k]"));
  const int parts = mode == Mode::kExact ? 3 : mode == Mode::kAccurate ? 2 : 1;
  // Up to 32 columns a token's bits are its own; the kernels for more cut the weights' columns by the number of tokens.
  const int64_t together = batch_invariant ? (mode == Mode::kExact ? 10 : 16) : LUTRA_CUDA_MAX_TOKENS;
  for (size_t i = 0; i < packed.size(); ++i) {
    const PackedLayout& layout = packed[i].layout;
    const TensorView& y = t[i + 1];
    LUTRA_TRY(require_rows(y, "lut_gemm: y must be f32 [n, m]"));
    LUTRA_TRY(require_equal(x.shape[1], layout.cols, "lut_gemm: columns of x, against columns of the weights"));
    LUTRA_TRY(require_equal(y.shape[0], x.shape[0], "lut_gemm: rows of y, against rows of x"));
    LUTRA_TRY(require_equal(y.shape[1], layout.rows, "lut_gemm: columns of y, against rows of the weights"));
    LUTRA_TRY(require_apart(y, x, "lut_gemm: y may not overlap x"));
    for (int64_t token = 0; token < x.shape[0]; token += together) {
      auto op = sized<LutraCudaLutGemm>();
      op.tokens = static_cast<int32_t>(std::min(together, x.shape[0] - token));
      op.parts = parts;
      op.x_dtype = op.y_dtype = static_cast<int32_t>(Dtype::kF32);
      op.w = matrix_of(packed[i]);
      op.x = x.as<float>() + token * layout.cols;
      op.y = y.as<float>() + token * layout.rows;
      launches_.push_back(op);
    }
  }
  return ok_status();
}

Status DeviceProgram::linear(std::span<const TensorView> t) {
  const TensorView &x = t[0], &weight = t[1], &y = t[2];
  LUTRA_TRY(require_rows(x, "linear: x must be f32 [n, k]"));
  LUTRA_TRY(require_rows(y, "linear: y must be f32 [n, m]"));
  LUTRA_TRY(require_rank(weight, 2, "linear: weight must have 2 dimensions"));
  LUTRA_TRY(require_weight_dtype(weight, "linear: weight must be f32, f16 or bf16"));
  LUTRA_TRY(require_equal(weight.shape[1], x.shape[1], "linear: columns of weight, against columns of x"));
  LUTRA_TRY(require_equal(y.shape[0], x.shape[0], "linear: rows of y, against rows of x"));
  LUTRA_TRY(require_equal(y.shape[1], weight.shape[0], "linear: columns of y, against rows of weight"));
  LUTRA_TRY(require_apart(y, x, "linear: y may not overlap x"));
  auto op = sized<LutraCudaMatrixVector>();
  op.tokens = static_cast<int32_t>(x.shape[0]);
  op.m_dtype = static_cast<int32_t>(weight.dtype);
  op.x_dtype = static_cast<int32_t>(Dtype::kF32);
  op.rows = weight.shape[0];
  op.cols = weight.shape[1];
  op.m = weight.data;
  op.x = x.data;
  op.y = y.as<float>();
  launches_.push_back(op);
  return ok_status();
}

Status DeviceProgram::add_bias(std::span<const TensorView> t) {
  const TensorView &y = t[0], &bias = t[1];
  LUTRA_TRY(require_rows(y, "add_bias: y must be f32 [n, m]"));
  LUTRA_TRY(require_rank(bias, 1, "add_bias: bias must have 1 dimension"));
  LUTRA_TRY(require_dtype(bias, Dtype::kF32, "add_bias: bias must be f32"));
  LUTRA_TRY(require_equal(bias.shape[0], y.shape[1], "add_bias: elements of bias, against columns of y"));
  LUTRA_TRY(require_apart(y, bias, "add_bias: y may not overlap bias"));
  launches_.push_back(
      LutraCudaAdd{sizeof(LutraCudaAdd), 0, y.elements(), bias.shape[0], bias.as<float>(), y.as<float>()});
  return ok_status();
}

Status DeviceProgram::embedding(std::span<const TensorView> t) {
  const TensorView &table = t[0], &ids = t[1], &y = t[2];
  LUTRA_TRY(require_rank(table, 2, "embedding: table must have 2 dimensions"));
  LUTRA_TRY(require_weight_dtype(table, "embedding: table must be f32, f16 or bf16"));
  LUTRA_TRY(require_rank(ids, 1, "embedding: ids must have 1 dimension"));
  LUTRA_TRY(require_dtype(ids, Dtype::kI32, "embedding: ids must be i32"));
  LUTRA_TRY(require_rows(y, "embedding: y must be f32 [n, d]"));
  LUTRA_TRY(require_equal(y.shape[0], ids.shape[0], "embedding: rows of y, against ids"));
  LUTRA_TRY(require_equal(y.shape[1], table.shape[1], "embedding: columns of y, against columns of table"));
  auto op = sized<LutraCudaEmbedding>();
  op.table_dtype = static_cast<int32_t>(table.dtype);
  op.tokens = y.shape[0];
  op.width = y.shape[1];
  op.table_rows = table.shape[0];
  op.table = table.data;
  op.ids = ids.as<int32_t>();
  op.y = y.as<float>();
  launches_.push_back(op);
  return ok_status();
}

Status DeviceProgram::rms_norm(std::span<const TensorView> t, float epsilon) {
  const TensorView &x = t[0], &weight = t[1], &y = t[2];
  LUTRA_TRY(require_rows(x, "rms_norm: x must be f32 [n, d]"));
  LUTRA_TRY(require_rows(y, "rms_norm: y must be f32 [n, d]"));
  LUTRA_TRY(require_rank(weight, 1, "rms_norm: weight must have 1 dimension"));
  LUTRA_TRY(require_weight_dtype(weight, "rms_norm: weight must be f32, f16 or bf16"));
  LUTRA_TRY(require_same_shape(x, y, "rms_norm: shape of y, against shape of x"));
  LUTRA_TRY(require_same_or_apart(y, x, "rms_norm: y may be x, or not overlap it"));
  LUTRA_TRY(require_equal(weight.shape[0], x.shape[1], "rms_norm: elements of weight, against columns of x"));
  if (!(epsilon >= 0)) return error(Code::kOption, "rms_norm: epsilon is negative or NaN");
  auto op = sized<LutraCudaRmsNorm>();
  op.weight_dtype = static_cast<int32_t>(weight.dtype);
  op.epsilon = epsilon;
  op.tokens = x.shape[0];
  op.width = x.shape[1];
  op.x = x.as<float>();
  op.weight = weight.data;
  op.y = y.as<float>();
  // The sum before it, where that is of exactly these rows.
  const LutraCudaAdd* const sum = last<LutraCudaAdd>();
  if (sum && sum->y == op.x && sum->count == x.elements() && sum->period == sum->count && op.y != op.x &&
      (op.y == sum->u || apart(op.y, sum->count, sum->u, sum->count))) {
    op.added = sum->u;
    launches_.pop_back();
  }
  launches_.push_back(op);
  return ok_status();
}

Status DeviceProgram::rope(std::span<const TensorView> t, int64_t head_dim) {
  const TensorView &x = t[0], &cos_sin = t[1];
  LUTRA_TRY(require_rows(x, "rope: x must be f32 [n, width]"));
  LUTRA_TRY(require_rows(cos_sin, "rope: cos_sin must be f32 [positions, head_dim]"));
  if (head_dim < 2 || head_dim % 2) return error(Code::kOption, "rope: head_dim must be positive and even", head_dim);
  if (x.shape[1] % head_dim) return error(Code::kShape, "rope: columns of x must be whole heads", x.shape[1], head_dim);
  LUTRA_TRY(require_equal(cos_sin.shape[1], head_dim, "rope: columns of cos_sin, against head_dim"));
  LUTRA_TRY(require_apart(x, cos_sin, "rope: x may not overlap cos_sin"));
  LUTRA_TRY(fits_position(x.shape[0], cos_sin.shape[0]));
  const int32_t heads = static_cast<int32_t>(x.shape[1] / head_dim);
  LutraCudaRope* const q = last<LutraCudaRope>();
  if (q && q->q && !q->k && !q->v && q->cos_sin == cos_sin.as<float>() && q->tokens == x.shape[0] &&
      q->head_dim == head_dim && q->capacity == cos_sin.shape[0] &&
      apart(q->q, int64_t{q->tokens} * q->heads * q->head_dim, x.data, x.elements())) {
    q->k = x.as<float>();
    q->kv_heads = heads;
    return ok_status();
  }
  auto op = sized<LutraCudaRope>();
  op.tokens = static_cast<int32_t>(x.shape[0]);
  op.heads = heads;
  op.head_dim = static_cast<int32_t>(head_dim);
  op.capacity = cos_sin.shape[0];
  op.position = reinterpret_cast<const int32_t*>(position_.data());
  op.cos_sin = cos_sin.as<float>();
  op.q = x.as<float>();
  launches_.push_back(op);
  return ok_status();
}

Status DeviceProgram::cache_append(std::span<const TensorView> t) {
  const TensorView &x = t[0], &cache = t[1];
  LUTRA_TRY(require_rows(x, "cache_append: x must be f32 [n, width]"));
  LUTRA_TRY(require_rows(cache, "cache_append: cache must be f32 [capacity, width]"));
  LUTRA_TRY(require_equal(cache.shape[1], x.shape[1], "cache_append: columns of cache, against columns of x"));
  LUTRA_TRY(require_apart(cache, x, "cache_append: cache may not overlap x"));
  if (x.shape[1] % 2) return error(Code::kShape, "cache_append: an odd width on a device", x.shape[1]);
  LUTRA_TRY(fits_position(x.shape[0], cache.shape[0]));
  LutraCudaRope* const both = last<LutraCudaRope>();
  const bool joins =
      both && both->k && both->capacity == cache.shape[0] && both->tokens == x.shape[0] &&
      int64_t{both->kv_heads} * both->head_dim == x.shape[1] && !both->v &&
      apart(both->q, int64_t{both->tokens} * both->heads * both->head_dim, cache.data, cache.elements()) &&
      apart(both->k, x.elements(), cache.data, cache.elements());
  if (joins && !both->keys && both->k == x.as<float>()) {
    both->keys = cache.data;
    return ok_status();
  }
  if (joins && both->keys && apart(both->k, x.elements(), x.data, x.elements()) &&
      apart(both->q, int64_t{both->tokens} * both->heads * both->head_dim, x.data, x.elements()) &&
      apart(both->keys, cache.elements(), cache.data, cache.elements())) {
    both->v = x.as<float>();
    both->values = cache.data;
    return ok_status();
  }
  auto op = sized<LutraCudaRope>();
  op.tokens = static_cast<int32_t>(x.shape[0]);
  op.kv_heads = static_cast<int32_t>(x.shape[1] / 2);  // any cut into heads does where nothing turns
  op.head_dim = 2;
  op.capacity = cache.shape[0];
  op.position = reinterpret_cast<const int32_t*>(position_.data());
  op.v = x.as<float>();
  op.values = cache.data;
  launches_.push_back(op);
  return ok_status();
}

Status DeviceProgram::attention(std::span<const TensorView> t, std::span<const double> parameters) {
  const TensorView &q = t[0], &keys = t[1], &values = t[2], &y = t[3];
  LUTRA_TRY(require_rows(q, "attention: q must be f32 [n, heads * head_dim]"));
  LUTRA_TRY(require_rows(keys, "attention: keys must be f32 [capacity, kv_heads * head_dim]"));
  LUTRA_TRY(require_rows(values, "attention: values must be f32 [capacity, kv_heads * head_dim]"));
  LUTRA_TRY(require_rows(y, "attention: y must be f32 [n, heads * head_dim]"));
  for (double parameter : parameters)
    if (!(parameter >= 0 && parameter <= INT32_MAX)) return error(Code::kOption, "attention: a number is out of range");
  auto op = sized<LutraCudaAttention>();
  op.tokens = static_cast<int32_t>(q.shape[0]);
  op.heads = static_cast<int32_t>(parameters[0]);
  op.kv_heads = static_cast<int32_t>(parameters[1]);
  op.head_dim = static_cast<int32_t>(parameters[2]);
  op.window = static_cast<int64_t>(parameters[3]);
  op.capacity = keys.shape[0];
  if (op.heads < 1 || op.kv_heads < 1 || op.head_dim < 1 || op.heads % op.kv_heads)
    return error(Code::kOption, "attention: heads must be a multiple of kv_heads", op.heads, op.kv_heads);
  const int64_t dim = op.head_dim;
  LUTRA_TRY(require_equal(q.shape[1], op.heads * dim, "attention: columns of q, against heads times head_dim"));
  LUTRA_TRY(require_same_shape(q, y, "attention: shape of y, against shape of q"));
  LUTRA_TRY(
      require_equal(keys.shape[1], op.kv_heads * dim, "attention: columns of keys, against kv_heads times head_dim"));
  LUTRA_TRY(require_same_shape(keys, values, "attention: shape of values, against shape of keys"));
  for (const TensorView* operand : {&q, &keys, &values})
    LUTRA_TRY(require_apart(y, *operand, "attention: y may not overlap its operands"));
  LUTRA_TRY(fits_position(q.shape[0], op.capacity));
  op.position = reinterpret_cast<const int32_t*>(position_.data());
  op.q = q.as<float>();
  op.keys = keys.data;
  op.values = values.data;
  op.y = y.as<float>();
  launches_.push_back(op);
  return ok_status();
}

Status DeviceProgram::swiglu(std::span<const TensorView> t) {
  LUTRA_TRY(require_rows(t[0], "swiglu: gate must be f32 [n, d]"));
  LUTRA_TRY(require_same_shape(t[0], t[1], "swiglu: shape of up, against shape of gate"));
  LUTRA_TRY(require_same_shape(t[0], t[2], "swiglu: shape of y, against shape of gate"));
  LUTRA_TRY(require_dtype(t[1], Dtype::kF32, "swiglu: up must be f32"));
  LUTRA_TRY(require_dtype(t[2], Dtype::kF32, "swiglu: y must be f32"));
  LUTRA_TRY(require_same_or_apart(t[2], t[0], "swiglu: y may be gate, or not overlap it"));
  LUTRA_TRY(require_same_or_apart(t[2], t[1], "swiglu: y may be up, or not overlap it"));
  launches_.push_back(LutraCudaSwiglu{sizeof(LutraCudaSwiglu), 0, t[0].elements(), t[0].as<float>(), t[1].as<float>(),
                                      t[2].as<float>()});
  return ok_status();
}

Status DeviceProgram::arg_max(std::span<const TensorView> t) {
  const TensorView &x = t[0], &index = t[1], &value = t[2];
  LUTRA_TRY(require_rows(x, "arg_max: x must be f32 [n, cols]"));
  LUTRA_TRY(require_rank(index, 1, "arg_max: index must have 1 dimension"));
  LUTRA_TRY(require_rank(value, 1, "arg_max: value must have 1 dimension"));
  LUTRA_TRY(require_dtype(index, Dtype::kI32, "arg_max: index must be i32"));
  LUTRA_TRY(require_dtype(value, Dtype::kF32, "arg_max: value must be f32"));
  LUTRA_TRY(require_equal(index.shape[0], x.shape[0], "arg_max: elements of index, against rows of x"));
  LUTRA_TRY(require_equal(value.shape[0], x.shape[0], "arg_max: elements of value, against rows of x"));
  LUTRA_TRY(require_apart(index, x, "arg_max: index may not overlap x"));
  LUTRA_TRY(require_apart(value, x, "arg_max: value may not overlap x"));
  auto op = sized<LutraCudaArgMax>();
  op.rows = x.shape[0];
  op.cols = x.shape[1];
  op.x = x.as<float>();
  op.index = index.as<int32_t>();
  op.value = value.as<float>();
  launches_.push_back(op);
  return ok_status();
}

Status DeviceProgram::add_to(std::span<const TensorView> t) {
  const TensorView &x = t[0], &y = t[1];
  LUTRA_TRY(require_rows(y, "add: y must be f32 [n, d]"));
  LUTRA_TRY(require_same_shape(x, y, "add: shape of y, against shape of x"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "add: x must be f32"));
  LUTRA_TRY(require_same_or_apart(y, x, "add: y may be x, or not overlap it"));
  launches_.push_back(LutraCudaAdd{sizeof(LutraCudaAdd), 0, y.elements(), y.elements(), x.as<float>(), y.as<float>()});
  return ok_status();
}

}  // namespace lutra
