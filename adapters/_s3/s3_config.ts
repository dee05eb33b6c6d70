import { MAX_GIB, MIB } from "../../src/base/units.ts";
import { checkCapacity, evictionField, unmetPath } from "../../src/adapter/contract.ts";
import { unmetVariableName } from "../../src/base/secrets.ts";
import { checkBucket } from "./bucket_url.ts";

/** Configuration keys of the adapter, named as in LMCache where LMCache has them. */
export const s3Config = {
  s3_endpoint: {
    type: "string",
    required: true,
    help:
      "Location of the bucket: s3://BUCKET on AWS, or the URL of a server, with the bucket in " +
      "its path or in the key bucket. HTTPS unless http:// or disable_tls is given.",
  },
  bucket: {
    type: "string",
    check: checkBucket,
    help: "Name of the bucket, if s3_endpoint is a server.",
  },
  s3_region: {
    type: "string",
    required: true,
    check: (region: string): string | undefined =>
      /^[\w-]{1,64}$/.test(region) ? undefined : "a region like us-east-1",
    help: "Region that requests are signed for; servers other than AWS accept us-east-1.",
  },
  s3_use_path_style: {
    type: "boolean",
    help:
      "Whether the bucket is in the path of the URL rather than in the host. Default: true; on " +
      "AWS, only if the name is not valid in a host. false without bucket: the host contains it.",
  },
  disable_tls: {
    type: "boolean",
    default: false,
    help: "Whether to use plain HTTP if s3_endpoint has no scheme.",
  },
  tls_ca_file: {
    type: "string",
    check: unmetPath,
    help: "File with certificates to trust in addition to the system's. Needs --allow-read.",
  },
  aws_access_key_id: {
    type: "string",
    help: "Access key. Default: from the environment.",
  },
  aws_secret_access_key: {
    type: "string",
    secret: true,
    help: "Secret key. Default: from the environment.",
  },
  aws_session_token: {
    type: "string",
    secret: true,
    help: "Session token of temporary credentials.",
  },
  aws_access_key_id_env: {
    type: "string",
    default: "AWS_ACCESS_KEY_ID",
    check: unmetVariableName,
    help: "Environment variable with the access key. Needs --allow-env for it.",
  },
  aws_secret_access_key_env: {
    type: "string",
    default: "AWS_SECRET_ACCESS_KEY",
    check: unmetVariableName,
    help: "Environment variable with the secret key. Needs --allow-env for it.",
  },
  aws_session_token_env: {
    type: "string",
    default: "AWS_SESSION_TOKEN",
    check: unmetVariableName,
    help: "Environment variable with the session token; used if it is set and readable.",
  },
  sign_payload: {
    type: "boolean",
    help:
      "Whether signatures cover the stored bytes, which costs a SHA-256. Default: only without " +
      "TLS, where nothing else protects them in transit.",
  },
  key_prefix: {
    type: "string",
    default: "kvtier/",
    check: (prefix: string): string | undefined =>
      /^(?!\/)(?!.*\/\/)(?!(?:.*\/)?\.{1,2}(?:\/|$))[\w./-]{0,512}$/.test(prefix)
        ? undefined
        : "at most 512 of A-Z a-z 0-9 . _ - and / between names",
    help: "Prefix of all object names; a / is appended if it is missing.",
  },
  s3_num_io_threads: {
    type: "number",
    integer: true,
    minimum: 1,
    maximum: 1024,
    default: 64,
    help: "Max requests at a time.",
  },
  max_bytes_in_flight: {
    type: "number",
    integer: true,
    minimum: 1,
    default: 256 * MIB,
    help: "Max bytes of objects being stored at a time, and max bytes being loaded.",
  },
  s3_prefer_http2: {
    type: "boolean",
    default: false,
    help: "Whether to use HTTP/2 if the server supports it: one connection, which is slower.",
  },
  s3_enable_s3express: {
    type: "boolean",
    default: false,
    check: (isExpress: boolean): string | undefined =>
      isExpress ? "false: sessions of S3 Express One Zone are not supported" : undefined,
    help: "LMCache's key for S3 Express One Zone, which is not supported.",
  },
  part_bytes: {
    type: "number",
    integer: true,
    minimum: 1,
    maximum: 5120 * MIB,
    default: 16 * MIB,
    help: "Bytes of an upload part, and of a range; AWS requires at least 5 MiB.",
  },
  multipart_above_bytes: {
    type: "number",
    integer: true,
    minimum: 0,
    maximum: 5120 * MIB,
    default: 64 * MIB,
    help: "Objects with more bytes, and more than part_bytes, are uploaded in parts.",
  },
  ranges_above_bytes: {
    type: "number",
    integer: true,
    minimum: 0,
    default: 32 * MIB,
    help: "Objects with more bytes, and more than part_bytes, are read in ranges.",
  },
  put_if_absent: {
    type: "boolean",
    default: false,
    help: "Whether to keep an existing object of the same size (If-None-Match: *).",
  },
  max_attempts: {
    type: "number",
    integer: true,
    minimum: 1,
    maximum: 20,
    default: 4,
    help: "Max attempts of a request that fails for a transient reason.",
  },
  request_timeout_ms: {
    type: "number",
    integer: true,
    minimum: 1,
    maximum: 3_600_000,
    default: 30_000,
    help: "Max time of one attempt, in milliseconds.",
  },
  max_capacity_gb: {
    type: "number",
    minimum: 0,
    maximum: MAX_GIB,
    check: checkCapacity,
    default: 0,
    help: "Max GiB of objects below key_prefix, which are listed at start; 0: lifecycle rules of " +
      "the bucket apply.",
  },
  eviction: {
    ...evictionField,
    help: "How to evict if max_capacity_gb is given: above trigger_watermark, eviction_ratio of " +
      "the capacity is removed.",
  },
} as const;
