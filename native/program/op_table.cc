#include "program/op_table.h"

#include "core/checked.h"
#include "ops/attention_statistics.h"
#include "ops/backward.h"
#include "ops/linear.h"
#include "ops/lut_gemm.h"
#include "ops/transformer.h"

namespace lutra {

namespace {

int64_t whole(const Step& step, int index) { return static_cast<int64_t>(step.parameters[index]); }
// Parameters 0 and 1: mode, whether it is batch-invariant.
LutOptions lut_options(const Step& step) { return {narrowed<Mode>(whole(step, 0)), whole(step, 1) != 0}; }

// Parameters 0-5: rows, cols, bits, groupSize, weight kind, offset kind.
PackedLayout layout_of(const Step& step) {
  PackedLayout layout;
  layout.rows = whole(step, 0);
  layout.cols = whole(step, 1);
  layout.bits = narrowed<int>(whole(step, 2));
  layout.group_size = whole(step, 3);
  layout.kind = narrowed<WeightKind>(whole(step, 4));
  layout.offset_kind = narrowed<OffsetKind>(whole(step, 5));
  return layout;
}

AttentionShape attention_shape(const Step& step, const StepScalars& scalars) {
  return {whole(step, 0), whole(step, 1), whole(step, 2), scalars.position, whole(step, 3)};
}

// Short names keep the table one line a row.
using C = Context;
using S = Step;
using P = StepScalars;

const OpRow kTable[] = {
    {"lutGemm", 1, 2, OpRow::kOneOrMore,
     [](C& c, const S& s, const P&) {
       return lut_gemm(c, s.packed, s.tensors[0], {s.tensors + 1, s.packed.size()}, lut_options(s));
     }},
    {"lutGemmErrorBound", 2, 2, 1,
     [](C& c, const S& s, const P&) {
       return lut_gemm_error_bound(c, s.packed[0], s.tensors[0], s.tensors[1], lut_options(s));
     }},
    {"packCodes", 2, 6, 0,
     [](C& c, const S& s, const P&) { return pack_codes(c, layout_of(s), s.tensors[0], s.tensors[1]); }},
    {"unpackCodes", 2, 6, 0,
     [](C& c, const S& s, const P&) { return unpack_codes(c, layout_of(s), s.tensors[0], s.tensors[1]); }},
    {"packGroupValues", 2, 7, 0,
     [](C& c, const S& s, const P&) {
       return pack_group_values(c, layout_of(s), narrowed<int>(whole(s, 6)), s.tensors[0], s.tensors[1]);
     }},
    {"unpackGroupValues", 2, 7, 0,
     [](C& c, const S& s, const P&) {
       return unpack_group_values(c, layout_of(s), narrowed<int>(whole(s, 6)), s.tensors[0], s.tensors[1]);
     }},
    {"dequantize", 1, 0, 1, [](C& c, const S& s, const P&) { return dequantize(c, s.packed[0], s.tensors[0]); }},
    {"linear", 3, 1, 0,
     [](C& c, const S& s, const P&) { return linear(c, s.tensors[0], s.tensors[1], s.tensors[2], whole(s, 0) != 0); }},
    {"addBias", 2, 0, 0, [](C& c, const S& s, const P&) { return add_bias(c, s.tensors[0], s.tensors[1]); }},
    {"accumulateGram", 2, 0, 0,
     [](C& c, const S& s, const P&) { return accumulate_gram(c, s.tensors[0], s.tensors[1]); }},
    {"embedding", 3, 0, 0,
     [](C& c, const S& s, const P&) { return embedding(c, s.tensors[0], s.tensors[1], s.tensors[2]); }},
    {"rmsNorm", 3, 1, 0,
     [](C& c, const S& s, const P&) {
       return rms_norm(c, s.tensors[0], s.tensors[1], static_cast<float>(s.parameters[0]), s.tensors[2]);
     }},
    {"rope", 2, 1, 0,
     [](C& c, const S& s, const P& p) { return rope(c, s.tensors[0], s.tensors[1], whole(s, 0), p.position); }},
    {"cacheAppend", 2, 0, 0,
     [](C& c, const S& s, const P& p) { return cache_append(c, s.tensors[0], s.tensors[1], p.position); }},
    {"attention", 4, 4, 0,
     [](C& c, const S& s, const P& p) {
       return attention(c, s.tensors[0], s.tensors[1], s.tensors[2], attention_shape(s, p), s.tensors[3]);
     }},
    {"swiglu", 3, 0, 0, [](C& c, const S& s, const P&) { return swiglu(c, s.tensors[0], s.tensors[1], s.tensors[2]); }},
    {"add", 2, 0, 0, [](C& c, const S& s, const P&) { return add(c, s.tensors[0], s.tensors[1]); }},
    {"softmax", 2, 0, 0, [](C& c, const S& s, const P&) { return softmax(c, s.tensors[0], s.tensors[1]); }},
    {"crossEntropy", 4, 0, 0,
     [](C& c, const S& s, const P&) {
       return cross_entropy(c, s.tensors[0], s.tensors[1], s.tensors[2], s.tensors[3]);
     }},
    {"klDivergence", 3, 0, 0,
     [](C& c, const S& s, const P&) { return kl_divergence(c, s.tensors[0], s.tensors[1], s.tensors[2]); }},
    {"convert", 2, 0, 0, [](C& c, const S& s, const P&) { return convert(c, s.tensors[0], s.tensors[1]); }},
    {"linearBackwardInput", 3, 0, 0,
     [](C& c, const S& s, const P&) { return linear_backward_input(c, s.tensors[0], s.tensors[1], s.tensors[2]); }},
    {"linearBackwardWeight", 3, 0, 0,
     [](C& c, const S& s, const P&) { return linear_backward_weight(c, s.tensors[0], s.tensors[1], s.tensors[2]); }},
    {"rmsNormBackwardInput", 4, 1, 0,
     [](C& c, const S& s, const P&) {
       return rms_norm_backward_input(c, s.tensors[0], s.tensors[1], static_cast<float>(s.parameters[0]), s.tensors[2],
                                      s.tensors[3]);
     }},
    {"rmsNormBackwardWeight", 3, 1, 0,
     [](C& c, const S& s, const P&) {
       return rms_norm_backward_weight(c, s.tensors[0], static_cast<float>(s.parameters[0]), s.tensors[1],
                                       s.tensors[2]);
     }},
    {"ropeBackward", 2, 1, 0,
     [](C& c, const S& s, const P&) { return rope_backward(c, s.tensors[0], s.tensors[1], whole(s, 0)); }},
    {"attentionBackward", 7, 4, 0,
     [](C& c, const S& s, const P& p) {
       const TensorView* t = s.tensors;
       return attention_backward(c, t[0], t[1], t[2], attention_shape(s, p), t[3], t[4], t[5], t[6]);
     }},
    {"swigluBackward", 5, 0, 0,
     [](C& c, const S& s, const P&) {
       return swiglu_backward(c, s.tensors[0], s.tensors[1], s.tensors[2], s.tensors[3], s.tensors[4]);
     }},
    {"squaredError", 4, 0, 0,
     [](C& c, const S& s, const P&) {
       return squared_error(c, s.tensors[0], s.tensors[1], s.tensors[2], s.tensors[3]);
     }},
    {"accumulateHeadGrams", 2, 0, 0,
     [](C& c, const S& s, const P&) { return accumulate_head_grams(c, s.tensors[0], s.tensors[1]); }},
    // Parameters: those of attention, then the first key-value head.
    {"accumulateAttendedGrams", 4, 5, 0,
     [](C& c, const S& s, const P& p) {
       return accumulate_attended_grams(c, s.tensors[0], s.tensors[1], s.tensors[2], attention_shape(s, p), whole(s, 4),
                                        s.tensors[3]);
     }},
    {"crossEntropyBackward", 3, 0, 0,
     [](C& c, const S& s, const P&) { return cross_entropy_backward(c, s.tensors[0], s.tensors[1], s.tensors[2]); }},
    {"accumulateSquares", 2, 0, 0,
     [](C& c, const S& s, const P&) { return accumulate_squares(c, s.tensors[0], s.tensors[1]); }},
    {"argMax", 3, 0, 0,
     [](C& c, const S& s, const P&) { return arg_max(c, s.tensors[0], s.tensors[1], s.tensors[2]); }},
};

}  // namespace

std::span<const OpRow> op_table() { return kTable; }

}  // namespace lutra
