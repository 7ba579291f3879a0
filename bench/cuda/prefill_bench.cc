// Times products of many tokens on the CUDA backend beside cuBLAS's f16 product of the same shape, where cuBLAS is
// installed. Each time is printed as it is taken, with the error of its own result; the last lines are a table. Without
// a device: "skipped: no device".
//
//   prefill_bench [--quick]
#include <cstring>
#include <string>

#include "bench_matrix.h"
#include "dense_peer.h"

namespace lutra::bench {
namespace {

struct Shape {
  int64_t rows, cols;
};

constexpr int64_t kSampledTokens = 16;

class PrefillBench {
 public:
  explicit PrefillBench(BenchDevice& device) : device_(device) {}

  void run(Shape shape) {
    std::vector<double> dense;
    for (int tokens : kTokens) dense.push_back(peer_.present() ? dense_product(shape, tokens) : 0.0);
    for (const auto& [bits, kind, rank] : {Weights{4, WeightKind::kUniform, 0},
                                           {3, WeightKind::kUniform, 0},
                                           {2, WeightKind::kUniform, 0},
                                           {3, WeightKind::kPlanes, 0},
                                           {4, WeightKind::kUniform, 128}}) {
      const BenchMatrix matrix(device_, shape.rows, shape.cols, bits, kind, rank);
      for (size_t i = 0; i < std::size(kTokens); ++i) quantized(shape, matrix, kTokens[i], dense[i]);
    }
  }

  void print_table() const {
    for (const std::string& line : table_) std::printf("%s\n", line.c_str());
    if (!peer_.present()) std::printf("no cuBLAS here: no shares of it\n");
  }

 private:
  static constexpr int kTokens[] = {32, 64, 512, 2048};
  struct Weights {
    int bits;
    WeightKind kind;
    int64_t rank;
  };

  static std::string name_of(Shape shape, int tokens, const std::string& weights) {
    return std::to_string(shape.rows) + "x" + std::to_string(shape.cols) + " " + std::to_string(tokens) + " tokens " +
           weights;
  }

  void print(const std::string& name, Shape shape, int tokens, double microseconds, double error, double dense) {
    const double operations = 2.0 * static_cast<double>(shape.rows * shape.cols) * tokens;
    char line[200];
    int used = std::snprintf(line, sizeof line, "%-46s %9.1f us %7.1f TFLOP/s NMSE %.2g", name.c_str(), microseconds,
                             operations / microseconds / 1e6, error);
    if (dense > 0) std::snprintf(line + used, sizeof line - used, ", %4.2f x cuBLAS's rate", dense / microseconds);
    std::printf("%s\n", line);
    std::fflush(stdout);
    table_.push_back(line);
  }

  void quantized(Shape shape, const BenchMatrix& matrix, int tokens, double dense) {
    const LutraCudaMatrix& w = matrix.copy(0);
    const std::vector<uint16_t> x = random_halves(static_cast<size_t>(tokens * w.cols), -1.0f, 1.0f, 7);
    const size_t outputs = static_cast<size_t>(tokens * w.rows);
    LutraCudaLutGemm op = {};
    op.bytes = sizeof op;
    op.tokens = tokens;
    op.parts = 1;
    op.x_dtype = static_cast<int32_t>(Dtype::kF16);
    op.y_dtype = static_cast<int32_t>(Dtype::kF32);
    op.w = w;
    op.x = device_.uploaded(x);
    op.y = device_.uploaded(std::vector<float>(outputs, NAN));
    const uint64_t bytes = device_.workspace(op);
    op.workspace = device_.memory(bytes);
    device_.clear(op.workspace, bytes);
    const double time = device_.microseconds(matrix.copies(), [&](int turn) {
      op.w = matrix.copy(turn);
      device_.launch(LUTRA_CUDA_OP_LUT_GEMM, op);
    });
    const bool branch = w.branch_rank > 0;
    const int64_t step = std::max<int64_t>(1, tokens / kSampledTokens);
    const double error = matrix.error(x, device_.downloaded<float>(op.y, outputs), branch, step);
    std::string weights = std::to_string(w.bits) + (w.kind == 0 ? " bits" : " planes");
    if (branch) weights += " rank " + std::to_string(w.branch_rank);
    print(name_of(shape, tokens, weights), shape, tokens, time, error, dense);
    for (const void* data : {op.x, static_cast<const void*>(op.y), static_cast<const void*>(op.workspace)})
      device_.release(const_cast<void*>(data));
  }

  double dense_product(Shape shape, int tokens) {
    const size_t count = static_cast<size_t>(shape.rows * shape.cols);
    const std::vector<uint16_t> weights = random_halves(count, -1.0f, 1.0f, 5);
    const std::vector<uint16_t> x = random_halves(static_cast<size_t>(tokens * shape.cols), -1.0f, 1.0f, 7);
    const size_t outputs = static_cast<size_t>(tokens * shape.rows);
    uint16_t* const w[2] = {device_.uploaded(weights), device_.uploaded(weights)};
    uint16_t* const device_x = device_.uploaded(x);
    uint16_t* const y = device_.uploaded(std::vector<uint16_t>(outputs, 0xffff));
    bool fine = true;
    const double time = device_.microseconds_of_calls(2, [&](LutraCudaStream* stream, int turn) {
      fine = peer_.multiply(stream, w[turn % 2], device_x, y, shape.rows, shape.cols, tokens) && fine;
    });
    const std::vector<uint16_t> result = device_.downloaded<uint16_t>(y, outputs);
    double error = 0;
    double power = 0;
    for (int64_t row = 0; row < shape.rows; row += shape.rows / kSampledRows) {
      const uint16_t* const line = weights.data() + row * shape.cols;
      double sum = 0;
      for (int64_t k = 0; k < shape.cols; ++k)
        sum +=
            static_cast<double>(half_to_float(line[k])) * static_cast<double>(half_to_float(x[static_cast<size_t>(k)]));
      const double off = static_cast<double>(half_to_float(result[static_cast<size_t>(row)])) - sum;
      error += off * off;
      power += sum * sum;
    }
    for (void* data :
         {static_cast<void*>(w[0]), static_cast<void*>(w[1]), static_cast<void*>(device_x), static_cast<void*>(y)})
      device_.release(data);
    if (!fine) return 0.0;
    print(name_of(shape, tokens, "cuBLAS f16"), shape, tokens, time, error / power, 0.0);
    return time;
  }

  BenchDevice& device_;
  DensePeer peer_;
  std::vector<std::string> table_;
};

int run_bench(bool quick) {
  DeviceReport report;
  const LutraCudaTable* const table = device_table(std::getenv("LUTRA_CUDA_PATH"), 0, &report);
  if (!table) {
    std::printf("skipped: no device%s%s\n", report.detail[0] ? ": " : "", report.detail);
    return 0;
  }
  BenchDevice device(table, report.facts);
  PrefillBench bench(device);
  constexpr Shape kShapes[] = {{12288, 12288}, {28672, 8192}, {49152, 12288}};
  for (const Shape& shape : kShapes) {
    bench.run(shape);
    if (quick) break;
  }
  std::printf("\n");
  bench.print_table();
  return 0;
}

}  // namespace
}  // namespace lutra::bench

int main(int argc, char** argv) { return lutra::bench::run_bench(argc > 1 && !std::strcmp(argv[1], "--quick")); }
