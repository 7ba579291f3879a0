// Times the decode kernels of the CUDA backend: quantized products, the same with a sub-branch fused and in four
// launches, and what they are measured against. Each time is printed as it is taken, with the error of its own result;
// the last lines are a table of shares. Without a device: "skipped: no device".
//
//   decode_bench [--quick]
#include <cstring>
#include <string>

#include "bench_matrix.h"

namespace lutra::bench {
namespace {

struct Shape {
  int64_t rows, cols;
};

class DecodeBench {
 public:
  DecodeBench(BenchDevice& device, double copy_rate) : device_(device), copy_rate_(copy_rate) {}

  void run(Shape shape) {
    const std::string name = std::to_string(shape.rows) + "x" + std::to_string(shape.cols);
    const double dense = dense_product(name, shape);
    for (int bits : {2, 3, 4})
      for (WeightKind kind : {WeightKind::kUniform, WeightKind::kPlanes}) {
        const char* const word = kind == WeightKind::kPlanes ? "planes" : "bits";
        const std::string row = name + " " + std::to_string(bits) + " " + word;
        BenchMatrix matrix(device_, shape.rows, shape.cols, bits, kind, 0);
        const double one = quantized(row, matrix, 1, false);
        const double eight = quantized(row, matrix, 8, false);
        note("%-28s %5.1f %% of copy rate, %4.2f x fp16, 8 tokens %4.2f x 1", row.c_str(),
             100 * static_cast<double>(matrix.bytes()) / one / copy_rate_, dense / one, eight / one);
        if (bits == 3) {
          const double tables = published(name + " LUT-GEMM's tables, 3 planes", shape);
          note("%-28s %4.2f x LUT-GEMM's tables", row.c_str(), tables / one);
        }
      }
    for (int64_t rank : {64, 128}) sub_branch(name, shape, rank);
  }

  void print_table() const {
    for (const std::string& line : table_) std::printf("%s\n", line.c_str());
  }

 private:
  template <typename... Values>
  void note(const char* format, Values... values) {
    char line[200];
    std::snprintf(line, sizeof line, format, values...);
    table_.push_back(line);
  }

  void print(const std::string& name, double microseconds, size_t bytes, double error) const {
    const double rate = static_cast<double>(bytes) / microseconds;
    std::printf("%-52s %9.2f us %7.1f GB/s %5.1f %% NMSE %.2g\n", name.c_str(), microseconds, rate / 1e3,
                100 * rate / copy_rate_, error);
    std::fflush(stdout);
  }

  LutraCudaLutGemm product_of(const BenchMatrix& matrix, int tokens, const uint16_t* x, float* y) {
    LutraCudaLutGemm op = {};
    op.bytes = sizeof op;
    op.tokens = tokens;
    op.parts = 1;
    op.x_dtype = static_cast<int32_t>(Dtype::kF16);
    op.y_dtype = static_cast<int32_t>(Dtype::kF32);
    op.w = matrix.copy(0);
    op.x = x;
    op.y = y;
    const uint64_t bytes = device_.workspace(op);
    op.workspace = device_.memory(bytes);
    device_.clear(op.workspace, bytes);
    return op;
  }

  // y from NaN, so that an output that is not written shows.
  float* poisoned(size_t count) { return device_.uploaded(std::vector<float>(count, NAN)); }

  double quantized(const std::string& name, const BenchMatrix& matrix, int tokens, bool with_branch) {
    const LutraCudaMatrix& w = matrix.copy(0);
    const std::vector<uint16_t> x = random_halves(static_cast<size_t>(tokens * w.cols), -1.0f, 1.0f, 7);
    const size_t outputs = static_cast<size_t>(tokens * w.rows);
    uint16_t* const device_x = device_.uploaded(x);
    float* const y = poisoned(outputs);
    LutraCudaLutGemm op = product_of(matrix, tokens, device_x, y);
    if (!with_branch) op.w.branch_rank = 0;
    const double time = device_.microseconds(matrix.copies(), [&](int turn) {
      const int64_t rank = op.w.branch_rank;
      op.w = matrix.copy(turn);
      op.w.branch_rank = rank;
      device_.launch(LUTRA_CUDA_OP_LUT_GEMM, op);
    });
    const double error = matrix.error(x, device_.downloaded<float>(y, outputs), with_branch);
    print(name + ", " + std::to_string(tokens) + (tokens == 1 ? " token" : " tokens") + (with_branch ? ", fused" : ""),
          time, with_branch ? matrix.bytes() : matrix.packed_bytes(), error);
    for (void* data : {static_cast<void*>(device_x), static_cast<void*>(y), op.workspace}) device_.release(data);
    return time;
  }

  void sub_branch(const std::string& name, Shape shape, int64_t rank) {
    const std::string row = name + " 3 bits rank " + std::to_string(rank);
    BenchMatrix matrix(device_, shape.rows, shape.cols, 3, WeightKind::kUniform, rank);
    const double plain = quantized(row, matrix, 1, false);
    const double fused = quantized(row, matrix, 1, true);
    const double four = four_launches(row, matrix, rank);
    note("%-28s fused %.2f us over %.2f, four launches %.2f: %4.1f %% of their extra time", row.c_str(), fused - plain,
         plain, four - plain, 100 * (fused - plain) / (four - plain));
  }

  // The product, t = A x, u = B t, y += u.
  double four_launches(const std::string& name, const BenchMatrix& matrix, int64_t rank) {
    const LutraCudaMatrix& w = matrix.copy(0);
    const std::vector<uint16_t> x = random_halves(static_cast<size_t>(w.cols), -1.0f, 1.0f, 7);
    uint16_t* const device_x = device_.uploaded(x);
    float* const y = poisoned(static_cast<size_t>(w.rows));
    float* const t = poisoned(static_cast<size_t>(rank));
    float* const u = poisoned(static_cast<size_t>(w.rows));
    LutraCudaLutGemm op = product_of(matrix, 1, device_x, y);
    const LutraCudaMatrixVector base = {sizeof base,
                                        1,
                                        static_cast<int32_t>(Dtype::kF16),
                                        static_cast<int32_t>(Dtype::kF16),
                                        rank,
                                        w.cols,
                                        nullptr,
                                        nullptr,
                                        device_x,
                                        t};
    const LutraCudaAdd add = {sizeof add, 0, w.rows, w.rows, u, y};
    const double time = device_.microseconds(matrix.copies(), [&](int turn) {
      op.w = matrix.copy(turn);
      op.w.branch_rank = 0;
      device_.launch(LUTRA_CUDA_OP_LUT_GEMM, op);
      LutraCudaMatrixVector down = base;
      down.m = matrix.copy(turn).branch_a;
      device_.launch(LUTRA_CUDA_OP_MATRIX_VECTOR, down);
      LutraCudaMatrixVector up = base;
      up.m = matrix.copy(turn).branch_b;
      up.rows = w.rows;
      up.cols = rank;
      up.x = t;
      up.x_dtype = static_cast<int32_t>(Dtype::kF32);
      up.y = u;
      device_.launch(LUTRA_CUDA_OP_MATRIX_VECTOR, up);
      device_.launch(LUTRA_CUDA_OP_ADD, add);
    });
    const double error = matrix.error(x, device_.downloaded<float>(y, static_cast<size_t>(w.rows)), true);
    print(name + ", four launches", time, matrix.bytes(), error);
    for (void* data : {static_cast<void*>(device_x), static_cast<void*>(y), static_cast<void*>(t),
                       static_cast<void*>(u), op.workspace})
      device_.release(data);
    return time;
  }

  // The same product with f16 weights, own kernel.
  double dense_product(const std::string& name, Shape shape) {
    const size_t count = static_cast<size_t>(shape.rows * shape.cols);
    const std::vector<uint16_t> weights = random_halves(count, -1.0f, 1.0f, 5);
    const std::vector<uint16_t> x = random_halves(static_cast<size_t>(shape.cols), -1.0f, 1.0f, 7);
    uint16_t* const m[2] = {device_.uploaded(weights), device_.uploaded(weights)};
    uint16_t* const device_x = device_.uploaded(x);
    float* const y = poisoned(static_cast<size_t>(shape.rows));
    const double time = device_.microseconds(2, [&](int turn) {
      const LutraCudaMatrixVector op = {sizeof op,
                                        1,
                                        static_cast<int32_t>(Dtype::kF16),
                                        static_cast<int32_t>(Dtype::kF16),
                                        shape.rows,
                                        shape.cols,
                                        m[turn % 2],
                                        nullptr,
                                        device_x,
                                        y};
      device_.launch(LUTRA_CUDA_OP_MATRIX_VECTOR, op);
    });
    const std::vector<float> result = device_.downloaded<float>(y, static_cast<size_t>(shape.rows));
    double error = 0;
    double power = 0;
    for (int64_t row = 0; row < shape.rows; row += shape.rows / kSampledRows) {
      double sum = 0;
      for (int64_t k = 0; k < shape.cols; ++k)
        sum += static_cast<double>(half_to_float(weights[static_cast<size_t>(row * shape.cols + k)])) *
               static_cast<double>(half_to_float(x[static_cast<size_t>(k)]));
      const double off = static_cast<double>(result[static_cast<size_t>(row)]) - sum;
      error += off * off;
      power += sum * sum;
    }
    print(name + " f16 weights, 1 token", time, count * 2, error / power);
    note("%-28s f16 weights at %.1f %% of copy rate", name.c_str(),
         100 * static_cast<double>(count) * 2 / time / copy_rate_);
    for (void* data :
         {static_cast<void*>(m[0]), static_cast<void*>(m[1]), static_cast<void*>(device_x), static_cast<void*>(y)})
      device_.release(data);
    return time;
  }

  // LUT-GEMM as published, 3 planes, with the clearing of y that its atomics need.
  double published(const std::string& name, Shape shape) {
    constexpr int kPlanes = 3;
    const size_t words = static_cast<size_t>(shape.rows * shape.cols / 32 * kPlanes);
    const size_t groups = static_cast<size_t>(shape.cols / 128);
    const std::vector<uint32_t> codes = random_words(words, 9);
    const std::vector<uint16_t> alphas =
        random_halves(groups * kPlanes * static_cast<size_t>(shape.rows), 0.001f, 0.002f, 2);
    const std::vector<uint16_t> bias = random_halves(groups * static_cast<size_t>(shape.rows), -0.001f, 0.001f, 3);
    const std::vector<uint16_t> x = random_halves(static_cast<size_t>(shape.cols), -1.0f, 1.0f, 7);
    const size_t bytes = words * 4 + (alphas.size() + bias.size()) * 2;
    const int copies = std::max(2, static_cast<int>((kRoundBytes + bytes - 1) / bytes));
    std::vector<uint32_t*> device_codes;
    for (int i = 0; i < copies; ++i) device_codes.push_back(device_.uploaded(codes));
    uint16_t* const device_alphas = device_.uploaded(alphas);
    uint16_t* const device_bias = device_.uploaded(bias);
    uint16_t* const device_x = device_.uploaded(x);
    void* const y = device_.memory(static_cast<size_t>(shape.rows) * 2);
    const double time = device_.microseconds(copies, [&](int turn) {
      device_.clear(y, static_cast<size_t>(shape.rows) * 2);
      const LutraCudaTableGemv op = {
          sizeof op,     kPlanes,     shape.rows, shape.cols, 128, device_codes[static_cast<size_t>(turn)],
          device_alphas, device_bias, device_x,   y};
      device_.launch(LUTRA_CUDA_OP_TABLE_GEMV, op);
    });
    const std::vector<uint16_t> result = device_.downloaded<uint16_t>(y, static_cast<size_t>(shape.rows));
    double error = 0;
    double power = 0;
    for (int64_t row = 0; row < shape.rows; row += shape.rows / kSampledRows) {
      double sum = 0;
      for (int64_t k = 0; k < shape.cols; ++k) {
        double w = static_cast<double>(half_to_float(bias[static_cast<size_t>(k / 128 * shape.rows + row)]));
        for (int p = 0; p < kPlanes; ++p) {
          const uint32_t word = codes[static_cast<size_t>((k / 32 * kPlanes + p) * shape.rows + row)];
          const double alpha = static_cast<double>(
              half_to_float(alphas[static_cast<size_t>((k / 128 * kPlanes + p) * shape.rows + row)]));
          w += (word >> (k % 32) & 1u) ? alpha : -alpha;
        }
        sum += w * static_cast<double>(half_to_float(x[static_cast<size_t>(k)]));
      }
      const double off = static_cast<double>(half_to_float(result[static_cast<size_t>(row)])) - sum;
      error += off * off;
      power += sum * sum;
    }
    print(name, time, bytes, error / power);
    for (uint32_t* data : device_codes) device_.release(data);
    for (void* data :
         {static_cast<void*>(device_alphas), static_cast<void*>(device_bias), static_cast<void*>(device_x), y})
      device_.release(data);
    return time;
  }

  BenchDevice& device_;
  double copy_rate_;  // bytes per microsecond
  std::vector<std::string> table_;
};

// Bytes read and written per microsecond by a copy of 1 GiB on the device.
double measure_copy(BenchDevice& device) {
  constexpr size_t kBytes = size_t{1} << 30;
  void* const from = device.memory(kBytes);
  void* const to = device.memory(kBytes);
  device.clear(from, kBytes);
  const double time = device.microseconds(4, [&](int) { device.copy(to, from, kBytes); });
  device.release(from);
  device.release(to);
  return 2.0 * static_cast<double>(kBytes) / time;
}

int run_bench(bool quick) {
  DeviceReport report;
  const LutraCudaTable* const table = device_table(std::getenv("LUTRA_CUDA_PATH"), 0, &report);
  if (!table) {
    std::printf("skipped: no device%s%s\n", report.detail[0] ? ": " : "", report.detail);
    return 0;
  }
  BenchDevice device(table, report.facts);
  const double copy_rate = measure_copy(device);
  std::printf(
      "%s, %d multiprocessors, L2 %d MB, driver %d, runtime %d, built for %s; copy %.0f GB/s read and written\n",
      report.facts.name, report.facts.multiprocessors, report.facts.l2_bytes >> 20, report.facts.driver_version,
      report.facts.runtime_version, report.facts.built_for, copy_rate / 1e3);
  DecodeBench bench(device, copy_rate);
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
