#!/bin/bash
# Fuzzes what reads text, each target in turn, with coverage, on the stable toolchain and with nothing to install.
#
#   fuzz/run.sh [SECONDS_FOR_EACH [TARGET…]]
#
# Findings are texts in fuzz/found; `compose-fuzz --replay TARGET FILE` runs one again, panics and all.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(yaml interpolation dotenv duration size port volume loader)
# The compiler counts edges by itself; the counters are read by src/coverage.rs. No sanitizer, so no nightly is needed.
export RUSTFLAGS="-C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=3 -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C codegen-units=1 -C panic=unwind"
target=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --quiet --target "$target"
status=0
for name in "${targets[@]}"; do
  nice "target/$target/release/compose-fuzz" "$seconds" "$name" || status=1
done
exit $status
