// OpenAI's package for Node and the Vercel AI SDK against Tollgate, with a model of every provider behind it.

import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { embed, generateText, Output, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";

const http = process.env.TOLLGATE_HTTP;
const apiKey = process.env.TOLLGATE_API_KEY;
const models = process.env.TOLLGATE_MODELS.split(",");
const embedders = process.env.TOLLGATE_EMBEDDERS.split(",");
const said = "You said: hello";

async function openai(model) {
  const client = new OpenAI({ baseURL: `${http}/v1`, apiKey, maxRetries: 0 });
  const messages = [{ role: "user", content: "hello" }];
  const answer = await client.chat.completions.create({ model, messages });
  assert.equal(answer.choices[0].message.content, said);
  let text = "";
  for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? "";
  }
  assert.equal(text, said);
  const whole = await client.responses.stream({ model, input: "hello" }).finalResponse();
  assert.equal(whole.output_text, said);
  const limited = client.chat.completions.create({ model, messages: [{ role: "user", content: "#sim:status=429" }] });
  await assert.rejects(limited, OpenAI.RateLimitError);
}

function doors(model) {
  const openai = createOpenAI({ baseURL: `${http}/openai/v1`, apiKey });
  return {
    chat: openai.chat(model),
    responses: openai.responses(model),
    anthropic: createAnthropic({ baseURL: `${http}/anthropic/v1`, apiKey })(model),
    google: createGoogleGenerativeAI({ baseURL: `${http}/gemini/v1beta`, apiKey })(model),
  };
}

async function sdk(model) {
  // Tollgate keeps no answers, so nothing can be referred to.
  const providerOptions = { openai: { store: false } };
  const shared = { model, maxRetries: 0, maxOutputTokens: 1000, providerOptions };
  assert.equal((await generateText({ ...shared, prompt: "hello" })).text, said);
  const streamed = streamText({ ...shared, prompt: "hello" });
  let text = "";
  for await (const piece of streamed.textStream) text += piece;
  assert.equal(text, said);
  assert.ok((await streamed.usage).outputTokens > 0);

  let calls = 0;
  const weather = tool({
    description: "Tells the weather in a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async () => `sunny ${calls++}`,
  });
  const looped = await generateText({
    ...shared,
    prompt: "weather in Rome and Oslo #sim:calls=2",
    tools: { weather },
    stopWhen: stepCountIs(3),
  });
  assert.equal(calls, 2);
  assert.match(looped.text, /^The tools said: .*sunny 0.*sunny 1/s);

  const shaped = await generateText({
    ...shared,
    prompt: "hello",
    output: Output.object({ schema: z.object({ city: z.string(), warm: z.boolean() }) }),
  });
  assert.equal(typeof shaped.output.warm, "boolean");
}

for (const model of models) {
  await openai(model);
  for (const [door, client] of Object.entries(doors(model))) {
    try {
      await sdk(client);
    } catch (error) {
      console.error(`${door} with ${model}`);
      throw error;
    }
  }
}
for (const model of embedders) {
  const embedder = createOpenAI({ baseURL: `${http}/v1`, apiKey }).textEmbeddingModel(model);
  assert.ok((await embed({ model: embedder, value: "a" })).embedding.length > 1);
}
console.log("node ok");
