/**
 * The `s3` adapter: objects in a bucket of any S3-compatible object store.
 *
 * @module
 */
import {
  AdapterError,
  boundsOf,
  type ConfigValues,
  defineL2Adapter,
  type L2AdapterModule,
  systemRandom,
} from "../src/adapter/contract.ts";
import { failFor } from "../src/base/config_error.ts";
import { abortAfter } from "../src/base/clock.ts";
import { readCertificates } from "./_remote/certificates.ts";
import { Bucket, bucketAt } from "./_s3/bucket_url.ts";
import { readCredentials } from "./_s3/credentials.ts";
import { S3ObjectNames } from "./_s3/object_names.ts";
import { S3Client } from "./_s3/s3_client.ts";
import { s3Config } from "./_s3/s3_config.ts";
import { S3Error } from "./_s3/s3_error.ts";
import { S3Store } from "./_s3/s3_store.ts";

const fail = failFor("s3 adapter");

/** Max time to wait for the bucket at open, in milliseconds; it may become reachable later. */
const TRY_MS = 5_000;
/** Error codes for wrong credentials. */
const REFUSALS = ["InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"];
const OTHER_REGION = ["AuthorizationHeaderMalformed", "PermanentRedirect", "InvalidRegion"];

type S3Values = ConfigValues<typeof s3Config>;

/**
 * Objects in a bucket.
 *
 * Requires `--allow-net` for the server, `--allow-env` for the credential variables unless the
 * credentials are given, and `--allow-read` for `tls_ca_file`.
 */
const s3: L2AdapterModule<typeof s3Config> = defineL2Adapter({
  type: "s3",
  summary: "Objects in a bucket of any S3-compatible object store.",
  config: s3Config,
  capabilities: { durable: true, shared: true, evicts: true },
  async create(values, { clock, signal, onError, onEvicted }) {
    const bucket = bucketOf(values);
    const { s3_region: region, s3_num_io_threads: maxRequests } = values;
    const names = new S3ObjectNames(values.key_prefix);
    const certificates = await readCertificates(values.tls_ca_file, fail);
    const signsPayload = values.sign_payload ?? !bucket.isEncrypted;
    const { AwsV4Signer } = await import("aws4fetch");
    const client = new S3Client({
      bucket,
      region,
      signsPayload,
      maxRequests,
      credentials: await readCredentials(values),
      signer: AwsV4Signer,
      maxAttempts: values.max_attempts,
      timeoutMs: values.request_timeout_ms,
      prefersHttp2: values.s3_prefer_http2,
      caCertificates: certificates === undefined ? [] : [certificates],
      clock,
      random: systemRandom,
    });
    const store = new S3Store({
      client,
      names,
      partBytes: values.part_bytes,
      multipartAboveBytes: Math.max(values.multipart_above_bytes, values.part_bytes),
      rangesAboveBytes: Math.max(values.ranges_above_bytes, values.part_bytes),
      putsIfAbsent: values.put_if_absent,
      maxRequests,
      maxBytesInFlight: values.max_bytes_in_flight,
      bounds: boundsOf(values.max_capacity_gb, values.eviction),
      description: {
        bucket: bucket.location,
        region,
        prefix: names.prefix,
        signsPayload,
      },
      clock,
      onError,
      onEvicted,
    });
    try {
      using tooLate = abortAfter(clock, TRY_MS);
      await probeBucket(
        { client, values, prefix: names.prefix, onError },
        AbortSignal.any([signal, tooLate.signal]),
      );
    } catch (error) {
      await store[Symbol.asyncDispose]();
      throw error;
    }
    store.start();
    return store;
  },
});
export default s3;

/** Fails if the bucket answers but cannot be used. */
async function probeBucket(
  { client, values, prefix, onError }: {
    readonly client: S3Client;
    readonly values: S3Values;
    readonly prefix: string;
    readonly onError: (error: AdapterError) => void;
  },
  signal: AbortSignal,
): Promise<void> {
  const query = { "list-type": "2", "max-keys": "1", prefix };
  let answer = "";
  try {
    const request = { method: "GET", query, maxAttempts: 1 } as const;
    answer = await client.request(request, signal, (response) => response.text());
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) {
      fail("s3_endpoint", "the permission --allow-net for its host", values.s3_endpoint);
    }
    if (!(error instanceof S3Error)) return;
    const { code } = error;
    if (code === "RequestTimeTooSkewed") {
      onError(new AdapterError({ adapter: "s3", operation: "open", cause: error }));
    }
    if (REFUSALS.includes(code)) {
      const key = values.aws_access_key_id ? "aws_access_key_id" : "aws_access_key_id_env";
      fail(key, `credentials that the server accepts (${code})`, "rejected credentials");
    }
    if (code === "NoSuchBucket") {
      const { bucket, s3_endpoint: endpoint } = values;
      fail(
        bucket === undefined ? "s3_endpoint" : "bucket",
        "a bucket that exists",
        bucket ?? endpoint,
      );
    }
    if (OTHER_REGION.includes(code)) {
      fail("s3_region", `the region of the bucket (${code})`, values.s3_region);
    }
    if (code === "AccessDenied" && values.max_capacity_gb > 0) {
      const expected = "0, or the permission to list the bucket (s3:ListBucket)";
      fail("max_capacity_gb", expected, values.max_capacity_gb);
    }
  }
  // The root of a server also answers: with a list of buckets, or with a web page.
  if (/<ListAllMyBucketsResult\b|<html\b/i.test(answer)) {
    const { bucket, s3_endpoint: endpoint } = values;
    const key = bucket === undefined ? "s3_endpoint" : "bucket";
    fail(key, "a bucket: this is the root of a server, or a web page", bucket ?? endpoint);
  }
}

function bucketOf(values: S3Values): Bucket {
  const { s3_endpoint: endpoint, bucket: name, disable_tls: isPlain } = values;
  if (isPlain && /^https:/.test(endpoint)) fail("disable_tls", "false with https", true);
  const bucket = bucketAt({
    endpoint,
    bucket: name,
    region: values.s3_region,
    isPathStyle: values.s3_use_path_style,
    isPlain,
  });
  if (bucket instanceof Bucket) return bucket;
  return fail(bucket.key, bucket.expected, bucket.received);
}
