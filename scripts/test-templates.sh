#!/bin/sh
# The checks of what is deployed, in about a minute: Go tests of properties over every variant of the stack, cfn-lint, the AwsSolutions
# rules. Needs Go, Node.js and python3; installs its pinned tools below .cache and cdk/nag. No credentials.
set -eu
cd "$(dirname "$0")/.."
cfn_lint=1.58.0
export JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION=1 JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION=1

venv=.cache/cfn-lint-$cfn_lint
if [ ! -x "$venv/bin/cfn-lint" ]; then
	command -v python3 >/dev/null || { echo "python3 is missing: install it (Debian: apt-get install python3-venv)" >&2; exit 1; }
	python3 -m venv "$venv" || { echo "python3 has no venv: install it (Debian: apt-get install python3-venv)" >&2; exit 1; }
	"$venv/bin/pip" install --quiet --disable-pip-version-check "cfn-lint==$cfn_lint"
fi
scripts/npm-ci cdk/nag

assemblies=$(mktemp -d)
trap 'rm -rf "$assemblies"' EXIT INT TERM
TIDELINE_TEMPLATES="$assemblies" go test -count=1 ./cdk/...

echo "cfn-lint"
# W3005: the CDK states dependencies that a reference implies. W3010: zones are named where the deployer named them.
"$venv/bin/cfn-lint" --ignore-checks W3005 W3010 --template "$assemblies"/*/*.template.json
echo "npx cdk"
pinned=$(sed -n 's/^cdk_cli=aws-cdk@//p' scripts/deploy-env.sh)
taken=$(npx cdk --version </dev/null)
case $taken in
"$pinned "*) ;;
*) echo "plain npx cdk takes $taken, scripts/deploy-env.sh names $pinned" >&2; exit 1 ;;
esac
echo "AwsSolutions"
node cdk/nag/nag.mjs "$assemblies"/*/
