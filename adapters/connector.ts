/**
 * The `connector` adapter: wraps any key-value store that accepts binary values.
 *
 * @module
 */
import { MAX_GIB } from "../src/base/units.ts";
import {
  AdapterError,
  boundsOf,
  checkCapacity,
  defineL2Adapter,
  evictionField,
  type L2AdapterModule,
} from "../src/adapter/contract.ts";
import { failFor } from "../src/base/config_error.ts";
import { importNamed, MODULE_SPECIFIER, moduleAddress } from "../src/adapter/named_module.ts";
import type { Backend } from "./_connector/backend.ts";
import { BackendCheck } from "./_connector/backend_check.ts";
import { ConnectorStore } from "./_connector/connector_store.ts";
import { KnownObjects } from "./_connector/known_objects.ts";
import { ObjectListing } from "./_connector/object_listing.ts";
import { ConnectorObjectNames } from "./_connector/object_names.ts";
import { ObjectValues } from "./_connector/object_values.ts";
import { recognise } from "./_connector/recognise.ts";

export type {
  Awaitable,
  Connector,
  ConnectorListOptions,
  ConnectorOptions,
} from "./_connector/connector.ts";

/** Default capacity where the store can delete and list. */
const DEFAULT_GIB = 10;

const config = {
  module: {
    type: "string",
    required: true,
    check: (name: string): string | undefined =>
      moduleAddress(name) === undefined ? MODULE_SPECIFIER : undefined,
    help: `Module to import: ${MODULE_SPECIFIER}; a relative path starts at the working directory.`,
  },
  export: {
    type: "string",
    default: "default",
    help: "Name of the export: a key-value store, or a function of params that creates one.",
  },
  params: {
    type: "record",
    default: {},
    help: "Argument of that function.",
  },
  kind: {
    type: "string",
    oneOf: ["plain", "unstorage", "keyv"],
    help:
      "Kind of store: plain has get, set and exists or has; unstorage; keyv. Default: detected " +
      "by its methods.",
  },
  key_prefix: {
    type: "string",
    default: "kvtier-",
    check: (prefix: string): string | undefined =>
      /^[\w.-]{0,100}$/.test(prefix) ? undefined : "at most 100 letters, digits, _, . and -",
    help: "Prefix of all keys.",
  },
  max_value_bytes: {
    type: "number",
    integer: true,
    minimum: 1024,
    maximum: 2 ** 30,
    default: 16 * 2 ** 20,
    help: "Objects with more bytes are split into values of this size.",
  },
  concurrency: {
    type: "number",
    integer: true,
    minimum: 1,
    maximum: 1024,
    default: 8,
    help: "Max calls in flight, separately for stores and for everything else.",
  },
  max_bytes_in_flight: {
    type: "number",
    integer: true,
    minimum: 1,
    default: 64 * 2 ** 20,
    help: "Max bytes that these calls move at a time.",
  },
  max_capacity_gb: {
    type: "number",
    minimum: 0,
    maximum: MAX_GIB,
    check: checkCapacity,
    help:
      "Max GiB of objects; 0: the store limits itself. Default: 10 if the store can delete and " +
      "list, otherwise 0.",
  },
  eviction: {
    ...evictionField,
    help: "How to evict: above trigger_watermark, eviction_ratio of the capacity is removed.",
  },
} as const;

/**
 * Objects in any key-value store that accepts binary values. The module runs with all permissions
 * of the process.
 *
 * Requires `--allow-read` permission for a module that is a file.
 */
const connector: L2AdapterModule<typeof config> = defineL2Adapter({
  type: "connector",
  summary: "Objects in any key-value store that accepts binary values, loaded from a module.",
  config,
  async create(values, { clock, onError, onEvicted }) {
    const { module: name } = values;
    const subject = `connector adapter (${name})`;
    const fail = failFor(subject);
    const report = (cause: unknown): void => {
      onError(new AdapterError({ adapter: "connector", operation: "connect", cause }));
    };
    const address = moduleAddress(name) ?? fail("module", MODULE_SPECIFIER, name);
    const exported = await importNamed(address).catch((cause) =>
      fail("module", "a module that can be imported", String(cause), cause)
    );
    const made: unknown = exported[values.export];
    if (made === undefined) {
      fail("export", `one of ${Object.keys(exported).join(", ")}`, values.export);
    }
    const isFactory = typeof made === "function";
    const object: unknown = isFactory ? await made(values.params) : made;
    const recognised = recognise(object, values.kind, report);
    if ("missing" in recognised) {
      return fail("module", `an object with ${recognised.missing}`, typeof object);
    }
    // An object that the module exports may have other users: only what a function made is closed.
    const { close, ...shared } = recognised.backend;
    const backend: Backend = isFactory && close !== undefined ? { ...shared, close } : shared;
    const canBound = backend.delete !== undefined && backend.list !== undefined;
    const capacity = values.max_capacity_gb ?? (canBound ? DEFAULT_GIB : 0);
    if (capacity > 0 && !canBound) {
      fail("max_capacity_gb", "0: the store cannot both delete and list", capacity);
    }
    const names = new ConnectorObjectNames(values.key_prefix);
    const check = new BackendCheck({ backend, names, clock });
    const known = new KnownObjects();
    const objects = new ObjectValues({
      backend,
      names,
      known,
      maxValueBytes: values.max_value_bytes,
      reportsSizes: () => check.reportsSizes,
    });
    const checked = await check.result();
    if (checked.state === "unsound") {
      await backend.close?.();
      fail("module", checked.expected, checked.received);
    }
    if (checked.state === "unknown") report(checked.cause);
    const store = new ConnectorStore({
      backend,
      check,
      values: objects,
      listing: new ObjectListing({ backend, names, known, values: objects }),
      concurrency: values.concurrency,
      maxBytesInFlight: values.max_bytes_in_flight,
      bounds: boundsOf(capacity, values.eviction),
      description: { module: name, kind: recognised.kind },
      clock,
      onError,
      onEvicted,
    });
    store.start();
    return store;
  },
});
export default connector;
