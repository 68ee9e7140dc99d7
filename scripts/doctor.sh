#!/bin/sh
# Looks whether a deployment of STAGE would succeed. Usage: STAGE=dev scripts/doctor.sh [-c name=value]…
set -eu
cd "$(dirname "$0")/.."
. scripts/deploy-env.sh
operate doctor -c "stage=$stage" "$@"
