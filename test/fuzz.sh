#!/bin/sh
# Fuzzes every reader for SECONDS altogether (120). What breaks a rule is kept in build/fuzz and named with its seed.
set -eu
cd "$(dirname "$0")/.."
seconds="${1:-120}"
seed="${LUTRA_FUZZ_SEED:-$(date +%j)}"
node_modules/.bin/tsx test/adversarial/fuzz/run.ts --reader all --seconds "$seconds" --seed "$seed"
