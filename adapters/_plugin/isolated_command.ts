import { dirname, fromFileUrl, join } from "@std/path";
import type { FailConfig } from "../../src/base/config_error.ts";
import { nearestName } from "../../src/base/options.ts";
import { ownFile } from "../../src/base/own_file.ts";

/** The program of the process; `undefined` in a bundle. */
const PROGRAM = ownFile(
  import.meta.url,
  "adapters/_plugin/isolated_command.ts",
  "./isolated_program.ts",
);
const PERMISSIONS = ["read", "write", "net", "env", "sys", "run", "ffi", "import"] as const;
/** Hosts that modules, this package among them, may be imported from in any case. */
const IMPORT_HOSTS = ["jsr.io:443", ...PROGRAM?.protocol === "https:" ? [PROGRAM.host] : []];
/**
 * Limits the memory, outside the JavaScript heap too, where the bytes of objects are. Where
 * possible, the process ends with its parent even if it loops.
 */
const LINUX_START = `ulimit -d "$0" || exit
setpriv --pdeathsig KILL true 2>/dev/null && exec setpriv --pdeathsig KILL "$@"
exec "$@"`;
/** Writable memory that the runtime sets aside in every process, used or not, in MiB. */
const RUNTIME_MIB = 640;
const MIB = 2 ** 20;

/** Configuration of the process. */
export interface IsolationConfig {
  /** Address of the adapter module. */
  readonly address: string;
  /** Value of `permissions`. */
  readonly permissions: Readonly<Record<string, unknown>>;
  /** Value of `memory_limit_mb`. */
  readonly memoryMib: number;
}

/**
 * The command that starts the process of a plugin with its permissions and its memory limit.
 *
 * @throws {ConfigError} If the configuration is not valid, or processes cannot be started.
 */
export async function isolatedCommand(
  { address, permissions, memoryMib }: IsolationConfig,
  fail: FailConfig,
): Promise<Deno.Command> {
  if (PROGRAM === undefined) return fail("isolate", "false in a bundle", true);
  const isLinux = Deno.build.os === "linux";
  const command = isLinux ? "/bin/sh" : Deno.execPath();
  const { state } = await Deno.permissions.query({ name: "run", command });
  if (state !== "granted") {
    fail("isolate", `--allow-run or --allow-run=${command}, to start a process`, "no permission");
  }
  const config = address.startsWith("file:") ? await configNear(fromFileUrl(address)) : undefined;
  // A static import needs no permission.
  const program = `import { serve } from ${JSON.stringify(PROGRAM.href)};` +
    `import * as plugin from ${JSON.stringify(address)};` +
    `await serve(plugin);`;
  const args = [
    "run",
    "--quiet",
    "--no-prompt",
    `--v8-flags=--max-old-space-size=${Math.ceil(memoryMib)}`,
    ...config === undefined ? [] : [`--config=${config}`],
    ...permissionFlags(permissions, fail),
    `data:text/javascript,${encodeURIComponent(program)}`,
  ];
  return new Deno.Command(command, {
    args: isLinux ? ["-c", LINUX_START, limitKib(memoryMib), Deno.execPath(), ...args] : args,
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  });
}

function limitKib(memoryMib: number): string {
  return String(Math.ceil((RUNTIME_MIB + memoryMib) * MIB / 1024));
}

/** Flags for the permissions that the configuration names. */
function permissionFlags(
  permissions: Readonly<Record<string, unknown>>,
  fail: FailConfig,
): string[] {
  for (const name of Object.keys(permissions)) {
    if (PERMISSIONS.some((known) => known === name)) continue;
    const nearest = nearestName(name, PERMISSIONS);
    const hint = nearest === undefined ? "" : `, perhaps ${nearest}`;
    fail("permissions", `keys of ${PERMISSIONS.join(", ")}${hint}`, name);
  }
  return PERMISSIONS.flatMap((name) => {
    const given = permissions[name] ?? [];
    if (given === true) return [`--allow-${name}`];
    if (!isListOfNames(given)) return fail(`permissions.${name}`, "true or a list of names", given);
    // Without the flag, Deno imports from a number of hosts, to which an address can carry data.
    const names = name === "import" ? [...IMPORT_HOSTS, ...given] : given;
    // The flag separates names by commas, and reads two of them as one within a name.
    const list = names.map((value) => value.replaceAll(",", ",,")).join(",");
    return names.length === 0 ? [] : [`--allow-${name}=${list}`];
  });
}

function isListOfNames(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((name) => typeof name === "string" && name !== "");
}

/** The configuration file of Deno that a module of the user belongs to. */
async function configNear(path: string): Promise<string | undefined> {
  for (let folder = dirname(path);; folder = dirname(folder)) {
    for (const name of ["deno.json", "deno.jsonc"]) {
      const info = await Deno.lstat(join(folder, name)).catch(() => undefined);
      if (info?.isFile) return join(folder, name);
    }
    if (dirname(folder) === folder) return undefined;
  }
}
