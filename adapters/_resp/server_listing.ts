import { Buffer } from "node:buffer";
import { isHashedFileName, type ObjectKey } from "../../src/l2/adapter.ts";
import type { FoundObject } from "../_shared/capacity.ts";
import type { Reply, ServerNode } from "./connection.ts";
import { decodeCarriedKey, decodeHead, HEAD_BYTES, MAX_KEY_BYTES } from "./object_head.ts";
import type { ObjectNames } from "./object_names.ts";
import { ReplyError } from "./resp_error.ts";

/** Names that a server is asked to look at in one step. */
const STEP_NAMES = 500;

/** What is listed, and how. */
export interface ListingOptions {
  /** How objects are called. */
  readonly names: ObjectNames;
  /** Whether the size of an object is known: then its value is not read. */
  readonly isKnown: (key: ObjectKey) => boolean;
  /** Told that an object is there whose key or bytes the server does not tell. */
  readonly onUnread: () => void;
  /** Aborts when nobody wants more; what waits for an answer then ends. */
  readonly signal: AbortSignal;
}

/** The objects on some servers, each once. */
export async function* listServers(
  nodes: readonly ServerNode[],
  options: ListingOptions,
): AsyncIterable<FoundObject> {
  const { names, signal } = options;
  const seen = new Set<string>();
  for (const node of nodes) {
    let cursor = "0";
    do {
      if (signal.aborted) return;
      const step = ["SCAN", cursor, "MATCH", names.headPattern, "COUNT", String(STEP_NAMES)];
      const answer = await node.send(step, signal);
      const [next, found] = Array.isArray(answer) ? answer : [];
      cursor = text(next) ?? "0";
      const heads = (Array.isArray(found) ? found : []).map(text).filter((head) => {
        // A server may name a key twice, and two may while a slot moves.
        if (head === undefined || seen.has(head)) return false;
        seen.add(head);
        return true;
      });
      const objects = heads.map((head = "") => readHead(node, head, options));
      for (const object of await Promise.all(objects)) if (object !== undefined) yield object;
    } while (cursor !== "0");
  }
}

async function readHead(
  node: ServerNode,
  head: string,
  { names, isKnown, onUnread, signal }: ListingOptions,
): Promise<FoundObject | undefined> {
  const name = names.nameIn(head);
  if (name === undefined) return undefined;
  const spelled = names.keyOf(name, undefined);
  if (spelled === null && !isHashedFileName(name)) return undefined;
  const isRead = spelled === null || !isKnown(spelled);
  const end = HEAD_BYTES + (spelled === null ? MAX_KEY_BYTES : 0) - 1;
  // Reading a value counts as a use, so the time comes first.
  const [idle, value] = await Promise.all([
    node.send(["OBJECT", "IDLETIME", head], signal).catch(unlessReply),
    isRead ? readStart(node, head, end, signal) : undefined,
  ]);
  if (signal.aborted) return undefined;
  // Full seconds: it was used within the second before, and what this process knows is better.
  const usedAt = typeof idle === "number" ? Date.now() - (idle + 1) * 1000 : undefined;
  if (spelled !== null && !isRead) return { key: spelled, byteLength: undefined, usedAt };
  if (value === "refused") return void onUnread();
  // It has expired or was removed since the server named it.
  if (Buffer.isBuffer(value) && value.byteLength === 0) return undefined;
  const fields = Buffer.isBuffer(value) ? decodeHead(value) : undefined;
  if (spelled !== null) {
    // Something else under the name of an object is listed too: it is removed with the object.
    return { key: spelled, byteLength: fields?.byteLength ?? 0, usedAt };
  }
  if (fields === undefined || !Buffer.isBuffer(value)) return undefined;
  const key = names.keyOf(name, decodeCarriedKey(value, fields));
  return key === null ? void onUnread() : { key, byteLength: fields.byteLength, usedAt };
}

/** The start of a value; empty if there is none. */
async function readStart(
  node: ServerNode,
  head: string,
  end: number,
  signal: AbortSignal,
): Promise<Reply | "refused"> {
  try {
    return await node.send(["GETRANGE", head, "0", String(end)], signal);
  } catch (error) {
    // A value of another type, or one that has moved to another server.
    if (error instanceof ReplyError) return error.code === "WRONGTYPE" ? null : "refused";
    throw error;
  }
}

/** What a server refuses to say is unknown: it may record no times. */
function unlessReply(error: unknown): null {
  if (error instanceof ReplyError) return null;
  throw error;
}

function text(reply: Reply | undefined): string | undefined {
  if (Buffer.isBuffer(reply)) return reply.toString();
  return typeof reply === "string" ? reply : undefined;
}
