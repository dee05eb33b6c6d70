/** What says where a bucket is. */
export interface BucketPlace {
  /** The server or the bucket. */
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

/** What is wrong with a {@linkcode BucketPlace}, and what to write. */
export interface PlaceProblem {
  /** The configuration key. */
  readonly key: "s3_endpoint" | "s3_use_path_style";
  /** What it should be. */
  readonly expected: string;
  /** What it is, without anything that may be secret. */
  readonly received: string;
}

/** What an endpoint looks like. */
const ENDPOINT_SHAPE = "s3://BUCKET on AWS, or [http[s]://]HOST[:PORT][/BUCKET], with bucket " +
  "beside it where it names none";
/** Names that all kinds of servers take. */
const BUCKET_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$/;
/** Names that can stand in a host, in a certificate too. */
const HOST_NAME = /^[a-z0-9][a-z0-9-]+[a-z0-9]$/;

/** AWS, with the bucket in front of it or without; private endpoints have other names there. */
const AWS_HOST =
  /^(?:((?:(?!\bvpce-).)+)\.)?(?:s3|s3-fips|s3express|s3-accelerate)[.-][a-z0-9.-]*amazonaws\.com(?:\.cn)?$/;

/** What is wrong with the name of a bucket; `undefined` if it is fine. */
export function checkBucket(name: string): string | undefined {
  return BUCKET_NAME.test(name) ? undefined : "the name of a bucket: 3 to 63 of A-Z a-z 0-9 . _ -";
}

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

/** The bucket that is meant, or why that cannot be told. */
export function bucketAt(place: BucketPlace): Bucket | PlaceProblem {
  const { endpoint, isPlain } = place;
  const [, scheme = "", rest = ""] = /^(?:(s3|https?):\/\/)?(.*)$/i.exec(endpoint) ?? [];
  // A URL would take the name of a bucket for a host: in lower case, digits for an address.
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

/** The bucket in `s3://BUCKET`. */
function bucketOnAws(place: BucketPlace, name: string, path: string): Bucket | PlaceProblem {
  if (path !== "") {
    return {
      key: "s3_endpoint",
      expected:
        `s3://${name}, with key_prefix: "${path}/" beside it, or http[s]://${name}/BUCKET ` +
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

/** The bucket on a server, or with a host of its own. */
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
      expected: `${url.origin}/${inPath}, with key_prefix: "${prefix.join("/")}/" beside it`,
      received: `${url.origin}/${path}`,
    };
  }
  const aws = AWS_HOST.exec(url.hostname);
  const inHost = aws?.[1];
  if (inHost !== undefined && !authority.startsWith(inHost)) {
    return {
      key: "s3_endpoint",
      expected: `${inHost}: hosts know no capitals`,
      received: "others",
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
  // Only its owner knows whether the first name of such a host is a bucket.
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
    expected: `${url.origin} with bucket beside it, or ${url.origin}/BUCKET${orHost}${orBucket}`,
    received: "a server without a bucket",
  };
}

/** The bucket with a name on the server at `url`: in the path, or in front of the host. */
function bucketIn({ isPathStyle }: BucketPlace, url: URL, name: string): Bucket | PlaceProblem {
  // Certificates hold for one name in front of the host, and hosts know no capitals.
  const fitsHost = HOST_NAME.test(name) && !isAddress(url.hostname);
  const isInPath = isPathStyle ?? !(isAws(url.hostname) && fitsHost);
  if (isInPath) return new Bucket(url.origin, `/${name}`);
  const mayHaveDots = url.protocol === "http:" && HOST_NAME.test(name.replaceAll(".", ""));
  if (fitsHost || (mayHaveDots && !isAddress(url.hostname))) {
    return new Bucket(`${url.protocol}//${name}.${url.host}`, "");
  }
  const reason = isAddress(url.hostname)
    ? "an address has no names in front of it"
    : `the bucket ${name} cannot stand in a host's name`;
  return { key: "s3_use_path_style", expected: `true: ${reason}`, received: "false" };
}

function namedTwice(one: string, other: string): PlaceProblem {
  return {
    key: "s3_endpoint",
    expected: `one bucket, named once: in s3_endpoint, or in bucket beside it`,
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
