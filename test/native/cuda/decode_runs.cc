#include "decode_runs.h"

#include "core/half.h"
#include "cuda/lut_gemm/decode_kernel.h"
#include "cuda/lut_gemm/fragments.h"
#include "cuda/simt/host_simt.h"

namespace lutra::test {

using namespace lutra::cuda;

namespace {

size_t words_of(const PackedLayout& layout) { return static_cast<size_t>(fragment_words(layout)); }

float stored(const uint8_t* bytes, size_t i, Dtype dtype) {
  if (dtype == Dtype::kF32) {
    float value;
    std::memcpy(&value, bytes + 4 * i, 4);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, bytes + 2 * i, 2);
  return dtype == Dtype::kF16 ? half_to_float(half) : bfloat16_to_float(half);
}

template <typename Element, int kBits, bool kPlanes>
std::string run_columns(const DecodeArguments& args, int column_tiles, HostLaunch launch) {
  const auto go = [&](auto tiles) {
    using Block = DecodeBlock<Element, kBits, kPlanes, tiles()>;
    launch.blocks = static_cast<int>(decode_row_blocks(args.rows, Block::kRowTiles)) * args.splits;
    launch.shared_bytes = static_cast<size_t>(decode_shared_bytes(tiles()));
    return run_grid(launch, [&](uint8_t* shared) { Block::run(args, shared); });
  };
  if (column_tiles == 1) return go(std::integral_constant<int, 1>());
  if (column_tiles == 2) return go(std::integral_constant<int, 2>());
  return go(std::integral_constant<int, 4>());
}

template <typename Element>
std::string run_weights(const DecodeArguments& args, const PackedLayout& layout, int column_tiles,
                        const HostLaunch& launch) {
  const bool planes = layout.kind == WeightKind::kPlanes;
  const auto go = [&](auto bits) {
    return planes ? run_columns<Element, bits(), true>(args, column_tiles, launch)
                  : run_columns<Element, bits(), false>(args, column_tiles, launch);
  };
  if (layout.bits == 2) return go(std::integral_constant<int, 2>());
  if (layout.bits == 3) return go(std::integral_constant<int, 3>());
  return go(std::integral_constant<int, 4>());
}

}  // namespace

DecodeOperands::DecodeOperands(const LutCase& problem, Dtype x_dtype)
    : problem_(problem),
      x_dtype_(x_dtype),
      logical_(problem),
      fragments_(words_of(problem.layout)),
      x_(static_cast<size_t>(problem.tokens * problem.layout.cols) * dtype_bytes(x_dtype),
         problem.slack * dtype_bytes(x_dtype)) {
  CHECK(to_fragments(problem.layout, logical_.words(), fragments_.data()).ok());
  for (size_t i = 0; i < static_cast<size_t>(problem.tokens * problem.layout.cols); ++i) {
    float& value = logical_.x_data()[i];
    const uint16_t half = x_dtype == Dtype::kF16 ? float_to_half(value) : float_to_bfloat16(value);
    if (x_dtype == Dtype::kF32)
      std::memcpy(x_.data() + 4 * i, &value, 4);
    else
      std::memcpy(x_.data() + 2 * i, &half, 2);
    value = stored(x_.data(), i, x_dtype);
  }
}

std::string DecodeOperands::run(const DecodeRun& run, std::vector<float>* result) {
  const PackedView view = logical_.view();
  const PackedLayout& layout = view.layout;
  DecodePlan plan = plan_decode(layout, view.sub_branch.rank, run.slots);
  if (run.splits) plan.splits = run.splits;
  DecodeArguments args;
  const Status status = decode_arguments(layout, view.sub_branch, plan, static_cast<int>(problem_.tokens), run.x_dtype,
                                         run.y_dtype, run.parts, &args);
  if (!status.ok()) return status.what;
  const size_t outputs = static_cast<size_t>(problem_.tokens * layout.rows);
  Guarded<uint8_t> y(outputs * dtype_bytes(run.y_dtype));
  Guarded<float> partials(plan.splits > 1 ? static_cast<size_t>(plan.splits) * outputs : 0);
  Guarded<float> branch_sums(static_cast<size_t>(plan.k_shares * problem_.tokens * view.sub_branch.rank));
  std::vector<uint32_t> counters(static_cast<size_t>(plan.counters), 0);
  args.codes = fragments_.data();
  args.scales = view.scales;
  args.offsets = view.offsets;
  args.x = x_.data();
  args.y = y.data();
  args.partials = partials.data();
  args.counters = counters.data();
  args.branch.a = view.sub_branch.a;
  args.branch.b = view.sub_branch.b;
  args.branch.a_scales = view.sub_branch.a_scales;
  args.branch.b_scales = view.sub_branch.b_scales;
  args.branch.sums = branch_sums.data();
  HostLaunch launch;
  launch.threads = kDecodeThreads;
  launch.resident = run.resident;
  launch.seed = run.seed;
  const int tiles = decode_column_tiles(static_cast<int>(problem_.tokens), run.parts);
  const std::string wrong = x_dtype_ == Dtype::kF16 ? run_weights<HalfElement>(args, layout, tiles, launch)
                                                    : run_weights<BFloat16Element>(args, layout, tiles, launch);
  if (!wrong.empty()) return wrong;
  for (uint32_t counter : counters)
    if (counter != 0) return "a counter is not zero after the launch";
  *result = stored_floats(y.data(), outputs, run.y_dtype);
  return "";
}

double decode_limit(Dtype x_dtype, int parts) {
  if (x_dtype != Dtype::kF32 || parts == 3) return mode_limit(Mode::kExact);
  return mode_limit(parts == 2 ? Mode::kAccurate : Mode::kFast);
}

std::vector<float> stored_floats(const uint8_t* bytes, size_t count, Dtype dtype) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = stored(bytes, i, dtype);
  return values;
}

std::string decode_errors(DecodeOperands& operands, const DecodeRun& run, const std::vector<float>& y) {
  const char* types[] = {"f32", "f16", "bf16"};
  const std::string where = operands.problem().describe() + " x " + types[static_cast<int>(run.x_dtype)] + " parts " +
                            std::to_string(run.parts) + ": ";
  const std::vector<double> answer = operands.answer();
  double error = 0;
  double power = 0;
  for (size_t i = 0; i < answer.size(); ++i) {
    const double off = static_cast<double>(y[i]) - answer[i];
    if (!std::isfinite(off)) return where + "y[" + std::to_string(i) + "] is not finite";
    error += off * off;
    power += answer[i] * answer[i];
  }
  power = std::max(power, operands.logical().expected_power());
  if (error <= decode_limit(run.x_dtype, run.parts) * power) return "";
  char text[80];
  std::snprintf(text, sizeof text, "normalised error %.3g over %.3g", error / power,
                decode_limit(run.x_dtype, run.parts));
  return where + text;
}

}  // namespace lutra::test
