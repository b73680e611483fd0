// The Vercel AI SDK with @ai-sdk/amazon-bedrock, which signs with aws4fetch and speaks HTTP by fetch.

import { createAmazonBedrock } from "@ai-sdk/amazon-bedrock";
import { generateObject, generateText, jsonSchema, streamText, tool } from "ai";
import { report, task } from "./harness.mjs";

const bedrock = createAmazonBedrock({ baseURL: task.url, region: "us-east-1" });
const settings = { temperature: 0, maxOutputTokens: task.max_tokens, maxRetries: 0 };

const ask = (more = {}) => ({
  model: bedrock(task.model),
  ...(more.messages ? {} : { prompt: task.question }),
  ...settings,
  ...more,
});
const tools = {
  [task.tool.name]: tool({
    description: task.tool.description,
    inputSchema: jsonSchema(task.tool.schema),
  }),
};
const withTools = (toolChoice) => ask({ prompt: task.tool_question, tools, toolChoice });
const named = withTools({ type: "tool", toolName: task.tool.name });

const calls = (toolCalls) =>
  toolCalls.map(({ toolName, input }) => ({ name: toolName, arguments: input }));

const answered = ({ text, toolCalls, finishReason, usage }) => ({
  text,
  calls: calls(toolCalls),
  stop: finishReason,
  usage: [usage.inputTokens, usage.outputTokens],
});

const generate = async (request) => answered(await generateText(request));

const stream = async (request) => {
  let failure;
  const result = streamText({ ...request, onError: ({ error }) => (failure = error) });
  const pieces = [];
  for await (const piece of result.textStream) pieces.push(piece);
  if (failure) throw failure;
  const usage = await result.usage;
  return {
    pieces,
    calls: calls(await result.toolCalls),
    stop: await result.finishReason,
    usage: [usage.inputTokens, usage.outputTokens],
  };
};

const toolResult = async () => {
  const called = await generateText(named);
  const content = called.toolCalls.map(({ toolCallId, toolName }) => ({
    type: "tool-result",
    toolCallId,
    toolName,
    output: { type: "json", value: task.tool_result },
  }));
  const messages = [
    { role: "user", content: task.tool_question },
    ...called.response.messages,
    { role: "tool", content },
  ];
  return generate(ask({ messages, tools }));
};

const structured = async () => {
  const { object } = await generateObject(ask({ schema: jsonSchema(task.answer.json) }));
  return { value: object };
};

await report(
  ["@ai-sdk/amazon-bedrock", "ai"],
  {
    plain: () => generate(ask()),
    stream: () => stream(ask()),
    system: () => generate(ask({ system: task.system })),
    stop: () => generate(ask({ stopSequences: [task.stop] })),
    unknown_model: () => generate(ask({ model: bedrock(task.unknown_model) })),
    overlong: () => stream(ask({ prompt: task.overlong })),
    throttled: () => generate(ask({ model: bedrock(task.throttled_model) })),
    tool_auto: () => generate(withTools("auto")),
    tool_any: () => generate(withTools("required")),
    tool_named: () => generate(named),
    tool_stream: () => stream(withTools("required")),
    tool_result: toolResult,
    structured_by_tool: structured,
  },
  async () => "HTTP/1.1",
);
