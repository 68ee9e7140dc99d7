#!/bin/sh
# Publish on a channel with the AWS CLI, version 2 (version 1 takes no --cli-binary-format: leave it out).
# FUNCTION is the stack's output BroadcastArn. The caller needs the stack's managed policy Publisher.
set -eu
out=$(mktemp)
trap 'rm -f "$out"' EXIT
aws lambda invoke --function-name "$FUNCTION" --cli-binary-format raw-in-base64-out \
  --payload '{"publications":[{"channel":"chat:lobby","data":{"text":"Order 17 has shipped"},"id":"order-17-shipped"}]}' \
  "$out" >/dev/null
cat "$out"
