#!/bin/bash
# A check as a script: settings as JSON on stdin, report as JSON on stdout. What `src/many.rs` does; jq once to read and
# once to write, as JSON needs it.
set -euo pipefail
{ read -r driver; read -r oldest; read -r product; read -r remedy; } < <(jq -r '.driver, .oldest, .product, .remedy')
findings='[]'
if (( ${driver%%.*} < oldest )); then
  findings='[{message: "driver \($driver) is older than branch \($oldest)", remedy: $remedy}]'
fi
exec jq -nc --arg driver "$driver" --arg oldest "$oldest" --arg product "$product" --arg remedy "$remedy" \
  "{findings: $findings, evidence: {driver: \$driver, product: \$product}}"
