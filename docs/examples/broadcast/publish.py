"""Publish on a channel from Python (pip install boto3).

FUNCTION is the stack's output BroadcastArn. The caller needs the stack's managed policy Publisher.
"""

import json
import os

import boto3

answer = boto3.client("lambda").invoke(
    FunctionName=os.environ["FUNCTION"],
    Payload=json.dumps({"publications": [
        # With an id, sending it again publishes nothing: a retry is safe.
        {"channel": "chat:lobby", "data": {"text": "Order 17 has shipped"}, "id": "order-17-shipped"},
    ]}),
)
body = json.load(answer["Payload"])
if "FunctionError" in answer:
    raise SystemExit(body["errorMessage"])
for result in body["results"]:
    print(result.get("position") or result["error"])
