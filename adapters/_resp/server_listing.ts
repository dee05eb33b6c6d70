import { Buffer } from "node:buffer";
import type { ObjectKey } from "../../src/l2/adapter.ts";
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
  /** Aborts when nobody wants more; what waits for an answer then ends. */
  readonly signal: AbortSignal;
}

/** The objects on some servers, each once. */
export async function* listServers(
  nodes: readonly ServerNode[],
  { names, isKnown, signal }: ListingOptions,
): AsyncIterable<FoundObject> {
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
      const objects = heads.map((head = "") => readHead(node, head, { names, isKnown, signal }));
      for (const object of await Promise.all(objects)) if (object !== undefined) yield object;
    } while (cursor !== "0");
  }
}

async function readHead(
  node: ServerNode,
  head: string,
  { names, isKnown, signal }: ListingOptions,
): Promise<FoundObject | undefined> {
  const name = names.nameIn(head);
  if (name === undefined) return undefined;
  const spelled = names.keyOf(name, undefined);
  const end = HEAD_BYTES + (spelled === null ? MAX_KEY_BYTES : 0) - 1;
  // Reading a value counts as a use, so the time comes first.
  const [idle, value] = await Promise.all([
    node.send(["OBJECT", "IDLETIME", head], signal).catch(unlessReply),
    spelled !== null && isKnown(spelled)
      ? undefined
      : node.send(["GETRANGE", head, "0", String(end)], signal).catch(unlessReply),
  ]);
  // Full seconds: it was used within the second before, and what this process knows is better.
  const usedAt = typeof idle === "number" ? Date.now() - (idle + 1) * 1000 : undefined;
  if (spelled !== null && value === undefined && isKnown(spelled)) {
    return { key: spelled, byteLength: undefined, usedAt };
  }
  const fields = Buffer.isBuffer(value) ? decodeHead(value) : undefined;
  if (fields === undefined || !Buffer.isBuffer(value)) return undefined;
  const key = spelled ?? names.keyOf(name, decodeCarriedKey(value, fields));
  return key === null ? undefined : { key, byteLength: fields.byteLength, usedAt };
}

/** What a server refuses to say is unknown; it may record no times, or have moved the key. */
function unlessReply(error: unknown): null {
  if (error instanceof ReplyError) return null;
  throw error;
}

function text(reply: Reply | undefined): string | undefined {
  if (Buffer.isBuffer(reply)) return reply.toString();
  return typeof reply === "string" ? reply : undefined;
}
