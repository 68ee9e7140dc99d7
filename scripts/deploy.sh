#!/bin/sh
# Puts a stage into the AWS account of the credentials at hand: looks first, bootstraps when needed, builds, deploys, verifies.
# Usage: STAGE=dev scripts/deploy.sh [-c name=value]…   (settings: docs/deployment.md)
set -eu
cd "$(dirname "$0")/.."
. scripts/deploy-env.sh

case " $* " in
*" -c stage="*) fail "name the stage by STAGE=…, not by -c" ;;
esac
set -- -c "stage=$stage" "$@"

step "doctor"
looked=$(mktemp)
trap 'rm -f "$looked"' EXIT INT TERM
if ! operate doctor "$@" >"$looked"; then
	cat "$looked"
	fail "nothing was deployed"
fi
cat "$looked"
if grep -q '^ok  bootstrap  *none yet' "$looked"; then
	step "bootstrap"
	cdk bootstrap "$@"
fi

step "build and deploy"
mkdir -p dist
cdk deploy "$stack" --require-approval never --outputs-file "dist/outputs-$stage.json" "$@"

# The first deployment succeeds before its nodes are healthy, and CloudFront's address before every one of its places knows it.
step "verify"
tries=20
while ! operate verify -c "stage=$stage" >"$looked" 2>&1; do
	tries=$((tries - 1))
	if [ "$tries" -eq 0 ]; then
		cat "$looked"
		fail "deployed, but it does not do what it should; docs/deployment.md says where to look. Again: make verify STAGE=$stage"
	fi
	sleep 30
done
cat "$looked"

step "outputs"
operate outputs -c "stage=$stage"
