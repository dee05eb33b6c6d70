import * as ort from "npm:onnxruntime-web@1.30.0/webgpu";
import { tinyDecoder } from "../../../docs/examples/chat/tiny_model/tiny_decoder.ts";

// One thread: more need shared memory between workers, and gain nothing with models this small.
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";

// What the runtime sets up once and keeps must not look like a leak of the first test that uses it.
const session = await ort.InferenceSession.create(tinyDecoder().model, {
  executionProviders: ["wasm"],
});
await session.release();

export { ort };
