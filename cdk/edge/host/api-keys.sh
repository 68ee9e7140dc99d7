#!/bin/bash
# Fetches the server API's keys into the file that the node reads again by itself. Called at installation with 6 attempts, by the timer with 1.
# A failure leaves the keys that are there.
set -euo pipefail
root="${root:-}"
. "$root/etc/tideline/api-keys.env"
file="$root/etc/tideline/api-keys"
new="$(mktemp "$file.XXXXXX")" # in the same folder, so that a reader finds the old file or the new one
trap 'rm -f "$new"' EXIT

for try in $(seq "${1:-1}"); do
  [ "$try" = 1 ] || sleep "$((try * try + RANDOM % 3))"
  if aws secretsmanager get-secret-value --region "$AWS_REGION" --secret-id "$API_KEYS_SECRET" --query SecretString --output text > "$new" && [ -s "$new" ]; then
    cmp --silent "$new" "$file" && exit 0
    chown root:tideline "$new"
    chmod 0640 "$new"
    mv -f "$new" "$file"
    echo "the server API's keys have changed"
    exit 0
  fi
  echo "attempt $try of ${1:-1} to fetch the server API's keys failed" >&2
done
exit 1
