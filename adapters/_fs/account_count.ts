import type { DiskSpaceOptions } from "./disk_space_options.ts";
import { isContinued, type LedgerState, reconcile } from "./ledger_state.ts";
import type { ObjectRemoval } from "./object_removal.ts";
import { leaseBytesOf, type WriterAccount } from "./writer_account.ts";

/** Counts the directory to correct the ledger, which is too high after a writer was killed. */
export class AccountCount {
  readonly #options: DiskSpaceOptions;
  readonly #account: WriterAccount;
  readonly #directory: ObjectRemoval["directory"];

  constructor(
    options: DiskSpaceOptions,
    account: WriterAccount,
    directory: ObjectRemoval["directory"],
  ) {
    this.#options = options;
    this.#account = account;
    this.#directory = directory;
  }

  /** Counts the directory and corrects the ledger. */
  async run(): Promise<void> {
    const account = this.#account;
    // Bytes that are on disk by now are no longer part of the lease.
    const before = await account.update((state) => account.renewed(state));
    const { written, replaced } = account;
    const dead = await this.deadWriters(before);
    const totals = await this.#directory.walk();
    const abandoned = await this.#options.abandonedBytes(dead, this.#options.signal);
    if (totals === undefined) return;
    const onDisk = abandoned + totals.diskBytes;
    const others = before === undefined ? await this.#livingWriters() : {};
    let isCorrected = false;
    await account.update(
      (state) => {
        isCorrected = before === undefined || isContinued(before, state);
        return reconcile(state, { before, onDisk, dead, mayBeTooLow: account.needsCount });
      },
      () => account.created({ onDisk, written, others }),
    );
    account.replaced = Math.max(0, account.replaced - replaced);
    if (isCorrected) account.corrected();
  }

  /** Writers in the ledger that are not alive; their leases still count as used. */
  async deadWriters(state: LedgerState | undefined): Promise<ReadonlySet<string>> {
    const dead = new Set<string>();
    for (const tag of Object.keys(state?.leases ?? {})) {
      if (await this.#options.isAlive(tag) !== true) dead.add(tag);
    }
    return dead;
  }

  /** Living writers, with an estimate of what each had leased in a lost ledger. */
  async #livingWriters(): Promise<Record<string, number>> {
    const { writers, tag, isAlive, capacityBytes } = this.#options;
    // The leases of other writers are unknown, but usually alike.
    const lease = Math.max(leaseBytesOf(capacityBytes), this.#account.maxRecorded);
    const leases: Record<string, number> = {};
    for (const other of await writers()) {
      if (other !== tag && await isAlive(other) === true) leases[other] = lease;
    }
    return leases;
  }
}
