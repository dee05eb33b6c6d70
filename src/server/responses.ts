/** Headers of every response. */
const COMMON: Readonly<Record<string, string>> = {
  "cache-control": "no-store",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
};

/** A response of a type. */
export function respond(
  body: BodyInit | null,
  type: string,
  status = 200,
  headers: Readonly<Record<string, string>> = {},
): Response {
  return new Response(body, { status, headers: { ...COMMON, "content-type": type, ...headers } });
}

/** A response in JSON. */
export function respondJson(
  value: unknown,
  status = 200,
  headers: Readonly<Record<string, string>> = {},
): Response {
  return respond(toJson(value), "application/json; charset=utf-8", status, headers);
}

/**
 * Converts to JSON. Adapters report details of any kind: a bigint becomes a string, and details that
 * JSON cannot hold are left out.
 */
export function toJson(value: unknown): string {
  const replacer = (key: string, each: unknown): unknown => {
    if (typeof each === "bigint") return String(each);
    return key === "details" && !isJson(each) ? {} : each;
  };
  return JSON.stringify(value, replacer);
}

function isJson(value: unknown): boolean {
  try {
    JSON.stringify(value, (_, each) => typeof each === "bigint" ? String(each) : each);
    return true;
  } catch {
    return false;
  }
}
