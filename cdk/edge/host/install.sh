#!/bin/bash
# Installs an unpacked archive on Amazon Linux 2023 and starts the node. Called by user data with the archive's folder and LOG_GROUP.
set -euo pipefail
from="$1"
root="${root:-}"
metadata="${TIDELINE_METADATA:-http://169.254.169.254}" # the tests' stand-in

imds() {
  curl --silent --show-error --fail --max-time 2 --retry 5 --retry-connrefused -H "X-aws-ec2-metadata-token: $imds_token" \
    "$metadata/latest/meta-data/$1"
}
imds_token="$(curl --silent --show-error --fail --max-time 2 --retry 5 --retry-connrefused -X PUT \
  -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$metadata/latest/api/token")"

id -u tideline >/dev/null 2>&1 || useradd --system --no-create-home --home-dir /nonexistent --shell /sbin/nologin tideline

install -D -m 0755 "$from/tideline-node" "$root/opt/tideline/tideline-node"
install -D -m 0644 "$from/tideline-node.service" "$root/etc/systemd/system/tideline-node.service"
[ ! -f "$from/channels.json" ] || install -D -m 0644 "$from/channels.json" "$root/opt/tideline/channels.json"
install -D -m 0644 "$from/logrotate.conf" "$root/etc/logrotate.d/tideline-node"
install -D -m 0644 "$from/sysctl.conf" "$root/etc/sysctl.d/90-tideline.conf"
install -D -m 0644 "$from/logrotate-hourly.conf" "$root/etc/systemd/system/logrotate.timer.d/hourly.conf"
install -d -m 0755 "$root/opt/aws/amazon-cloudwatch-agent/etc"
sed "s|@LOG_GROUP@|$LOG_GROUP|" "$from/agent.json" > "$root/opt/aws/amazon-cloudwatch-agent/etc/tideline.json"
install -d -m 0750 "$root/var/log/tideline"

# The server API's keys. A node that should have them and has not must not serve: its share of the calls would be refused.
if [ -f "$root/etc/tideline/api-keys.env" ]; then
  install -D -m 0755 "$from/api-keys.sh" "$root/opt/tideline/api-keys.sh"
  for unit in service timer; do
    install -D -m 0644 "$from/api-keys.$unit" "$root/etc/systemd/system/tideline-api-keys.$unit"
  done
  root="$root" "$root/opt/tideline/api-keys.sh" 6
fi

# What only the instance knows. Four fifths of the memory are the Go heap's; the rest is the kernel's, for sockets, and the agent's.
memory_kib="$(awk '/^MemTotal:/ {print $2}' /proc/meminfo)"
{
  echo "NODE_ID=$(imds instance-id)"
  echo "ZONE=$(imds placement/availability-zone)"
  echo "GOMEMLIMIT=$((memory_kib * 4 / 5))KiB"
} >> "$root/etc/tideline/node.env"
chmod 0644 "$root/etc/tideline/node.env" # no secrets: nodes verify with public keys and sign in to Redis by IAM

sysctl --quiet --system || echo "some kernel settings were refused" >&2
systemctl daemon-reload
systemctl enable --now tideline-node.service
systemctl restart logrotate.timer || true
[ ! -f "$root/etc/tideline/api-keys.env" ] || systemctl enable --now tideline-api-keys.timer

# Logs go on to CloudWatch. A node without them still serves, so this comes last and may fail.
if dnf install --quiet --assumeyes amazon-cloudwatch-agent &&
  "$root/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl" -a fetch-config -m ec2 -s \
    -c "file:$root/opt/aws/amazon-cloudwatch-agent/etc/tideline.json"; then
  echo "logs go to CloudWatch"
else
  echo "the CloudWatch agent could not be started: logs stay in /var/log/tideline" >&2
fi
