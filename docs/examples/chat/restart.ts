// deno-lint-ignore-file no-console -- a program prints
/**
 * Asks a chat server two questions about one document and restarts it in between: the second request
 * finds the document in the cache. Then asks the second question again with an empty cache; the
 * answer must be the same.
 *
 * `deno task chat:restart [--model DIR|ID] [--weights NAME] [--models DIR]`
 */
import { ChatProcess } from "./chat_process.ts";

const NAME = "lighthouse.txt";
const QUESTIONS = ["Who built the lighthouse?", "How many steps does the tower have?"] as const;
const MAX_TOKENS = 48;

const text = await Deno.readTextFile(new URL(NAME, import.meta.url));

/** Starts a server, asks a question and returns the answer. */
async function ask(question: string, cache: string, heading: string): Promise<string> {
  await using chat = await ChatProcess.start([...Deno.args, `--cache=${cache}`]);
  console.log(`${heading} (${chat.title})\n> ${question}`);
  const start = performance.now();
  const response = await chat.post({
    messages: [{ role: "user", content: `${text}\n${question}` }],
    "max_tokens": MAX_TOKENS,
    stream: true,
    "stream_options": { "include_usage": true },
  });
  // The response starts with the first words.
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const events = await response.text();
  if (!response.ok) throw new Error(events);
  const chunks = events.trimEnd().split("\n\n").slice(0, -1)
    .map((event) => JSON.parse(event.replace(/^data: /, "")));
  const answer = chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join("");
  const { prompt_tokens: tokens, prompt_tokens_details: details } = chunks.at(-1).usage;
  console.log(
    `${answer}\n[${details["cached_tokens"]} of ${tokens} tokens from the cache, ` +
      `first words after ${seconds} s]\n`,
  );
  return answer;
}

const directory = await Deno.makeTempDir({ prefix: "kvtier-chat-" });
try {
  console.log(`${NAME}, and a question about it\n`);
  await ask(QUESTIONS[0], `${directory}/kv`, "First process");
  const cached = await ask(QUESTIONS[1], `${directory}/kv`, "Second process");
  const cold = await ask(QUESTIONS[1], `${directory}/none`, "Third process, nothing cached");
  const isSame = cached === cold;
  console.log(isSame ? "The same answer, cached or not." : "The answers differ.");
  if (!isSame) Deno.exitCode = 1;
} finally {
  await Deno.remove(directory, { recursive: true });
}
