import { decodeFileName, encodeFileName, type ObjectKey } from "../../src/adapter/contract.ts";

/**
 * Server keys of objects: `<prefix>{<name>}` for the manifest,
 * `<prefix>{<name>}<generation>:<number>` for chunks. The braces put all server keys of an object
 * into one slot of a cluster.
 */
export class RespObjectNames {
  /** Pattern for SCAN that matches manifests but no chunks. */
  readonly manifestPattern: string;
  readonly #prefix: string;

  /**
   * @param prefix Prefix of all server keys; without braces.
   */
  constructor(prefix: string) {
    this.#prefix = prefix;
    this.manifestPattern = `${prefix.replace(/[\\*?[\]^]/g, "\\$&")}{*}`;
  }

  /** Server key of an object's manifest. */
  manifestKeyOf(key: ObjectKey): string {
    return `${this.#prefix}{${encodeFileName(key)}}`;
  }

  /** Prefix of the server keys of all chunks of one generation; the chunk number follows. */
  chunkPrefixOf(manifestKey: string, generation: string): string {
    return `${manifestKey}${generation}:`;
  }

  /** The name within a manifest's server key; `undefined` if it is no such key. */
  nameIn(manifestKey: string): string | undefined {
    const isManifestKey = manifestKey.startsWith(`${this.#prefix}{`) && manifestKey.endsWith("}");
    return isManifestKey ? manifestKey.slice(this.#prefix.length + 1, -1) : undefined;
  }

  /** The key of a name, spelled or embedded; `null` if invalid. */
  keyOf(name: string, embedded: ObjectKey | undefined): ObjectKey | null {
    if (embedded === undefined) return decodeFileName(name);
    return encodeFileName(embedded) === name ? embedded : null;
  }
}
