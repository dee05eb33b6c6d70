// Locks the files in its arguments, and keeps them until it is killed.
import { hostFileSystem } from "../../adapters/_fs/file_system.ts";
import { say } from "./lab/program.ts";

const { paths } = JSON.parse(Deno.args[0] ?? "") as { paths: readonly string[] };
const locks = await Promise.all(
  paths.map((path) => hostFileSystem.lock(path, { create: false, mode: 0o600 })),
);
await say({ held: locks.filter((lock) => lock !== undefined).length });
await new Promise(() => setInterval(() => {}, 1_000));
