// Publish on a channel from Node.js (npm install @aws-sdk/client-lambda).
// FUNCTION is the stack's output BroadcastArn. The caller needs the stack's managed policy Publisher.
import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';

const answer = await new LambdaClient().send(
  new InvokeCommand({
    FunctionName: process.env.FUNCTION,
    Payload: JSON.stringify({
      publications: [
        // With an id, sending it again publishes nothing: a retry is safe.
        { channel: 'chat:lobby', data: { text: 'Order 17 has shipped' }, id: 'order-17-shipped' },
      ],
    }),
  }),
);
const body = JSON.parse(Buffer.from(answer.Payload).toString());
if (answer.FunctionError) throw new Error(body.errorMessage);
for (const result of body.results) console.log(result.position ?? result.error);
