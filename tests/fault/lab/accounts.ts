import { join } from "@std/path";
import { hostFileSystem } from "../../../adapters/_fs/file_system.ts";
import type { LedgerState } from "../../../adapters/_fs/ledger_state.ts";
import { UsageLedger } from "../../../adapters/_fs/usage_ledger.ts";
import { systemRandom } from "../../../src/adapter/contract.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { openFs } from "../../support/fs_adapter.ts";

/** The files in a directory of the fs adapter. */
export interface Allocation {
  /** Objects. */
  readonly objects: number;
  /** Their disk usage in bytes, as reported by `du`. */
  readonly bytes: number;
  /** Temporary files. */
  readonly temporaries: number;
  /** Files locked by living writers. */
  readonly locks: number;
}

/** Counts the files of a directory. */
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

/** Reads the ledger of a directory. */
export async function accountOf(basePath: string): Promise<LedgerState | undefined> {
  return await ledgerOf(basePath).update((state) => state);
}

/** Triggers the hourly count of a directory and returns the ledger. */
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
