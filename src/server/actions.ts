import { getLogger } from "@logtape/logtape";
import { AdapterError } from "../adapter/errors.ts";
import { ConfigError } from "../base/config_error.ts";
import { checkOptionKeys, typeInWords } from "../base/options.ts";
import type { Quota } from "../eviction/quota_registry.ts";
import type { RemoveAdapterOptions } from "../hotplug/adapter_manager.ts";
import type { L2Config } from "../l2/adapter_config.ts";
import type { ForgetSelector } from "../lifecycle/key_lifecycle.ts";
import type { TieredCache } from "../tiered_cache.ts";
import { respondJson } from "./responses.ts";

/** Maximum size of the body of a request in bytes. */
const MAX_BODY_BYTES = 64 * 1024;

/** Configuration key whose value is code: only the program itself may choose that. */
const CODE_KEY = "module";

/** What an action did: its answer, and a sentence for the log. */
interface ActionResult {
  readonly answer: unknown;
  readonly said: string;
}

type Action = (cache: TieredCache, body: unknown) => Promise<ActionResult>;

/** A request that is not valid, with its HTTP status. */
class RequestError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

const logger = getLogger(["kvtier", "server"]);

/** Actions by name. */
const ACTIONS: Readonly<Record<string, Action>> = {
  async forget(cache, body) {
    checkOptionKeys("the request", body, ["salt", "model"]);
    const answer = await cache.forget(body as ForgetSelector);
    const objects = answer.adapters.reduce((sum, each) => sum + each.objects, answer.l1.objects);
    const [kind = ""] = Object.keys(body);
    const name = JSON.stringify(Reflect.get(body, kind));
    return { answer, said: `forgot the ${kind} ${name}: ${objects} objects` };
  },
  // deno-lint-ignore require-await -- actions are asynchronous
  async quota(cache, body) {
    checkOptionKeys("the request", body, ["salt", "quota"]);
    const { salt, quota } = body as { salt: string; quota: Quota | null };
    if (quota !== null) {
      cache.quota.set(salt, quota);
      return {
        answer: {},
        said: `set the quota of ${JSON.stringify(salt)} to ${JSON.stringify(quota)}`,
      };
    }
    const isDeleted = cache.quota.delete(salt);
    return { answer: { isDeleted }, said: `removed the quota of ${JSON.stringify(salt)}` };
  },
  async "add-adapter"(cache, body) {
    checkOptionKeys("the request", body, ["config"]);
    const { config } = body as { config: L2Config };
    checkOptionKeys("config", config, Object.keys(config ?? {}));
    if (typeof config.type !== "string") {
      throw new TypeError(`config.type must be a string: received ${typeInWords(config.type)}`);
    }
    const key = codeKeyIn(config);
    if (key !== undefined) {
      const message =
        `config must not have the key ${key}: only the program can add such an adapter`;
      throw new RequestError(403, message);
    }
    const id = await cache.addAdapter(config);
    return { answer: { id }, said: `added adapter ${id} (${config.type})` };
  },
  async "remove-adapter"(cache, body) {
    checkOptionKeys("the request", body, ["id", "mode", "timeoutMs"]);
    const { id, ...options } = body as { id: number } & RemoveAdapterOptions;
    const answer = await cache.removeAdapter(id, options);
    return { answer, said: `removed adapter ${id} (mode ${options.mode ?? "drain"})` };
  },
};

/** Names of the actions. */
export const ACTION_NAMES: readonly string[] = Object.keys(ACTIONS);

/**
 * Carries an action out, and logs it.
 *
 * @param onDone Called with what was done, in words.
 */
export async function answerAction(
  cache: TieredCache,
  name: string,
  request: Request,
  onDone: (said: string) => void,
): Promise<Response> {
  try {
    const body = await readBody(request);
    const result = await ACTIONS[name]?.(cache, body);
    const { answer, said = name } = result ?? {};
    logger.info("The status server {said}", { action: name, said });
    onDone(said);
    return respondJson(answer);
  } catch (error) {
    const status = statusOf(error);
    const { message } = error as Error;
    logger.warn("The status server could not {action}: {message}", { action: name, message });
    return respondJson({ error: message }, status);
  }
}

function statusOf(error: unknown): number {
  if (error instanceof RequestError) return error.status;
  const isWrong = error instanceof TypeError || error instanceof RangeError ||
    error instanceof ConfigError;
  if (isWrong) return 400;
  return error instanceof AdapterError ? 502 : 409;
}

/** @throws {RequestError} If the body is not JSON, or too large. */
async function readBody(request: Request): Promise<unknown> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/json\s*(?:;|$)/i.test(type)) {
    throw new RequestError(415, "Content-Type has to be application/json");
  }
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const chunk of request.body ?? []) {
    bytes += chunk.byteLength;
    if (bytes > MAX_BODY_BYTES) {
      throw new RequestError(413, `The request has more than ${MAX_BODY_BYTES} bytes`);
    }
    text += decoder.decode(chunk, { stream: true });
  }
  try {
    return JSON.parse(text + decoder.decode());
  } catch {
    // The message of JSON.parse quotes its input, which may contain a password.
    throw new RequestError(400, "The request is not valid JSON");
  }
}

/** The first key of a configuration, or of one inside it, whose value names code. */
function codeKeyIn(config: object): string | undefined {
  for (const [key, value] of Object.entries(config)) {
    if (key === CODE_KEY) return key;
    if (typeof value !== "object" || value === null) continue;
    const inner = codeKeyIn(value);
    if (inner !== undefined) return inner;
  }
  return undefined;
}
