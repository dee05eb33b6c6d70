import { childCommand } from "./child.ts";
import { tempDirectory } from "./temp_directory.ts";

/** A server process with an empty bucket. */
export interface S3Server extends AsyncDisposable {
  /** Configuration for the bucket. */
  readonly config: Readonly<Record<string, unknown>>;
  /** The server's address and the bucket. */
  readonly url: string;
  /** Kills the process and waits until it has ended. */
  kill(): Promise<void>;
}

/** The bucket of every server. */
export const BUCKET = "kv-bucket";
const KEYS = { "aws_access_key_id": "S3RVER", "aws_secret_access_key": "S3RVER" };
const program = new URL("s3rver_program.ts", import.meta.url);

/** Starts s3rver, a test server that stores objects as files and checks signatures. */
export async function startS3(): Promise<S3Server> {
  const directory = await tempDirectory();
  const process = childCommand(program, { args: [directory.path, BUCKET] }).spawn();
  const lines = process.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const { value: port } = await lines.read();
  let isAlive = true;
  const kill = async (): Promise<void> => {
    if (!isAlive) return;
    isAlive = false;
    process.kill("SIGKILL");
    await process.status;
    await lines.cancel();
  };
  const dispose = async (): Promise<void> => {
    await kill();
    await directory[Symbol.asyncDispose]();
  };
  if (port === undefined) {
    await dispose();
    throw new Error("s3rver has not started");
  }
  const url = `http://127.0.0.1:${Number(port)}/${BUCKET}`;
  const config = { "s3_endpoint": url, "s3_region": "us-east-1", ...KEYS };
  return { config, url, kill, [Symbol.asyncDispose]: dispose };
}
