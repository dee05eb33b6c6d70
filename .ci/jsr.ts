// Prints the value of JSR_URL under which a task runs Deno:
//
//   "test": "JSR_URL=$(deno run -A --no-config .ci/jsr.ts) deno test"
//
// A value that is already set is kept. An empty one is JSR itself, printed where JSR answers. Else
// it is the URL of a copy of the folder `jsr` next to this file: a copy, because `deno publish`
// refuses modules that are inside the package and excluded from it.
import { createHash } from "node:crypto";
import { cp, readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** How long JSR may take to answer, in milliseconds. */
const patience = 2_000;

/** Whether a small module can be loaded from JSR, without any cache and without naming its host. */
async function jsrAnswers(): Promise<boolean> {
  const script = 'import "jsr:@std/assert@1/assertion-error"';
  const child = new Deno.Command(Deno.execPath(), {
    args: ["eval", "--no-config", "--no-lock", "--reload", script],
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  const timer = setTimeout(() => child.kill("SIGKILL"), patience);
  const { success } = await child.status;
  clearTimeout(timer);
  return success;
}

/** A hash over the paths and the bytes of all files below `folder`. */
async function digest(folder: string): Promise<string> {
  const hash = createHash("sha256");
  for (const path of (await readdir(folder, { recursive: true })).sort()) {
    const file = join(folder, path);
    if ((await Deno.stat(file)).isFile) hash.update(`${path}\n`).update(await Deno.readFile(file));
  }
  return hash.digest("hex").slice(0, 16);
}

/** Whether `folder` is ours alone and whole: anyone may write to a temp folder, and cleaners do. */
async function isSound(folder: string, hash: string): Promise<boolean> {
  try {
    const { isDirectory, uid, mode } = await Deno.lstat(folder);
    const isOurs = uid === Deno.uid() && (uid === null || ((mode ?? 0) & 0o077) === 0);
    return isDirectory && isOurs && await digest(folder) === hash;
  } catch {
    return false;
  }
}

/** Returns the copy of `source` in the temp folder, made now unless an earlier call left it there. */
async function copied(source: string): Promise<string> {
  const hash = await digest(source);
  const copy = join(tmpdir(), `kvtier-jsr-${hash}`);
  if (await isSound(copy, hash)) return copy;
  const fresh = await Deno.makeTempDir({ dir: tmpdir(), prefix: "kvtier-jsr-" });
  await cp(source, fresh, { recursive: true });
  await Deno.chmod(fresh, 0o700);
  // Renaming fails over another task's copy, or over a damaged one, which makes room for this one.
  const rename = (): Promise<boolean> => Deno.rename(fresh, copy).then(() => true, () => false);
  if (await rename()) return copy;
  if (!await isSound(copy, hash)) {
    await Deno.remove(copy, { recursive: true }).catch(() => {});
    return await rename() ? copy : fresh;
  }
  await Deno.remove(fresh, { recursive: true });
  return copy;
}

let value = Deno.env.get("JSR_URL") ?? "";
if (value === "" && !await jsrAnswers()) {
  value = `${pathToFileURL(await copied(fileURLToPath(new URL("jsr/", import.meta.url))))}/`;
}
await Deno.stdout.write(new TextEncoder().encode(`${value}\n`));
