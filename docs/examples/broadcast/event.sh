#!/bin/sh
# Publish by EventBridge: nobody waits for Redis, and what it does not take at once is tried again for hours.
# STAGE is the stack's stage. The source must be tideline.<stage>: the default bus is shared by stages.
set -eu
aws events put-events --entries "[{
  \"Source\": \"tideline.$STAGE\",
  \"DetailType\": \"tideline.broadcast\",
  \"Detail\": \"{\\\"publications\\\":[{\\\"channel\\\":\\\"chat:lobby\\\",\\\"data\\\":{\\\"text\\\":\\\"Order 17 has shipped\\\"}}]}\"
}]"
