#!/bin/sh
# Fuzzes for SECONDS altogether (120): half of them every reader (adversarial/fuzz), half the native entry points by
# libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer (native/fuzz). What breaks a rule is kept in build/fuzz.
# What libFuzzer found interesting stays in build/fuzz/corpus, from where the next run goes on.
set -eu
cd "$(dirname "$0")/.."
seconds="${1:-120}"
seed="${LUTRA_FUZZ_SEED:-1}"
export CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN)}"
cmake -S . -B build/fuzzers -DLUTRA_FUZZ=ON -DCMAKE_CXX_COMPILER="${LUTRA_CLANG:-clang++-14}" \
  -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG="-O1 -gline-tables-only" >/dev/null
cmake --build build/fuzzers >/dev/null
node_modules/.bin/tsx test/adversarial/fuzz/run.ts --reader all --seconds $((seconds / 2)) --seed "$seed"
for target in layout ops tasks; do
  corpus="build/fuzz/corpus/$target"
  mkdir -p "$corpus"
  # The address space of a sanitized process is no measure of its memory: -rss_limit_mb is.
  if ! ASAN_OPTIONS="allocator_may_return_null=1:detect_leaks=0" "build/fuzzers/${target}_fuzz" "$corpus" \
    -max_total_time=$((seconds / 6)) -timeout=10 -rss_limit_mb=1024 -max_len=256 -seed="$seed" \
    -artifact_prefix="build/fuzz/$target-" >"build/fuzz/$target.log" 2>&1; then
    tail -60 "build/fuzz/$target.log"
    exit 1
  fi
  echo "$target: $(tail -1 "build/fuzz/$target.log")"
done
