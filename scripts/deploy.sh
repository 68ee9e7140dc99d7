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
work=$(mktemp -d)
looked=$work/looked
deploying=
quiet_no_more() { [ -z "$deploying" ] || { kill "$deploying" 2>/dev/null || true; wait "$deploying" || true; }; deploying=; }
trap 'quiet_no_more; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
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
if marks=$(operate mark "$@"); then
	set -- --parameters "$stack:Deployments=$marks" "$@"
else
	echo "the dashboard will not mark this deployment" >&2
fi
# A program of its own, and not `go run`, which would not pass the signal on that ends it.
go build -o "$work/operate" ./cdk/operate
"$work/operate" deploying -c "stage=$stage" &
deploying=$!
cdk deploy "$stack" --require-approval never --outputs-file "dist/outputs-$stage.json" "$@"
quiet_no_more

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
