#!/bin/bash
# Sets up what the tests need and runs all of them.
set -euo pipefail
cd "$(dirname "$0")/.."

tests/setup.sh
before=$(mktemp) after=$(mktemp)
trap 'rm -f "$before" "$after"' EXIT
tests/leftovers.sh >"$before"

step() { printf '\n== %s\n' "$*"; "$@"; }
step cargo fmt --check
step cargo clippy --locked --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" step cargo doc --locked --no-deps --quiet
step cargo build --locked --release

# On a machine that does much besides, a deadline of a test may pass. Up to three that fail are run once more, each by
# itself, and named; what fails again has failed.
log=$(mktemp)
trap 'rm -f "$before" "$after" "$log"' EXIT
if ! step cargo test --locked --no-fail-fast 2>&1 | tee "$log"; then
  mapfile -t failed < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log" | sort -u)
  if [ ${#failed[@]} -eq 0 ] || [ ${#failed[@]} -gt 3 ]; then
    exit 1
  fi
  for name in "${failed[@]}"; do
    step cargo test --locked -- --exact "$name" --test-threads 1
  done
  printf '\nfailed at first, passed by itself: %s\n' "${failed[@]}"
fi

step tests/vm/run.sh "$(cargo build --locked --release --message-format=json 2>/dev/null |
  sed -n 's/.*"executable":"\([^"]*\/compose\)".*/\1/p')"

# Nothing may be left behind; what dies in the background (network namespaces, bridges' ports) gets a moment.
for _ in $(seq 50); do
  tests/leftovers.sh >"$after"
  cmp -s "$before" "$after" && break
  sleep 0.2
done
if ! diff "$before" "$after"; then
  echo "the tests left the lines above behind" >&2
  exit 1
fi

# Recorded answers of docker compose, where they lie beside the repository. The floor only rises.
conformance=${COMPOSE_CONFORMANCE:-../shared/conformance}
if [ -x "$conformance/compare.py" ]; then
  step tests/conformance.sh "$conformance"
fi
