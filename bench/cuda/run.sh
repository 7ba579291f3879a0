#!/bin/sh
# Builds the CUDA backend, its tests and benches, checks every kernel against the fp64 reference, then times all shapes;
# a short table comes last. Needs CMake, a C++ compiler and CUDA, no Node. Where there is no device: "skipped: no device".
#   LUTRA_CUDA_ARCHS (90) what to build for     LUTRA_BENCH_OUT (build/cuda-bench) where logs go
#   bench/cuda/run.sh [--quick]
set -eu
cd "$(dirname "$0")/../.."
tree=build/cuda-bench
out=${LUTRA_BENCH_OUT:-$tree}
export CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN)}"
mkdir -p "$out"
cmake -S . -B "$tree" -DLUTRA_CUDA=ON -DLUTRA_BENCH=ON "-DLUTRA_CUDA_ARCHS=${LUTRA_CUDA_ARCHS:-90}" >"$out/configure.log"
cmake --build "$tree" --target lutra_cuda lutra_test lutra_cuda_test cuda_decode_bench cuda_prefill_bench >"$out/build.log" 2>&1 || {
  tail -n 40 "$out/build.log"
  exit 1
}
ctest --test-dir "$tree" --output-on-failure -R '^(native\.cuda|native\.cuda_host|native\.device|cuda_device)$' 2>&1 | tee "$out/tests.log"
grep -q '100% tests passed' "$out/tests.log"
LUTRA_CUDA_PATH="$tree/lutra_cuda.so" "$tree/cuda_decode_bench" "$@" | tee "$out/decode.log"
LUTRA_CUDA_PATH="$tree/lutra_cuda.so" "$tree/cuda_prefill_bench" "$@" | tee "$out/prefill.log"
