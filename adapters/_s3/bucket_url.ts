/** Configuration of a bucket's location. */
export interface BucketPlace {
  /** URL of the server or the bucket. */
  readonly endpoint: string;
  /** Name of the bucket, unless the endpoint contains it. */
  readonly bucket: string | undefined;
  /** Region, which determines the server on AWS. */
  readonly region: string;
  /** Whether the bucket is in the path rather than in the host; if left out, the host decides. */
  readonly isPathStyle: boolean | undefined;
  /** Whether to use plain HTTP if the endpoint has no scheme. */
  readonly isPlain: boolean;
}

/** A problem with a {@linkcode BucketPlace}, with the correction. */
export interface PlaceProblem {
  /** The configuration key. */
  readonly key: "s3_endpoint" | "s3_use_path_style";
  /** What the key should be. */
  readonly expected: string;
  /** What the key is, without anything that could be secret. */
  readonly received: string;
}

/** Formats of an endpoint. */
const ENDPOINT_SHAPE = "s3://BUCKET on AWS, or [http[s]://]HOST[:PORT][/BUCKET], and the " +
  "key bucket if it names none";
/** Bucket names that all servers accept. */
const BUCKET_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$/;
/** Bucket names that can be part of a host name, also in a certificate. */
const HOST_NAME = /^[a-z0-9][a-z0-9-]+[a-z0-9]$/;

/** Hosts of AWS, with or without the bucket. Private endpoints name something else there. */
const AWS_HOST =
  /^(?:((?:(?!\bvpce-).)+)\.)?(?:s3|s3-fips|s3express|s3-accelerate)[.-][a-z0-9.-]*amazonaws\.com(?:\.cn)?$/;

/** What a bucket name should be instead; `undefined` if it is valid. */
export function checkBucket(name: string): string | undefined {
  return BUCKET_NAME.test(name) ? undefined : "the name of a bucket: 3 to 63 of A-Z a-z 0-9 . _ -";
}

/** A bucket and the URLs of its objects. */
export class Bucket {
  /** Scheme, host and port. */
  readonly origin: string;
  /** Path of the bucket; empty if the host contains it. */
  readonly #path: string;

  constructor(origin: string, path: string) {
    this.origin = origin;
    this.#path = path;
  }

  /** URL of the bucket, without secrets. */
  get location(): string {
    return this.origin + this.#path;
  }

  /** Whether the connection uses TLS. */
  get isEncrypted(): boolean {
    return /^https:/.test(this.origin);
  }

  /** URL of an object, or of the bucket itself. */
  urlOf(name: string | undefined, query: Readonly<Record<string, string>>): URL {
    const segments = (name ?? "").split("/").map(encodeURIComponent);
    const search = new URLSearchParams(query).toString().replaceAll("+", "%20");
    const url = new URL(`${this.origin}${this.#path}/${segments.join("/")}`);
    url.search = search;
    return url;
  }
}

/** Resolves the location of a bucket, or explains what is wrong. */
export function bucketAt(place: BucketPlace): Bucket | PlaceProblem {
  const { endpoint, isPlain } = place;
  const [, scheme = "", rest = ""] = /^(?:(s3|https?):\/\/)?(.*)$/i.exec(endpoint) ?? [];
  // Not parsed as a URL, which would lowercase the bucket name and turn digits into an address.
  const [, authority = "", path = ""] = /^([^/?#]*)\/?([^?#]*?)\/?$/.exec(rest) ?? [];
  if (authority === "" || authority.includes("@")) {
    return { key: "s3_endpoint", expected: ENDPOINT_SHAPE, received: "something else" };
  }
  const isS3 = /^s3$/i.test(scheme);
  if (isS3 && !/[.:]/.test(authority) && authority !== "localhost") {
    return bucketOnAws(place, authority, path);
  }
  const protocol = isS3 || scheme === "" ? isPlain ? "http" : "https" : scheme.toLowerCase();
  const url = URL.parse(`${protocol}://${authority}`);
  if (url === null || url.hostname === "") {
    return { key: "s3_endpoint", expected: ENDPOINT_SHAPE, received: "something else" };
  }
  return bucketOnServer(place, url, { authority, path, isS3 });
}

/** The bucket of `s3://BUCKET`. */
function bucketOnAws(place: BucketPlace, name: string, path: string): Bucket | PlaceProblem {
  if (path !== "") {
    return {
      key: "s3_endpoint",
      expected: `s3://${name} and key_prefix: "${path}/", or http[s]://${name}/BUCKET ` +
        `where ${name} is a server`,
      received: `s3://${name}/${path}`,
    };
  }
  if (place.bucket !== undefined) return namedTwice(name, place.bucket);
  const expected = checkBucket(name);
  if (expected !== undefined) return { key: "s3_endpoint", expected, received: `s3://${name}` };
  const server = new URL(`${place.isPlain ? "http" : "https"}://${awsHost(place.region)}`);
  return bucketIn(place, server, name);
}

/** The bucket on a server, or with its own host. */
function bucketOnServer(
  place: BucketPlace,
  url: URL,
  { authority, path, isS3 }: {
    readonly authority: string;
    readonly path: string;
    readonly isS3: boolean;
  },
): Bucket | PlaceProblem {
  const [inPath = "", ...prefix] = path.split("/");
  if (prefix.length > 0) {
    return {
      key: "s3_endpoint",
      expected: `${url.origin}/${inPath} and key_prefix: "${prefix.join("/")}/"`,
      received: `${url.origin}/${path}`,
    };
  }
  const aws = AWS_HOST.exec(url.hostname);
  const inHost = aws?.[1];
  if (inHost !== undefined && !authority.startsWith(inHost)) {
    return {
      key: "s3_endpoint",
      expected: `${inHost}: host names are lowercase`,
      received: "uppercase letters",
    };
  }
  const given = [inPath || undefined, place.bucket, inHost].filter((name) => name !== undefined);
  const [name, other] = [...new Set(given)];
  if (name !== undefined && (other !== undefined || inPath !== "" && place.bucket !== undefined)) {
    return namedTwice(name, other ?? name);
  }
  if (inHost !== undefined) return new Bucket(url.origin, "");
  if (name !== undefined) {
    const expected = checkBucket(name);
    if (expected === undefined) return bucketIn(place, url, name);
    return { key: "s3_endpoint", expected: `${url.origin}/BUCKET, ${expected}`, received: name };
  }
  const hasName = aws === null && !isAddress(url.hostname) && /[^.]\.[^.]/.test(url.hostname);
  // Only the configuration can tell whether the first label of such a host is a bucket.
  if (hasName && place.isPathStyle === false) return new Bucket(url.origin, "");
  const orHost = hasName
    ? "; or s3_use_path_style: false, where the first name of the host is the bucket"
    : "";
  const orBucket = isS3 && aws === null && hasName
    ? `; or s3_endpoint: "https://${awsHost(place.region)}" with bucket: "${url.host}", ` +
      `where that is a bucket`
    : "";
  return {
    key: "s3_endpoint",
    expected: `${url.origin} and the key bucket, or ${url.origin}/BUCKET${orHost}${orBucket}`,
    received: "a server without a bucket",
  };
}

/** The named bucket on the server at `url`: in the path, or as part of the host. */
function bucketIn({ isPathStyle }: BucketPlace, url: URL, name: string): Bucket | PlaceProblem {
  // Wildcard certificates cover one label, and host names are lowercase.
  const fitsHost = HOST_NAME.test(name) && !isAddress(url.hostname);
  const isInPath = isPathStyle ?? !(isAws(url.hostname) && fitsHost);
  if (isInPath) return new Bucket(url.origin, `/${name}`);
  const mayHaveDots = url.protocol === "http:" && HOST_NAME.test(name.replaceAll(".", ""));
  if (fitsHost || (mayHaveDots && !isAddress(url.hostname))) {
    return new Bucket(`${url.protocol}//${name}.${url.host}`, "");
  }
  const reason = isAddress(url.hostname)
    ? "an IP address cannot have the bucket as a subdomain"
    : `the bucket name ${name} is not valid in a host name`;
  return { key: "s3_use_path_style", expected: `true: ${reason}`, received: "false" };
}

function namedTwice(one: string, other: string): PlaceProblem {
  return {
    key: "s3_endpoint",
    expected: `one bucket, named once: in s3_endpoint or in bucket`,
    received: `${one} and ${other}`,
  };
}

function isAws(hostname: string): boolean {
  return /(?:^|\.)amazonaws\.com(?:\.cn)?$/.test(hostname);
}

function awsHost(region: string): string {
  return `s3.${region}.amazonaws.com${region.startsWith("cn-") ? ".cn" : ""}`;
}

function isAddress(hostname: string): boolean {
  return hostname.startsWith("[") || /^\d+(?:\.\d+){3}$/.test(hostname);
}
