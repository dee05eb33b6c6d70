import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { loadModel } from "../../../../src/engine/onnx/model_source.ts";

Deno.test("a model that cannot be loaded is named without the secrets of its URL", async () => {
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    () => new Response(null, { status: 403 }),
  );
  const { port } = server.addr;
  for (
    const source of [
      `http://127.0.0.1:${port}/m.onnx?token=s3cret`,
      new URL(`http://127.0.0.1:${port}/m.onnx?token=s3cret`),
      // No server listens on this port.
      "http://127.0.0.1:1/m.onnx?token=s3cret#s3cret",
      "http://user:s3cret@127.0.0.1:1/m.onnx",
      "http://s3cret:s3cret/m.onnx",
    ]
  ) {
    const error = await assertRejects(() => loadModel(source, {}), Error, "must be readable");
    assert(!Deno.inspect(error).includes("s3cret"), error.message);
  }
  const { message } = await assertRejects(
    () => loadModel(`http://127.0.0.1:${port}/m.onnx?a=b`, {}),
    Error,
  );
  assertMatch(message, /^Model file http:\/\/127\.0\.0\.1:\d+\/m\.onnx must be readable: .*403$/);
  const missing = await assertRejects(() => loadModel("/no/such.onnx", {}), Error, "/no/such.onnx");
  assertEquals(missing.cause instanceof Deno.errors.NotFound, true);
});
