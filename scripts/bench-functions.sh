#!/bin/sh
# Prints, for each Lambda function, the zipped size and the time from the start of the process to its first answer, with Redis and DynamoDB
# Local on the loopback address. The binaries are the ones that are deployed, but for this machine's architecture.
set -eu
cd "$(dirname "$0")/.."
scripts/functions.sh >/dev/null
exec go run ./test/lambda/bench -functions "dist/functions/$(go env GOARCH)" "$@"
