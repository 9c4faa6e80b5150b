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
step cargo test --locked

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
