/**
 * The `fs` adapter: objects as files in a directory, local or shared.
 *
 * @module
 */
import { isAbsolute, join, normalize, SEPARATOR } from "@std/path";
import { defineL2Adapter, type L2AdapterModule } from "../src/l2/adapter.ts";
import { FileStore } from "./_fs/file_store.ts";

const config = {
  base_path: {
    type: "string",
    required: true,
    check: (path: string) => path.trim() === "" ? "the path of a directory" : undefined,
    help: "Directory for the objects; created if it does not exist. Processes may share it.",
  },
  relative_tmp_dir: {
    type: "string",
    default: "tmp",
    check: (path: string) => isInside(path) ? undefined : "a relative path below base_path",
    help: "Directory below base_path for files that are being written.",
  },
  durability: {
    type: "string",
    oneOf: ["none", "file", "full"],
    default: "none",
    help: "What survives a power cut: none promises nothing (a torn file is a miss), file syncs " +
      "the data before it is published, full syncs the directory as well.",
  },
} as const;

/**
 * Objects as files in a directory.
 *
 * Requires `--allow-read` and `--allow-write` permissions for `base_path`.
 */
const fs: L2AdapterModule<typeof config> = defineL2Adapter({
  type: "fs",
  summary: "Objects as files in a directory, local or shared.",
  config,
  create: (values, { onError }) =>
    FileStore.open({
      basePath: values.base_path,
      tmpPath: join(values.base_path, values.relative_tmp_dir),
      durability: values.durability,
      onError,
    }),
});
export default fs;

function isInside(path: string): boolean {
  const normal = normalize(path + SEPARATOR);
  const leaves = normal.startsWith(`..${SEPARATOR}`) || isAbsolute(path);
  return path.trim() !== "" && normal !== `.${SEPARATOR}` && !leaves;
}
