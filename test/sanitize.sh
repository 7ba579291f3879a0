#!/bin/sh
# The TypeScript suite on an addon built with AddressSanitizer and UndefinedBehaviorSanitizer, and the native suite
# with the same. Node itself is not instrumented, so leaks are looked for in the native suite only. An allocation that is
# too large fails as it does elsewhere, because tests ask for that. Then, with ThreadSanitizer, the native families whose
# tests share memory between lanes; kernels alone have one.
set -eu
cd "$(dirname "$0")/.."
export CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN)}"
export LUTRA_TEST_SIZE="${LUTRA_TEST_SIZE:-quick}"
tree=build/sanitize
npx cmake-js configure --generator "Unix Makefiles" --out "$tree" \
  --CDCMAKE_LIBRARY_OUTPUT_DIRECTORY="$PWD/$tree/build/Release" "--CDLUTRA_SANITIZE=address;undefined"
cmake --build "$tree"
ASAN_OPTIONS="allocator_may_return_null=1" "$tree/lutra_test"
rm -f "$tree"/report*
LUTRA_PREBUILD="$PWD/$tree" LUTRA_SANITIZED=1 \
  LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" \
  ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:log_path=$PWD/$tree/report" \
  node_modules/.bin/vitest run "$@" || {
  status=$?
  cat "$tree"/report* 2>/dev/null || true
  exit $status
}
# A process of a test may have reported and been expected to fail. An allocation that was refused is no fault.
if grep -lsE "ERROR: (Address|Undefined)|runtime error" "$tree"/report*; then
  cat "$tree"/report*
  exit 1
fi
threads=build/sanitize-threads
cmake -S . -B "$threads" -DLUTRA_SANITIZE=thread
cmake --build "$threads" --target lutra_test
for family in core ops linalg quantize; do
  TSAN_OPTIONS="halt_on_error=1" "$threads/lutra_test" "$family"
done
