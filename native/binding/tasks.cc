#include "binding/tasks.h"

#include <algorithm>

#include "core/checked.h"
#include "core/crc32c.h"
#include "linalg/low_rank.h"
#include "linalg/rotation.h"
#include "ops/read_through.h"
#include "ops/transformer.h"
#include "platform/file.h"
#include "quantize/adam.h"
#include "quantize/awq.h"
#include "quantize/bcq.h"
#include "quantize/column_order.h"
#include "quantize/decoupleq.h"
#include "quantize/fbquant.h"
#include "quantize/gptq.h"
#include "quantize/grid_search.h"
#include "quantize/head_quadratic_form.h"
#include "quantize/hqq.h"
#include "quantize/learned_rounding.h"
#include "quantize/levels.h"
#include "quantize/magnitude.h"
#include "quantize/pair.h"
#include "quantize/quadratic_form.h"
#include "quantize/refine_scales.h"
#include "quantize/row_feedback.h"
#include "quantize/rtn.h"
#include "quantize/value_gradients.h"

namespace lutra::binding {

namespace {

// The part of a tensor that a file transfer moves; parameters are descriptor, position, byte offset, bytes.
Status file_range(const TaskCall& call, uint8_t** data, size_t* bytes) {
  const int64_t offset = call.whole(2);
  const int64_t count = call.whole(3);
  const int64_t size = static_cast<int64_t>(call.tensors[0].bytes());
  if (call.whole(1) < 0 || offset < 0 || count < 0 || offset > size || count > size - offset)
    return error(Code::kShape, "the transfer reaches past the tensor", count, size);
  *data = call.tensors[0].as<uint8_t>() + offset;
  *bytes = static_cast<size_t>(count);
  return ok_status();
}

Status read_into(Context& context, const TaskCall& call, std::vector<double>&) {
  uint8_t* data = nullptr;
  size_t bytes = 0;
  LUTRA_TRY(file_range(call, &data, &bytes));
  return read_file(narrowed<int>(call.whole(0)), call.whole(1), data, bytes, context.cancel);
}

Status write_from(Context& context, const TaskCall& call, std::vector<double>&) {
  uint8_t* data = nullptr;
  size_t bytes = 0;
  LUTRA_TRY(file_range(call, &data, &bytes));
  return write_file(narrowed<int>(call.whole(0)), call.whole(1), data, bytes, context.cancel);
}

constexpr size_t kChecksumBytes = size_t{8} << 20;  // between two looks at the cancel token: some milliseconds

// Of the tensor's bytes behind those whose checksum is the parameter.
Status checksum(Context& context, const TaskCall& call, std::vector<double>& answer) {
  const size_t bytes = call.tensors[0].bytes();
  const auto* data = call.tensors[0].as<uint8_t>();
  uint32_t sum = narrowed<uint32_t>(call.whole(0));
  for (size_t at = 0; at < bytes; at += kChecksumBytes) {
    if (context.cancel && context.cancel->cancelled()) return error(Code::kCancelled, "cancelled");
    sum = crc32c(data + at, std::min(kChecksumBytes, bytes - at), sum);
  }
  answer.push_back(sum);
  return ok_status();
}

// Parameters: bits, columns of a group, symmetric, storage type of the scales.
GridOptions searched_grid(const TaskCall& call) {
  return {narrowed<int>(call.whole(0)), call.whole(1), call.whole(2) != 0, false, narrowed<Dtype>(call.whole(3))};
}

// Parameters: bits, columns of a group, symmetric, searched in the 2.4-norm, storage type of the scales.
GridOptions fitted_grid(const TaskCall& call) {
  return {narrowed<int>(call.whole(0)), call.whole(1), call.whole(2) != 0, call.whole(3) != 0,
          narrowed<Dtype>(call.whole(4))};
}

const TaskRow kTasks[] = {
    {"findNonFinite", 1, 0,
     [](Context& context, const TaskCall& call, std::vector<double>& answer) {
       int64_t index = -1;
       LUTRA_TRY(find_non_finite(context, call.tensors[0], &index));
       answer.push_back(static_cast<double>(index));
       return ok_status();
     }},
    {"readFile", 1, 4, read_into},
    {"writeFile", 1, 4, write_from},
    {"reverseCholesky", 1, 0,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       return reverse_cholesky(context, call.tensors[0]);
     }},
    {"gptqPass", 6, 0,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return gptq_pass(context, t[0], t[1], t[2], t[3], t[4], t[5]);
     }},
    {"hessianDiagonal", 2, 0,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       return hessian_diagonal(context, call.tensors[0], call.tensors[1]);
     }},
    {"prepareHessian", 3, 1,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return prepare_hessian(context, t[0], t[1], call.parameters[0], t[2]);
     }},
    {"gatherColumns", 3, 0,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return gather_columns(context, t[0], t[1], t[2]);
     }},
    {"residual", 4, 1,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return residual(context, t[0], t[1], t[2], call.whole(0), t[3]);
     }},
    {"sumOfSquares", 1, 0,
     [](Context& context, const TaskCall& call, std::vector<double>& answer) {
       return sum_of_squares(context, call.tensors[0], &answer.emplace_back());
     }},
    {"quadraticForm", 2, 0,
     [](Context& context, const TaskCall& call, std::vector<double>& answer) {
       return quadratic_form(context, call.tensors[0], call.tensors[1], &answer.emplace_back());
     }},
    {"largestMagnitude", 1, 0,
     [](Context& context, const TaskCall& call, std::vector<double>& answer) {
       return largest_magnitude(context, call.tensors[0], &answer.emplace_back());
     }},
    // Answers with the number of groups whose scale is subnormal in its storage type.
    {"fitGrid", 3, 5,
     [](Context& context, const TaskCall& call, std::vector<double>& answer) {
       int64_t subnormal = 0;
       LUTRA_TRY(fit_grid(context, fitted_grid(call), call.tensors[0], call.tensors[1], call.tensors[2], &subnormal));
       answer.push_back(static_cast<double>(subnormal));
       return ok_status();
     }},
    {"levels", 3, 1,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       const LevelKind kind = narrowed<LevelKind>(call.whole(0));
       if (kind > LevelKind::kPlanes) return error(Code::kOption, "levels: no such kind", call.whole(0));
       return levels_of(context, kind, t[0], t[1], t[2]);
     }},
    {"centredLevels", 2, 0,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       return levels_of(context, LevelKind::kCentredPlanes, call.tensors[0], TensorView{}, call.tensors[1]);
     }},
    {"roundToLevels", 3, 1,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return round_to_levels(context, call.whole(0), t[0], t[1], t[2]);
     }},
    {"bcqFit", 4, 6,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       const BcqOptions options{narrowed<int>(call.whole(0)),
                                call.whole(1),
                                call.whole(2) != 0,
                                narrowed<int>(call.whole(3)),
                                narrowed<BcqStart>(call.whole(4)),
                                narrowed<Dtype>(call.whole(5))};
       return bcq_fit(context, options, t[0], t[1], t[2], t[3]);
     }},
    {"bcqRefit", 5, 4,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       const BcqRefit options{call.whole(0), call.whole(1) != 0, call.parameters[2], narrowed<Dtype>(call.whole(3))};
       return bcq_refit(context, options, t[0], t[1], t[2], t[3], t[4]);
     }},
    {"gridPlanes", 4, 0,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return grid_planes(context, t[0], t[1], t[2], t[3]);
     }},
    {"hqqFit", 3, 7,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       const HqqOptions options{
           narrowed<int>(call.whole(0)), call.whole(1),      narrowed<int>(call.whole(2)),  call.parameters[3],
           call.parameters[4],           call.parameters[5], narrowed<Dtype>(call.whole(6))};
       return hqq_fit(context, options, t[0], t[1], t[2]);
     }},
    {"fitGridToHessian", 4, 4,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return fit_grid_to_hessian(context, searched_grid(call), t[0], t[1], t[2], t[3]);
     }},
    {"fitGridWeighted", 4, 4,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return fit_grid_weighted(context, searched_grid(call), t[0], t[1], t[2], t[3]);
     }},
    {"readThrough", 1, 0,
     [](Context& context, const TaskCall& call, std::vector<double>& answer) {
       int32_t mixed = 0;
       LUTRA_TRY(read_through(context, call.tensors[0], &mixed));
       answer.push_back(mixed);
       return ok_status();
     }},
    {"rotate", 3, 1,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       const Axis axis = narrowed<Axis>(call.whole(0));
       if (axis > Axis::kColumns) return error(Code::kOption, "rotate: no such axis", call.whole(0));
       return rotate(context, axis, t[0], t[1], t[2]);
     }},
    {"scaleMatrix", 4, 0,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return scale_matrix(context, t[0], t[1], t[2], t[3]);
     }},
    {"roundScaled", 3, 4,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       return round_scaled(context, searched_grid(call), call.tensors[0], call.tensors[1], call.tensors[2]);
     }},
    // Answers with the number of groups that were clipped.
    {"clipToHessian", 3, 4,
     [](Context& context, const TaskCall& call, std::vector<double>& answer) {
       int64_t clipped = 0;
       const auto& t = call.tensors;
       LUTRA_TRY(clip_to_hessian(context, searched_grid(call), t[0], t[1], t[2], &clipped));
       answer.push_back(static_cast<double>(clipped));
       return ok_status();
     }},
    {"meanMagnitudes", 2, 0,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       return mean_magnitudes(context, call.tensors[0], call.tensors[1]);
     }},
    {"squaredDistance", 2, 0,
     [](Context& context, const TaskCall& call, std::vector<double>& answer) {
       return squared_distance(context, call.tensors[0], call.tensors[1], &answer.emplace_back());
     }},
    // Both start from what b holds; zeros are no start.
    {"lowRankFit", 3, 0,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return low_rank_fit(context, t[0], TensorView{}, true, t[1], t[2], nullptr);
     }},
    {"lowRankFitInMetric", 4, 0,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return low_rank_fit(context, t[0], t[1], true, t[2], t[3], nullptr);
     }},
    {"subtractPair", 4, 0,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return subtract_pair(context, t[0], t[1], t[2], t[3]);
     }},
    {"roundRows", 2, 1,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       return round_rows(context, narrowed<Dtype>(call.whole(0)), call.tensors[0], call.tensors[1]);
     }},
    {"storeRowsInt8", 3, 0,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return store_rows_int8(context, t[0], t[1], t[2]);
     }},
    // Answers with the loss of the first pair and of the best, the steps before the best, and all steps.
    {"fbquantDescend", 4, 8,
     [](Context& context, const TaskCall& call, std::vector<double>& answer) {
       const auto& t = call.tensors;
       const FbquantOptions options{searched_grid(call), narrowed<Dtype>(call.whole(4)), call.whole(5),
                                    call.parameters[6], call.whole(7) != 0};
       FbquantResult result;
       LUTRA_TRY(fbquant_descend(context, options, t[0], t[1], t[2], t[3], &result));
       answer = {result.start, result.best, static_cast<double>(result.best_step), static_cast<double>(result.steps)};
       return ok_status();
     }},
    {"levelWeights", 3, 2,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return level_weights(context, call.whole(0), t[0], t[1], call.whole(1) != 0, t[2]);
     }},
    // The last operand is the zeros or what receives the offsets' gradients, as the kind has it.
    {"valueGradients", 4, 3,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return value_gradients(context, narrowed<LevelKind>(call.whole(0)), narrowed<int>(call.whole(1)), call.whole(2),
                              t[0], t[1], t[3], t[2], t[3]);
     }},
    {"adamStep", 3, 6,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       const auto& p = call.parameters;
       return adam_step(context, {p[0], p[1], p[2], p[3], p[4]}, call.whole(5), t[0], t[1], t[2]);
     }},
    {"dampedFormRows", 4, 0,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return damped_form_rows(context, {t[0], t[1]}, t[2], t[3]);
     }},
    {"offsetsOfGrid", 3, 1,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return offsets_of_grid(context, t[0], t[1], narrowed<Dtype>(call.whole(0)), t[2]);
     }},
    {"decoupleqPull", 4, 0,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return decoupleq_pull(context, {t[0], t[1]}, t[2], t[3]);
     }},
    {"decoupleqFit", 8, 4,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       const ScaleFit options{narrowed<int>(call.whole(0)), call.whole(1), call.whole(2) != 0,
                              narrowed<Dtype>(call.whole(3))};
       return decoupleq_fit(context, options, {t[0], t[1]}, t[2], t[3], {t[4], t[5], t[6], t[7]});
     }},
    {"decoupleqSearch", 5, 4,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return decoupleq_search(context, searched_grid(call), {t[0], t[1]}, t[2], t[3], t[4]);
     }},
    // Answers with the number of rows taken.
    {"takeBetterRows", 8, 0,
     [](Context& context, const TaskCall& call, std::vector<double>& answer) {
       const auto& t = call.tensors;
       int64_t taken = 0;
       LUTRA_TRY(take_better_rows(context, {t[0], t[1], t[2], t[3]}, {t[4], t[5], t[6], t[7]}, &taken));
       answer.push_back(static_cast<double>(taken));
       return ok_status();
     }},
    {"gptqPassWanted", 7, 0,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return gptq_pass(context, t[0], t[1], t[2], t[3], t[4], t[5], t[6]);
     }},
    {"gatherRows", 3, 0,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return gather_rows(context, t[0], t[1], t[2]);
     }},
    {"compensateRows", 4, 1,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return compensate_rows(context, t[0], t[1], t[2], call.whole(0), t[3]);
     }},
    {"quadraticFormOfHeads", 3, 0,
     [](Context& context, const TaskCall& call, std::vector<double>& answer) {
       const auto& t = call.tensors;
       return quadratic_form_of_heads(context, t[0], t[1], t[2], &answer.emplace_back());
     }},
    // Parameters: columns of a group, storage type of the scales.
    {"refineScales", 6, 2,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return refine_scales(context, call.whole(0), narrowed<Dtype>(call.whole(1)), t[0], t[1], t[2], t[3], t[4], t[5]);
     }},
    {"learnRounding", 7, 8,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       const RoundingOptions options{narrowed<int>(call.whole(0)), call.whole(1),      call.whole(2),
                                     call.parameters[3],           call.parameters[4], call.parameters[5],
                                     call.parameters[6],           call.parameters[7]};
       return learn_rounding(context, options, t[0], t[1], t[2], t[3], t[4], t[5], t[6]);
     }},
    {"gptqDynamicPass", 6, 5,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       return gptq_dynamic_pass(context, fitted_grid(call), t[0], t[1], t[2], t[3], t[4], t[5]);
     }},
    {"decoupleqDescend", 6, 7,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       const auto& t = call.tensors;
       const ScaleFit options{narrowed<int>(call.whole(0)), call.whole(1), call.whole(2) != 0,
                              narrowed<Dtype>(call.whole(3))};
       const Descent descent{call.whole(4), call.whole(5), call.parameters[6]};
       return decoupleq_descend(context, options, descent, {t[0], t[1]}, t[2], t[3], t[4], t[5]);
     }},
    {"crc32c", 1, 1, checksum},
    {"weightedSquares", 2, 0,
     [](Context& context, const TaskCall& call, std::vector<double>& answer) {
       return weighted_squares(context, call.tensors[0], call.tensors[1], &answer.emplace_back());
     }},
    {"quadraticFormRows", 3, 0,
     [](Context& context, const TaskCall& call, std::vector<double>&) {
       return quadratic_form_rows(context, call.tensors[0], call.tensors[1], call.tensors[2]);
     }},
};

}  // namespace

std::span<const TaskRow> task_table() { return kTasks; }

}  // namespace lutra::binding
