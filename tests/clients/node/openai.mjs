// The examples of the client's own documents, with another address and model. Prints what it saw as JSON.
import OpenAI from "openai";

const model = process.env.MODEL;
const client = new OpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY, maxRetries: 0 });
const weather = {
  name: "get_weather",
  description: "The weather in a city",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
const asking = (text) => [{ role: "user", content: text }];
const seen = {};

const plain = await client.chat.completions.create({ model, messages: asking("[[sim tokens=3]]") });
seen.plain = [plain.choices[0].message.content, plain.usage.completion_tokens, plain.model === model];

const stream = await client.chat.completions.create({
  model,
  messages: asking("[[sim tokens=4]]"),
  stream: true,
  stream_options: { include_usage: true },
});
seen.stream = ["", null];
for await (const chunk of stream) {
  seen.stream[0] += chunk.choices[0]?.delta?.content ?? "";
  seen.stream[1] = chunk.usage?.completion_tokens ?? seen.stream[1];
}

const runner = client.chat.completions.runTools({
  model,
  messages: asking("Weather in Paris? [[sim tools=1]]"),
  tools: [{ type: "function", function: { ...weather, parse: JSON.parse, function: ({ city }) => `Sunny in ${city}.` } }],
});
seen.tools = await runner.finalContent();
seen.called = runner.messages.filter((message) => message.role === "tool").map((message) => message.content);

const streamed = client.chat.completions.stream({
  model,
  messages: asking("Weather in Paris? [[sim tools=1]]"),
  tools: [{ type: "function", function: weather }],
});
const call = (await streamed.finalChatCompletion()).choices[0].message.tool_calls[0];
seen.streamedTool = [call.function.name, JSON.parse(call.function.arguments)];

const embeddings = await client.embeddings.create({ model, input: ["one two", "three"], dimensions: 8 });
seen.embeddings = [embeddings.data.map((entry) => entry.embedding.length), embeddings.usage.prompt_tokens];

const response = await client.responses.create({ model, input: "[[sim tokens=3]]" });
seen.response = [response.output_text, response.usage.output_tokens];
seen.responseStream = "";
for await (const event of await client.responses.create({ model, input: "[[sim tokens=3]]", stream: true })) {
  if (event.type === "response.output_text.delta") seen.responseStream += event.delta;
}

const completion = await client.completions.create({ model, prompt: "Once upon a time", max_tokens: 2 });
seen.completion = completion.choices[0].text;

seen.models = [];
for await (const listed of client.models.list()) seen.models.push(listed.id === model);

try {
  await client.chat.completions.create({ model: "nobody/nothing", messages: asking("hi") });
} catch (error) {
  seen.error = [error instanceof OpenAI.NotFoundError, error.code, error.requestID.startsWith("req_")];
}

console.log(JSON.stringify(seen));
