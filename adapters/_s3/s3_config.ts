import { evictionField, unmetPath } from "../../src/l2/adapter.ts";
import { unmetVariableName } from "../../src/runtime/secrets.ts";
import { checkCapacity } from "../_shared/capacity.ts";
import { checkBucket } from "./bucket_url.ts";

const MIB = 2 ** 20;
/** Max GiB: above it, byte counts are no safe integers. */
const MAX_GIB = 2 ** 22;

/** Configuration keys of the adapter, named as in LMCache where LMCache has them. */
export const s3Config = {
  s3_endpoint: {
    type: "string",
    required: true,
    help: "Where the bucket is: s3://BUCKET on AWS, or a server, with bucket beside it or behind " +
      "it; https unless http:// or disable_tls says otherwise.",
  },
  bucket: {
    type: "string",
    check: checkBucket,
    help: "Name of the bucket, where s3_endpoint names a server.",
  },
  s3_region: {
    type: "string",
    required: true,
    check: (region: string) => /^[\w-]{1,64}$/.test(region) ? undefined : "a region like us-east-1",
    help: "Region that requests are signed for; other servers than AWS take us-east-1.",
  },
  s3_use_path_style: {
    type: "boolean",
    help: "Whether the bucket stands in the path instead of the host; left out, on AWS it does " +
      "only if its name cannot stand in a host. false without bucket: the host names it.",
  },
  disable_tls: {
    type: "boolean",
    default: false,
    help: "Whether plain HTTP is spoken where s3_endpoint does not say.",
  },
  tls_ca_file: {
    type: "string",
    check: unmetPath,
    help: "File with certificates to trust beside those of the system. Needs --allow-read.",
  },
  aws_access_key_id: {
    type: "string",
    help: "Access key; left out, a variable holds it.",
  },
  aws_secret_access_key: {
    type: "string",
    secret: true,
    help: "Secret key; left out, a variable holds it.",
  },
  aws_session_token: {
    type: "string",
    secret: true,
    help: "Session token, where the credentials expire.",
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
    help: "Environment variable with the session token; used if it may be read and is set.",
  },
  sign_payload: {
    type: "boolean",
    help: "Whether signatures cover what is stored, which costs a SHA-256; left out, only " +
      "without TLS, where nothing else protects it on its way.",
  },
  key_prefix: {
    type: "string",
    default: "kvtier/",
    check: (prefix: string) =>
      /^(?!\/)(?!.*\/\/)(?!(?:.*\/)?\.{1,2}(?:\/|$))[\w./-]{0,512}$/.test(prefix)
        ? undefined
        : "at most 512 of A-Z a-z 0-9 . _ - and / between names",
    help: "What the names of all objects begin with; without a / at its end, one is put there.",
  },
  s3_num_io_threads: {
    type: "number",
    integer: true,
    minimum: 1,
    maximum: 1024,
    default: 64,
    help: "Most requests at a time.",
  },
  max_bytes_in_flight: {
    type: "number",
    integer: true,
    minimum: 1,
    default: 256 * MIB,
    help: "Most bytes of objects that are stored at a time, and as many that are loaded.",
  },
  s3_prefer_http2: {
    type: "boolean",
    default: false,
    help: "Whether HTTP/2 is used where the server offers it: one connection, which is slower.",
  },
  s3_enable_s3express: {
    type: "boolean",
    default: false,
    check: (isExpress: boolean) =>
      isExpress ? "false: sessions of S3 Express One Zone are not supported" : undefined,
    help: "LMCache's key for S3 Express One Zone, which is not supported.",
  },
  part_bytes: {
    type: "number",
    integer: true,
    minimum: 1,
    maximum: 5120 * MIB,
    default: 16 * MIB,
    help: "Bytes of a part of an upload, and of a range; AWS takes 5 MiB or more.",
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
    help: "Whether an object that is there, with the same size, is left as it is " +
      "(If-None-Match: *).",
  },
  max_attempts: {
    type: "number",
    integer: true,
    minimum: 1,
    maximum: 20,
    default: 4,
    help: "Most attempts of a request that fails for reasons that pass.",
  },
  request_timeout_ms: {
    type: "number",
    integer: true,
    minimum: 1,
    maximum: 3_600_000,
    default: 30_000,
    help: "Most milliseconds of one attempt.",
  },
  max_capacity_gb: {
    type: "number",
    minimum: 0,
    maximum: MAX_GIB,
    check: checkCapacity,
    default: 0,
    help: "Most GiB of objects below key_prefix, which are listed at start; 0: rules of the " +
      "bucket decide.",
  },
  eviction: {
    ...evictionField,
    help: "How room is made where max_capacity_gb is given: beyond trigger_watermark, " +
      "eviction_ratio of the capacity is removed.",
  },
} as const;
