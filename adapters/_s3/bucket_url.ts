/** What says where a bucket is. */
export interface BucketPlace {
  /** The server or the bucket; see {@linkcode ENDPOINT_SHAPE}. */
  readonly endpoint: string;
  /** The bucket, where the endpoint does not name it. */
  readonly bucket: string | undefined;
  /** The region, of which AWS has a server. */
  readonly region: string;
  /** Whether the bucket stands in the path instead of the host; left out, the host decides. */
  readonly isPathStyle: boolean | undefined;
  /** Whether plain HTTP is spoken where the endpoint names no protocol. */
  readonly isPlain: boolean;
}

/** What an endpoint looks like. */
export const ENDPOINT_SHAPE = "s3://BUCKET, [s3://]BUCKET.HOST[:PORT], or " +
  "[http[s]://]HOST[:PORT][/BUCKET]";

/** A bucket, and the addresses of what is in it. */
export class Bucket {
  /** Protocol, host and port. */
  readonly origin: string;
  /** The bucket in the path; empty where it stands in the host. */
  readonly #path: string;

  /** A bucket at `origin`, in the path `path`. */
  constructor(origin: string, path: string) {
    this.origin = origin;
    this.#path = path;
  }

  /** Where it is, without anything secret. */
  get location(): string {
    return this.origin + this.#path;
  }

  /** Whether nobody can listen. */
  get isEncrypted(): boolean {
    return /^https:/.test(this.origin);
  }

  /** The address of an object, or of the bucket itself. */
  urlOf(name: string | undefined, query: Readonly<Record<string, string>>): URL {
    const segments = (name ?? "").split("/").map(encodeURIComponent);
    const search = new URLSearchParams(query).toString().replaceAll("+", "%20");
    const url = new URL(`${this.origin}${this.#path}/${segments.join("/")}`);
    url.search = search;
    return url;
  }
}

/** The bucket that is meant; `undefined` if the endpoint is none. */
export function bucketAt(place: BucketPlace): Bucket | undefined {
  const { endpoint, region, isPlain } = place;
  const [, scheme, rest = ""] = /^(?:(s3|https?):\/\/)?(.*)$/.exec(endpoint) ?? [];
  const protocol = scheme === "http" || scheme === "https" ? scheme : isPlain ? "http" : "https";
  const url = URL.parse(`${protocol}://${rest}`);
  if (url === null || url.hostname === "" || url.username !== "" || url.password !== "") {
    return undefined;
  }
  const pathBucket = url.pathname.replaceAll(/^\/|\/$/g, "");
  if (url.search !== "" || url.hash !== "" || pathBucket.includes("/")) return undefined;
  if (pathBucket !== "" && place.bucket !== undefined) return undefined;
  const bucket = place.bucket ?? (pathBucket || undefined);
  if (bucket !== undefined) {
    const isInPath = place.isPathStyle ?? !isAws(url.hostname);
    if (isInPath) return new Bucket(url.origin, `/${encodeURIComponent(bucket)}`);
    return new Bucket(`${url.protocol}//${bucket}.${url.host}`, "");
  }
  if (scheme === "s3" && !/[.:]/.test(url.host) && url.host !== "localhost") {
    const host = `s3.${region}.amazonaws.com`;
    return place.isPathStyle
      ? new Bucket(`${url.protocol}//${host}`, `/${url.host}`)
      : new Bucket(`${url.protocol}//${url.host}.${host}`, "");
  }
  // What is left of a host behind the bucket has to be one.
  return place.isPathStyle || !/^[^.]+\.\D/.test(url.hostname)
    ? undefined
    : new Bucket(url.origin, "");
}

function isAws(hostname: string): boolean {
  return /(?:^|\.)amazonaws\.com(?:\.cn)?$/.test(hostname);
}
