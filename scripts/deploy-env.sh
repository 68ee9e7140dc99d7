# Read by the scripts that deploy: what they share. The CDK's command line is pinned, because npm's tag "latest" moves.
cdk_cli=aws-cdk@2.1148.1
stage=${STAGE:-dev}
stack=tideline-$stage
export JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION=1 JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION=1

fail() { echo "${0##*/}: $*" >&2; exit 1; }
step() { printf '\n== %s\n' "$*"; }
for tool in go node npx; do
	command -v "$tool" >/dev/null || fail "$tool is missing: install Go 1.26 (https://go.dev/dl) and Node.js 22 or 24 (https://nodejs.org)"
done
case $(node --version) in
v20.* | v22.* | v24.*) ;;
*) echo "${0##*/}: the CDK is tried on Node.js 22 and 24; this is $(node --version)" >&2 ;;
esac

cdk() { npx --yes "$cdk_cli" "$@"; }
operate() { go run ./cdk/operate "$@"; }
