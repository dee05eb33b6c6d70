import { join } from "@std/path";
import { hostFileSystem } from "../../../adapters/_fs/file_system.ts";
import type { LedgerState } from "../../../adapters/_fs/ledger_state.ts";
import { UsageLedger } from "../../../adapters/_fs/usage_ledger.ts";
import { systemRandom } from "../../../src/l2/adapter.ts";
import { systemClock } from "../../../src/runtime/clock.ts";
import { openFs } from "../../support/fs_adapter.ts";

/** Files of a directory that the fs adapter keeps objects in. */
export interface Allocation {
  /** Objects. */
  readonly objects: number;
  /** Bytes that they take on disk, as `du` counts. */
  readonly bytes: number;
  /** Temporary files. */
  readonly temporaries: number;
  /** Files by which writers show that they live. */
  readonly locks: number;
}

/** What lies in a directory. */
export function allocationIn(basePath: string): Allocation {
  const found = { objects: 0, bytes: 0, temporaries: 0, locks: 0 };
  const add = (directory: string): void => {
    for (const { name, isDirectory } of Deno.readDirSync(directory)) {
      const path = `${directory}/${name}`;
      if (isDirectory) add(path);
      else if (name.endsWith(".tmp")) found.temporaries++;
      else if (/^[0-9]+-[0-9a-f]{16}\.lock$/.test(name)) found.locks++;
      else if (name.endsWith(".data")) {
        found.objects++;
        found.bytes += (Deno.lstatSync(path).blocks ?? NaN) * 512;
      }
    }
  };
  add(basePath);
  return found;
}

/** The account of a directory. */
export async function accountOf(basePath: string): Promise<LedgerState | undefined> {
  return await ledgerOf(basePath).update((state) => state);
}

/** Has a directory counted again, as it is every hour; returns the account. */
export async function recount(
  basePath: string,
  config: Readonly<Record<string, unknown>>,
): Promise<LedgerState | undefined> {
  await ledgerOf(basePath).update((state) =>
    state === undefined ? undefined : { ...state, countedAt: 0 }
  );
  const adapter = await openFs({ base_path: basePath, ...config });
  while (((await accountOf(basePath))?.countedAt ?? 0) === 0) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await adapter[Symbol.asyncDispose]();
  return await accountOf(basePath);
}

function ledgerOf(basePath: string): UsageLedger {
  const path = join(basePath, "tmp", "usage.ledger");
  const mode = 0o600;
  return new UsageLedger({
    files: hostFileSystem,
    path,
    mode,
    clock: systemClock,
    random: systemRandom,
  });
}
