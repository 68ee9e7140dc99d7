#!/bin/sh
# Builds what a deployment needs: the page, the node for both architectures, the functions. cdk.json runs it before every synthesis, so that
# `npx cdk deploy` works in a fresh clone; Go's and npm's caches make it quick when nothing has changed.
set -eu
cd "$(dirname "$0")/.."
fail() { echo "deploy-build: $*" >&2; exit 1; }
command -v go >/dev/null || fail "go is missing: install Go 1.26 or later, https://go.dev/dl"
command -v npm >/dev/null || fail "npm is missing: install Node.js 22 or 24, https://nodejs.org"

# The page is embedded in the node, so it comes first; make knows whether it is current.
make --no-print-directory --silent node/page/dist/index.html
[ -d node/page/dist/assets ] || scripts/page # a placeholder page only
version=$(git describe --always --dirty --tags 2>/dev/null || echo unversioned)
for arch in arm64 amd64; do
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -trimpath -buildvcs=false -ldflags "-s -w -X tideline/node/server.version=$version" -o "dist/node-$arch" ./node
done
scripts/functions.sh
