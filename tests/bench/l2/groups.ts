import { join } from "@std/path";
import type { L2Config } from "../../../src/l2/adapter_config.ts";
import { redisObstacle, startRedis } from "../../support/redis_server.ts";
import { startS3 } from "../../support/s3_server.ts";
import { MapTarget } from "./map_target.ts";
import { PLAIN_CONCURRENCIES, PlainTarget } from "./plain_target.ts";
import { openRedisTarget } from "./redis_target.ts";
import { openS3Target } from "./s3_target.ts";
import type { Shape } from "./shape.ts";
import { type BenchTarget, temporaryDirectory } from "./target.ts";

const MIB = 2 ** 20;
/** Bytes that an object may occupy beyond its payload. */
const TRAILER_ROOM = 4_096;
/** Requests at a time of a plain client; the best counts. */
const CLIENT_CONCURRENCIES = [1, 4, 16];

/** What an adapter is measured on, and beside. */
export interface OpenGroup {
  /** The adapter. */
  readonly config: L2Config;
  /** The plainest use of what it is made of. */
  readonly limits: readonly BenchTarget[];
}

/** An adapter that is measured beside the plainest use of what it is made of: `limit-<type>`. */
export interface AdapterGroup {
  /** Type of the adapter. */
  readonly type: string;
  /** Most bytes that a round moves: servers are slower than files. */
  readonly maxRoundBytes: number;
  /** Why it cannot be measured here. */
  readonly obstacle?: () => Promise<string | undefined>;
  /** Starts what is needed for objects of a shape; `undo` ends it. */
  readonly open: (undo: AsyncDisposableStack, shape: Shape) => Promise<OpenGroup>;
}

/** The adapters that need no configuration of the user's to be measured, `fs` apart. */
export const groups: readonly AdapterGroup[] = [
  {
    type: "dram",
    maxRoundBytes: 216 * MIB,
    open: () =>
      Promise.resolve({
        config: { type: "dram", "max_capacity_gb": 1 },
        limits: [new MapTarget("limit-dram")],
      }),
  },
  {
    type: "file_pool",
    maxRoundBytes: 216 * MIB,
    async open(undo, { numKeys, inFlight, objectBytes }) {
      const directory = await temporaryDirectory(undo);
      const path = join(directory, "limit");
      await Deno.mkdir(path);
      return {
        config: {
          type: "file_pool",
          "pool_size": 2 * numKeys * inFlight,
          "backend_params": {
            "file_path": join(directory, "pool"),
            "slot_bytes": objectBytes + TRAILER_ROOM,
          },
        },
        limits: PLAIN_CONCURRENCIES.map((concurrency) =>
          new PlainTarget(path, concurrency, { name: "limit-file_pool" })
        ),
      };
    },
  },
  {
    type: "connector",
    maxRoundBytes: 216 * MIB,
    open: () =>
      Promise.resolve({
        config: {
          type: "connector",
          module: new URL("map_connector.ts", import.meta.url).href,
          "max_capacity_gb": 1,
        },
        limits: [new MapTarget("limit-connector")],
      }),
  },
  {
    type: "resp",
    maxRoundBytes: 64 * MIB,
    obstacle: redisObstacle,
    async open(undo) {
      const { port } = undo.use(await startRedis());
      const limits = await Promise.all(
        CLIENT_CONCURRENCIES.map((concurrency) => openRedisTarget(port, concurrency)),
      );
      for (const limit of limits) undo.use(limit);
      return { config: { type: "resp", host: "127.0.0.1", port }, limits };
    },
  },
  {
    type: "s3",
    maxRoundBytes: 32 * MIB,
    async open(undo) {
      const { config, url } = undo.use(await startS3());
      const keys = { accessKeyId: "S3RVER", secretAccessKey: "S3RVER" };
      return {
        config: { type: "s3", ...config, "sign_payload": false },
        limits: CLIENT_CONCURRENCIES.map((concurrency) => openS3Target(url, keys, concurrency)),
      };
    },
  },
];
