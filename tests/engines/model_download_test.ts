import { assert, assertEquals, assertRejects } from "@std/assert";
import { basename, join } from "@std/path";
import { downloadModel } from "../../docs/examples/chat/model_download.ts";
import { PartialFile } from "../../docs/examples/chat/partial_file.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { Hub } from "./support/hub.ts";

const ID = "owner/tiny";

const FILES = {
  "config.json": "{}",
  "tokenizer.json": `{"large": "${"x".repeat(1000)}"}`,
  "tokenizer_config.json": "{}",
  "README.md": "not needed",
  "onnx/model.onnx": "weights".repeat(1000),
  "onnx/model_q4.onnx": "small weights".repeat(100),
};

Deno.test("downloadModel() brings what is needed, once", async () => {
  await using hub = new Hub(FILES);
  await using directory = await tempDirectory();
  const options = { endpoint: hub.endpoint, directory: directory.path };
  const target = await downloadModel(ID, options);
  assertEquals(target, join(directory.path, "owner", "tiny"));
  const wanted = ["config.json", "tokenizer.json", "tokenizer_config.json", "onnx/model_q4.onnx"];
  for (const path of wanted) {
    assertEquals(await Deno.readFile(join(target, path)), hub.files.get(path), path);
  }
  await assertRejects(() => Deno.stat(join(target, "README.md")), Deno.errors.NotFound);
  await assertRejects(() => Deno.stat(join(target, "onnx/model.onnx")), Deno.errors.NotFound);
  const before = hub.requests.length;
  await downloadModel(ID, options);
  assertEquals(hub.requests.slice(before), [`/api/models/${ID}/tree/main`]);
  await downloadModel(ID, { ...options, weights: "fp32" });
  assertEquals((await Deno.stat(join(target, "onnx/model.onnx"))).size, 7000);
});

Deno.test("downloadModel() resumes an interrupted download", async () => {
  await using hub = new Hub(FILES);
  await using directory = await tempDirectory();
  const options = { endpoint: hub.endpoint, directory: directory.path };
  const path = join(directory.path, "owner", "tiny", "onnx", "model_q4.onnx");
  hub.breaksAfter = 1100;
  await assertRejects(() => downloadModel(ID, options), Error, "1100 of 1300 bytes");
  await assertRejects(() => Deno.stat(path), Deno.errors.NotFound);
  hub.breaksAfter = Infinity;
  await downloadModel(ID, options);
  assertEquals(hub.requests.at(-1), `/${ID}/resolve/main/onnx/model_q4.onnx bytes=1100-`);
  assertEquals(await Deno.readFile(path), hub.files.get("onnx/model_q4.onnx"));
});

Deno.test("downloadModel() keeps nothing that is not what it should be", async () => {
  await using hub = new Hub(FILES);
  await using directory = await tempDirectory();
  const options = { endpoint: hub.endpoint, directory: directory.path };
  hub.files.set("onnx/model_q4.onnx", new TextEncoder().encode("foreign weights"));
  hub.lies = { "onnx/model_q4.onnx": { lfs: { oid: "00", size: 15 } } };
  await assertRejects(() => downloadModel(ID, options), Error, "with the digest 00");
  const onnx = join(directory.path, "owner", "tiny", "onnx");
  assertEquals(await Array.fromAsync(Deno.readDir(onnx)), []);
  hub.lies = { "tokenizer.json": { path: "../../tokenizer.json" } };
  await downloadModel(ID, options);
  const names = await Array.fromAsync(Deno.readDir(directory.path), ({ name }) => name);
  assertEquals(names, ["owner"]);
  await assertRejects(() => downloadModel("owner/none", options), Error, "404");
});

Deno.test("downloadModel() replaces a file of another revision, of the same size or begun", async () => {
  await using hub = new Hub(FILES);
  await using directory = await tempDirectory();
  const options = { endpoint: `${hub.endpoint}/`, directory: directory.path };
  const path = join(await downloadModel(ID, options), "onnx", "model_q4.onnx");
  const changed = (await Deno.readFile(path)).fill(1, 10, 20);
  hub.files.set("onnx/model_q4.onnx", changed);
  await downloadModel(ID, options);
  assertEquals(await Deno.readFile(path), changed);
  await Deno.remove(path);
  await Deno.writeFile(`${path}.part`, new Uint8Array(500));
  await downloadModel(ID, options);
  assertEquals(await Deno.readFile(path), changed);
});

Deno.test("downloadModel() writes below its directory only", async () => {
  await using hub = new Hub({
    ...FILES,
    "onnx/model_q4.onnx_data": "more weights",
    "onnx/model_q4.onnx_data\\..\\..\\x": "not weights",
  });
  await using directory = await tempDirectory();
  const options = { endpoint: hub.endpoint, directory: directory.path };
  for (const id of ["../tiny", "./tiny", "owner/..", "owner", "owner/tiny/x", "owner/"]) {
    await assertRejects(() => downloadModel(id, options), Error, "owner/name");
  }
  const onnx = join(await downloadModel(ID, options), "onnx");
  const names = await Array.fromAsync(Deno.readDir(onnx), ({ name }) => name);
  assertEquals(names.sort(), ["model_q4.onnx", "model_q4.onnx_data"]);
});

Deno.test("downloadModel() starts over if a partial file cannot be continued", async () => {
  await using hub = new Hub(FILES);
  await using directory = await tempDirectory();
  const options = { endpoint: hub.endpoint, directory: directory.path };
  const onnx = join(directory.path, "owner", "tiny", "onnx");
  const { byteLength = 0 } = hub.files.get("onnx/model_q4.onnx") ?? {};
  hub.lies = { "onnx/model_q4.onnx": { lfs: { oid: "00", size: byteLength + 1 } } };
  for (let start = 1; start <= 2; start++) {
    const before = hub.requests.length;
    await assertRejects(() => downloadModel(ID, options), Error, "1300 of 1301 bytes");
    const asked = hub.requests.slice(before).filter((path) => path.includes("model_q4"));
    const whole = `/${ID}/resolve/main/onnx/model_q4.onnx`;
    assertEquals(asked, start === 1 ? [whole] : [`${whole} bytes=1300-`, whole]);
  }
  hub.lies = {};
  await downloadModel(ID, options);
  assertEquals(await namesIn(onnx), ["model_q4.onnx"]);
});

Deno.test("downloadModel(): two at a time write to different partial files", async () => {
  await using hub = new Hub(FILES);
  await using directory = await tempDirectory();
  const options = { endpoint: hub.endpoint, directory: directory.path };
  const onnx = join(directory.path, "owner", "tiny", "onnx");
  const during: string[][] = [];
  const onProgress = (path: string): void => {
    if (path.startsWith("onnx/")) during.push([...Deno.readDirSync(onnx)].map(({ name }) => name));
  };
  await Deno.mkdir(onnx, { recursive: true });
  const path = join(onnx, "model_q4.onnx");
  // One process is downloading, two were killed.
  using other = await PartialFile.open(path);
  await other.write(new Uint8Array(700));
  await Deno.writeFile(`${path}.part`, new Uint8Array(500));
  await Deno.writeFile(`${path}.killed.part`, new Uint8Array(500));
  await Promise.all([downloadModel(ID, { ...options, onProgress }), downloadModel(ID, options)]);
  assertEquals(await Deno.readFile(path), hub.files.get("onnx/model_q4.onnx"));
  assert(during.every((names) => names.includes(basename(other.path))), "the other one's is gone");
  assertEquals((await Deno.stat(other.path)).size, 700);
  assertEquals(await namesIn(onnx), ["model_q4.onnx", basename(other.path)].sort());
});

async function namesIn(directory: string): Promise<string[]> {
  return (await Array.fromAsync(Deno.readDir(directory), ({ name }) => name)).sort();
}
