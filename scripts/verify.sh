#!/bin/sh
# Looks whether a deployment does what it should. Usage: scripts/verify.sh URL, or STAGE=dev scripts/verify.sh for a deployed stack.
set -eu
cd "$(dirname "$0")/.."
if [ $# -gt 0 ]; then
	exec go run ./cdk/operate verify "$@"
fi
. scripts/deploy-env.sh
operate verify -c "stage=$stage"
