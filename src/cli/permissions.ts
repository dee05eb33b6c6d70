import { failFor } from "../base/config_error.ts";
import type { L2Config } from "../l2/adapter_config.ts";

const fail = failFor("kvtier");

/** Least permissions of the adapters, for help. */
export const ADAPTER_PERMISSIONS: readonly string[] = [
  "--allow-read=DIR --allow-write=DIR for fs and file_pool; --allow-sys=uid,statfs shows fs owner and disk",
  "--allow-net=HOST:PORT for resp and s3; --allow-env for variables that a configuration names",
  "--allow-read for --l2-config, --adapters-dir, and modules that a configuration names",
];

/** Configuration keys whose value is a directory of objects. */
const PATH_KEYS = ["base_path", "file_path"];

/** A directory of objects in a configuration. */
export interface NamedPath {
  /** The key, with those of the objects around it. */
  readonly key: string;
  readonly path: string;
}

/** The directories that a configuration names, in adapters that it wraps too. */
export function pathsIn(config: Readonly<Record<string, unknown>>, prefix = ""): NamedPath[] {
  return Object.entries(config).flatMap(([key, value]) => {
    if (typeof value === "object" && value !== null) {
      return pathsIn({ ...value }, `${prefix}${key}.`);
    }
    const isPath = PATH_KEYS.includes(key) && typeof value === "string";
    return isPath ? [{ key: prefix + key, path: value }] : [];
  });
}

/**
 * Asks for permissions that the process lacks, one by one; on a terminal the user answers.
 *
 * @throws {ConfigError} If one is denied, naming it.
 */
export async function askFor(...wanted: readonly Deno.PermissionDescriptor[]): Promise<void> {
  for (const each of wanted) {
    const { state } = await Deno.permissions.request(each);
    if (state !== "granted") fail("permissions", flagOf(each), state);
  }
}

/** Asks for the permissions that an adapter needs, as far as its configuration tells them. */
export async function askForAdapter(config: L2Config): Promise<void> {
  for (const { path } of pathsIn(config)) {
    await askFor({ name: "read", path }, { name: "write", path });
  }
  const { type, host, port = 6379 } = config;
  if (type === "resp" && typeof host === "string" && typeof port === "number") {
    await askFor({ name: "net", host: `${host.includes(":") ? `[${host}]` : host}:${port}` });
  }
}

function flagOf(permission: Deno.PermissionDescriptor): string {
  const { name, ...details } = permission;
  const [value] = Object.values(details);
  return `the permission --allow-${name}${value === undefined ? "" : `=${value}`}`;
}
