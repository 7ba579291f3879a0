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
# What a command prints goes to its log and then to the terminal: a pipe would keep the status of its last command alone.
# A failed check fails the script, but only at its end: the times are wanted just then.
status=0
logged() {
  log=$1
  shift
  "$@" >"$log" 2>&1 || status=1
  cat "$log"
}
logged "$out/tests.log" ctest --test-dir "$tree" --output-on-failure --no-tests=error -R '^(native\.cuda|native\.cuda_host|native\.device|cuda_device)$'
# cuBLAS may be a Python wheel, which the loader does not know of.
for folder in /usr/local/cuda/lib64 $(python3 -c 'import glob, site
for root in [*site.getsitepackages(), site.getusersitepackages()]:
    print(*{path.rpartition("/")[0] for path in glob.glob(root + "/nvidia/*/lib/libcublas.so.*")})' 2>/dev/null || true); do
  if [ -d "$folder" ]; then LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder"; fi
done
export LD_LIBRARY_PATH LUTRA_CUDA_PATH="$tree/lutra_cuda.so"
logged "$out/decode.log" "$tree/cuda_decode_bench" "$@"
logged "$out/prefill.log" "$tree/cuda_prefill_bench" "$@"
if [ "$status" -ne 0 ]; then echo "failed: see the logs in $out"; fi
exit "$status"
