// The present conversation as a call of the API.

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// JSON is Python but for three words; they stand outside of strings only.
const python = (value) =>
  JSON.stringify(value, null, 4).replace(/"(?:[^"\\]|\\.)*"|\b(?:true|false|null)\b/g, (found) =>
    ({ true: "True", false: "False", null: "None" })[found] ?? found,
  );

const indented = (text, width) => text.replaceAll("\n", `\n${" ".repeat(width)}`);

// body: {model, messages, …} as of /v1/chat/completions.
export function snippets(body, apiBase) {
  const { model, messages, ...rest } = body;
  const options = (write, join) => Object.entries(rest).map(([name, value]) => join(name, write(value)));
  return {
    curl: [
      `curl ${quoted(`${apiBase}/chat/completions`)} \\`,
      `  -H "Authorization: Bearer $API_KEY" \\`,
      `  -H 'Content-Type: application/json' \\`,
      `  -d ${quoted(JSON.stringify({ ...body, stream: true }, null, 2))}`,
    ].join("\n"),
    python: [
      "import os",
      "from openai import OpenAI",
      "",
      `client = OpenAI(base_url=${JSON.stringify(apiBase)}, api_key=os.environ["API_KEY"])`,
      "stream = client.chat.completions.create(",
      `    model=${JSON.stringify(model)},`,
      `    messages=${indented(python(messages), 4)},`,
      ...options(python, (name, value) => `    ${name}=${indented(value, 4)},`),
      "    stream=True,",
      ")",
      "for event in stream:",
      "    if event.choices:",
      '        print(event.choices[0].delta.content or "", end="", flush=True)',
    ].join("\n"),
    js: [
      'import OpenAI from "openai";',
      "",
      `const client = new OpenAI({ baseURL: ${JSON.stringify(apiBase)}, apiKey: process.env.API_KEY });`,
      "const stream = await client.chat.completions.create({",
      `  model: ${JSON.stringify(model)},`,
      `  messages: ${indented(JSON.stringify(messages, null, 2), 2)},`,
      ...options((value) => JSON.stringify(value), (name, value) => `  ${name}: ${value},`),
      "  stream: true,",
      "});",
      "for await (const event of stream) {",
      '  process.stdout.write(event.choices[0]?.delta?.content ?? "");',
      "}",
    ].join("\n"),
  };
}
