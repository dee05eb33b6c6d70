import { Buffer } from "node:buffer";
import { type FoundObject, isHashedFileName } from "../../src/adapter/contract.ts";
import type { ScanCall } from "../_remote/remote_store.ts";
import type { Reply, ServerNode } from "./connection.ts";
import { decodeEmbeddedKey, decodeManifest, MANIFEST_BYTES, MAX_KEY_BYTES } from "./object_head.ts";
import type { RespObjectNames } from "./object_names.ts";
import { ReplyError } from "./resp_error.ts";

/** Server keys per SCAN step. */
const STEP_NAMES = 500;

/** Why an object is left out of a listing. */
const UNREAD = "the server does not return their keys, or is moving them";

/** One scan, with the names of the objects. */
export interface ServerScan extends ScanCall {
  readonly names: RespObjectNames;
}

/** Lists the objects on several servers, each once. */
export async function* listServers(
  nodes: readonly ServerNode[],
  options: ServerScan,
): AsyncIterable<FoundObject> {
  const { names, signal } = options;
  const seen = new Set<string>();
  for (const node of nodes) {
    let cursor = "0";
    do {
      if (signal.aborted) return;
      const step = ["SCAN", cursor, "MATCH", names.manifestPattern, "COUNT", String(STEP_NAMES)];
      const answer = await node.send(step, signal);
      const [next, found] = Array.isArray(answer) ? answer : [];
      cursor = text(next) ?? "0";
      const manifestKeys = (Array.isArray(found) ? found : []).map(text).filter((manifestKey) => {
        // SCAN may return a key twice, and two servers may return it while a slot moves.
        if (manifestKey === undefined || seen.has(manifestKey)) return false;
        seen.add(manifestKey);
        return true;
      });
      const objects = manifestKeys.map((manifestKey = "") =>
        readManifest(node, manifestKey, options)
      );
      for (const object of await Promise.all(objects)) if (object !== undefined) yield object;
    } while (cursor !== "0");
  }
}

async function readManifest(
  node: ServerNode,
  manifestKey: string,
  { names, bytesOf, onUnread, signal }: ServerScan,
): Promise<FoundObject | undefined> {
  const name = names.nameIn(manifestKey);
  if (name === undefined) return undefined;
  const spelled = names.keyOf(name, undefined);
  if (spelled === null && !isHashedFileName(name)) return undefined;
  const isRead = spelled === null || bytesOf?.(spelled) === undefined;
  const end = MANIFEST_BYTES + (spelled === null ? MAX_KEY_BYTES : 0) - 1;
  // Reading the value resets its idle time, so the idle time is read first.
  const [idle, value] = await Promise.all([
    node.send(["OBJECT", "IDLETIME", manifestKey], signal).catch(unlessReply),
    isRead ? readStart(node, manifestKey, end, signal) : undefined,
  ]);
  if (signal.aborted) return undefined;
  // Whole seconds, rounded up: a more exact time known to this process takes precedence.
  const usedAt = typeof idle === "number" ? Date.now() - (idle + 1) * 1000 : undefined;
  if (spelled !== null && !isRead) return { key: spelled, byteLength: undefined, usedAt };
  if (value === "refused") return void onUnread(UNREAD);
  // The object expired or was removed after SCAN returned it.
  if (Buffer.isBuffer(value) && value.byteLength === 0) return undefined;
  const manifest = Buffer.isBuffer(value) ? decodeManifest(value) : undefined;
  if (spelled !== null) {
    // A foreign value under an object's name is listed too: removing the object removes it.
    return { key: spelled, byteLength: manifest?.byteLength ?? 0, usedAt };
  }
  if (manifest === undefined || !Buffer.isBuffer(value)) return undefined;
  const key = names.keyOf(name, decodeEmbeddedKey(value, manifest));
  return key === null ? void onUnread(UNREAD) : { key, byteLength: manifest.byteLength, usedAt };
}

/** The first bytes of a value; empty if there is none. */
async function readStart(
  node: ServerNode,
  manifestKey: string,
  end: number,
  signal: AbortSignal,
): Promise<Reply | "refused"> {
  try {
    return await node.send(["GETRANGE", manifestKey, "0", String(end)], signal);
  } catch (error) {
    // A value of another type, or one that moved to another server.
    if (error instanceof ReplyError) return error.code === "WRONGTYPE" ? null : "refused";
    throw error;
  }
}

/** Treats a refusal as unknown: the server may not record idle times. */
function unlessReply(error: unknown): null {
  if (error instanceof ReplyError) return null;
  throw error;
}

function text(reply: Reply | undefined): string | undefined {
  if (Buffer.isBuffer(reply)) return reply.toString();
  return typeof reply === "string" ? reply : undefined;
}
