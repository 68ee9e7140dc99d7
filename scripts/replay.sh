#!/bin/sh
# Announces the current state of every todo whose stream record was given up (Redis was away for too long), and deletes the records that are
# done. Needs the AWS CLI, version 2, and credentials that may invoke the function. STAGE is dev unless set; ROUNDS bounds the invocations.
set -eu
stack=tideline-${STAGE:-dev}
rounds=${ROUNDS:-100}
function=$(aws cloudformation describe-stacks --stack-name "$stack" \
	--query "Stacks[0].Outputs[?OutputKey=='OutboxArn'].OutputValue" --output text)
if [ -z "$function" ] || [ "$function" = None ]; then
	echo "replay: the stack $stack has no output OutboxArn" >&2
	exit 1
fi
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT
while [ "$rounds" -gt 0 ]; do
	error=$(aws lambda invoke --function-name "$function" --cli-binary-format raw-in-base64-out --cli-read-timeout 120 \
		--payload '{"replay":{}}' --query FunctionError --output text "$answer")
	cat "$answer"
	echo
	if [ "$error" != None ]; then
		echo "replay: the function failed" >&2
		exit 1
	fi
	grep -q '"more":true' "$answer" || break
	rounds=$((rounds - 1))
done
if grep -q '"failed":[1-9]' "$answer"; then
	echo "replay: records that could not be announced are still in the bucket; the function's log says why" >&2
	exit 1
fi
