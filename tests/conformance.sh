#!/bin/bash
# Compares `compose config` with docker compose's recorded answers and holds the floor below.
#
#   tests/conformance.sh DIRECTORY     the directory holds compare.py and its cases
set -euo pipefail
directory=$1
# The share of identical answers, in hundredths of a percent, of all cases. Raise it when it is exceeded; never lower it.
floor=9990
target=$(cargo metadata --format-version 1 --no-deps --locked | python3 -c 'import json,sys; print(json.load(sys.stdin)["target_directory"])')
host=$(rustc -vV | sed -n 's/^host: //p')
report=$(mktemp)
trap 'rm -f "$report"' EXIT
"$directory/compare.py" --bin "$target/$host/release/compose" -j "$(nproc)" --json "$report" || true
python3 - "$report" "$floor" <<'P'
import collections, json, sys
cases, floor = json.load(open(sys.argv[1])), int(sys.argv[2])
verdicts = collections.Counter(case["verdict"] for case in cases)
agree = verdicts["identical"] + verdicts["failed-ok"] + verdicts["quirk"]
share = 10000 * agree // max(1, len(cases))
print(f"conformance: {agree} of {len(cases)} agree: {share / 100} %, floor {floor / 100} %")
for case in cases:
    if case["verdict"] in ("wrong-ok", "wrong-fail", "crash"):
        print(" ", case["verdict"], case["id"])
sys.exit(0 if cases and share >= floor else 1)
P
