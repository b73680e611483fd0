// @aws-sdk/client-bedrock-runtime, the AWS SDK for JavaScript v3, on its default transport: HTTP/2.

import { BedrockClient, ListFoundationModelsCommand } from "@aws-sdk/client-bedrock";
import {
  BedrockRuntimeClient,
  ConverseCommand,
  ConverseStreamCommand,
  CountTokensCommand,
  InvokeModelCommand,
  InvokeModelWithResponseStreamCommand,
} from "@aws-sdk/client-bedrock-runtime";
import { report, task } from "./harness.mjs";

const options = { endpoint: task.url, region: "us-east-1", maxAttempts: 1 };
const runtime = new BedrockRuntimeClient(options);
const control = new BedrockClient(options);

const inferenceConfig = { maxTokens: task.max_tokens, temperature: 0 };
const user = (...content) => ({ role: "user", content });
const ask = (more = {}) => ({
  modelId: task.model,
  messages: [user({ text: task.question })],
  inferenceConfig,
  ...more,
});
const withTools = (toolChoice, ...messages) =>
  ask({
    messages: [user({ text: task.tool_question }), ...messages],
    toolConfig: {
      tools: [
        {
          toolSpec: {
            name: task.tool.name,
            description: task.tool.description,
            inputSchema: { json: task.tool.schema },
          },
        },
      ],
      toolChoice,
    },
  });
const named = withTools({ tool: { name: task.tool.name } });

const answered = ({ output, stopReason, usage }) => ({
  text: output.message.content.map((block) => block.text ?? "").join(""),
  calls: output.message.content
    .filter((block) => block.toolUse)
    .map(({ toolUse }) => ({ name: toolUse.name, arguments: toolUse.input })),
  stop: stopReason,
  usage: [usage.inputTokens, usage.outputTokens],
});

const converse = async (request) => answered(await runtime.send(new ConverseCommand(request)));

const converseStream = async (request) => {
  const result = { pieces: [], calls: [] };
  const { stream } = await runtime.send(new ConverseStreamCommand(request));
  for await (const event of stream) {
    const delta = event.contentBlockDelta?.delta;
    const start = event.contentBlockStart?.start;
    if (delta?.text !== undefined) result.pieces.push(delta.text);
    if (start?.toolUse) result.calls.push({ name: start.toolUse.name, arguments: "" });
    if (delta?.toolUse) result.calls.at(-1).arguments += delta.toolUse.input;
    if (event.messageStop) result.stop = event.messageStop.stopReason;
    if (event.metadata) {
      const { inputTokens, outputTokens } = event.metadata.usage;
      result.usage = [inputTokens, outputTokens];
    }
  }
  return result;
};

const toolResult = async () => {
  const { output } = await runtime.send(new ConverseCommand(named));
  const results = output.message.content
    .filter((block) => block.toolUse)
    .map(({ toolUse: { toolUseId } }) => ({
      toolResult: { toolUseId, content: [{ json: task.tool_result }] },
    }));
  return converse(withTools({ auto: {} }, output.message, user(...results)));
};

const structured = async () => {
  const jsonSchema = { schema: task.answer.json_text, name: task.answer.name };
  const textFormat = { type: "json_schema", structure: { jsonSchema } };
  const answer = await converse(ask({ outputConfig: { textFormat } }));
  return { ...answer, value: JSON.parse(answer.text) };
};

const nativeRequest = {
  modelId: task.model,
  contentType: "application/json",
  body: JSON.stringify({ prompt: task.prompt, max_gen_len: task.max_tokens, temperature: 0 }),
};
const decode = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

const native = async () => {
  const { body } = await runtime.send(new InvokeModelCommand(nativeRequest));
  const { generation, prompt_token_count, generation_token_count, stop_reason } = decode(body);
  return { text: generation, usage: [prompt_token_count, generation_token_count], stop: stop_reason };
};

const nativeStream = async () => {
  const { body } = await runtime.send(new InvokeModelWithResponseStreamCommand(nativeRequest));
  const chunks = [];
  for await (const event of body) chunks.push(decode(event.chunk.bytes));
  const figures = chunks.at(-1)["amazon-bedrock-invocationMetrics"];
  return {
    pieces: chunks.map((chunk) => chunk.generation),
    usage: [figures.inputTokenCount, figures.outputTokenCount],
    stop: chunks.at(-1).stop_reason,
  };
};

const count = async () => {
  const input = { converse: { messages: ask().messages } };
  const { inputTokens } = await runtime.send(new CountTokensCommand({ modelId: task.model, input }));
  return { tokens: inputTokens };
};

const models = async () => {
  const { modelSummaries } = await control.send(new ListFoundationModelsCommand({}));
  return { models: modelSummaries.map(({ modelId }) => modelId) };
};

// What the handler that the SDK chose by itself says of the connection.
const transport = async () => {
  const { handlerProtocol } = runtime.config.requestHandler.metadata;
  return handlerProtocol === "h2" ? "HTTP/2" : handlerProtocol;
};

await report(
  ["@aws-sdk/client-bedrock-runtime", "@aws-sdk/client-bedrock"],
  {
    plain: () => converse(ask()),
    stream: () => converseStream(ask()),
    system: () => converse(ask({ system: [{ text: task.system }] })),
    stop: () => converse(ask({ inferenceConfig: { ...inferenceConfig, stopSequences: [task.stop] } })),
    unknown_model: () => converse(ask({ modelId: task.unknown_model })),
    overlong: () => converseStream(ask({ messages: [user({ text: task.overlong })] })),
    throttled: () => converse(ask({ modelId: task.throttled_model })),
    tool_auto: () => converse(withTools({ auto: {} })),
    tool_any: () => converse(withTools({ any: {} })),
    tool_named: () => converse(named),
    tool_stream: () => converseStream(withTools({ any: {} })),
    tool_result: toolResult,
    structured,
    native,
    native_stream: nativeStream,
    count,
    models,
  },
  transport,
);
runtime.destroy();
control.destroy();
