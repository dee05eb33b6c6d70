import { assert, assertEquals } from "@std/assert";
import { ChatEngine } from "../../docs/examples/chat/chat_engine.ts";
import { ChatServer } from "../../docs/examples/chat/chat_server.ts";
import { tinyModel } from "../../docs/examples/chat/model_files.ts";
import { OnnxDecoder, type Ort } from "../../src/engine/onnx/mod.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { ort } from "./support/ort.ts";

/** The runtime, failing in runs chosen by `fails`. */
function failingOrt(fails: () => boolean): Ort {
  const create: Ort["InferenceSession"]["create"] = async (model, options) => {
    const session = await (ort as Ort).InferenceSession.create(model, options);
    return {
      inputMetadata: session.inputMetadata,
      outputMetadata: session.outputMetadata,
      run: (feeds, fetches) =>
        fails() ? Promise.reject(new Error("out of memory")) : session.run(feeds, fetches),
      release: () => session.release(),
    };
  };
  return { ...ort, InferenceSession: { create } };
}

Deno.test("chat: a failure of the runtime in a stream is an event, and the server goes on", async () => {
  let runsLeft = Infinity;
  const { id, format, decoder: model } = tinyModel();
  await using cache = await TieredCache.open({ device: new HostDevice() });
  await using decoder = await OnnxDecoder.open(cache, {
    ...model,
    ort: failingOrt(() => runsLeft-- <= 0),
  });
  const engine = new ChatEngine(decoder, format);
  const server = new ChatServer({ engine, model: id, page: "", apiKeys: [] });
  await using http = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: ({ port }) => server.serves(port) },
    server.handle,
  );
  /** The data of the events of a stream. */
  const ask = async (): Promise<string[]> => {
    const response = await fetch(`http://127.0.0.1:${http.addr.port}/v1/chat/completions`, {
      method: "POST",
      body: JSON.stringify({
        messages: [{ role: "user", content: "Tell me about the sea." }],
        "max_tokens": 30,
        stream: true,
      }),
    });
    const text = await response.text();
    assertEquals(response.status, 200, text);
    return text.trimEnd().split("\n\n").map((event) => event.replace(/^data: /, ""));
  };
  const wordsOf = (events: readonly string[]): string =>
    events.map((event) => JSON.parse(event).choices[0].delta.content ?? "").join("");

  const whole = await ask();
  assertEquals(whole.pop(), "[DONE]");
  runsLeft = 20;
  const broken = await ask();
  assertEquals(broken.pop(), "[DONE]");
  const error = { message: "out of memory", type: "server_error" };
  assertEquals(JSON.parse(broken.pop() ?? ""), { error });
  const words = wordsOf(broken);
  assert(words.length > 0 && wordsOf(whole).startsWith(words), words);
  runsLeft = Infinity;
  const again = await ask();
  assertEquals(again.pop(), "[DONE]");
  assertEquals(wordsOf(again), wordsOf(whole));
});
