import { ConfigError, type ConfigValues } from "../../src/l2/adapter.ts";
import { readSecretVariable } from "../../src/runtime/secrets.ts";
import type { s3Config } from "./s3_config.ts";

/** What requests are signed with. */
export interface Credentials {
  /** Names the secret; no secret itself. */
  readonly accessKeyId: string;
  /** The secret. */
  readonly secretAccessKey: string;
  /** What belongs to credentials that expire. */
  readonly sessionToken?: string;
}

/** The configuration keys about credentials. */
export type CredentialsConfig = Pick<
  ConfigValues<typeof s3Config>,
  | "aws_access_key_id"
  | "aws_secret_access_key"
  | "aws_session_token"
  | "aws_access_key_id_env"
  | "aws_secret_access_key_env"
  | "aws_session_token_env"
>;

/**
 * The credentials that a configuration gives, or that stand in the environment variables it names.
 *
 * @throws {ConfigError} If there are none, or only a part; it shows nothing of them.
 */
export async function readCredentials(config: CredentialsConfig): Promise<Credentials> {
  const { aws_access_key_id: id, aws_secret_access_key: secret, aws_session_token: token } = config;
  if (id || secret) {
    if (!id) return fail("aws_access_key_id", "a string beside aws_secret_access_key");
    if (!secret) return fail("aws_secret_access_key", "a string beside aws_access_key_id");
    checkValue("aws_access_key_id", id);
    checkValue("aws_secret_access_key", secret);
    checkValue("aws_session_token", token);
    return credentials(id, secret, token);
  }
  if (token) return fail("aws_access_key_id", "a string beside aws_session_token");
  return credentials(
    await variable("aws_access_key_id_env", config.aws_access_key_id_env),
    await variable("aws_secret_access_key_env", config.aws_secret_access_key_env),
    await optionalVariable("aws_session_token_env", config.aws_session_token_env),
  );
}

/** Fails for what cannot stand in a header: mostly a line break that came with a copy. */
function checkValue(key: string, value: string | undefined, where = ""): void {
  if (value === undefined || /^[\x21-\x7e]*$/.test(value)) return;
  fail(key, `printable ASCII without blanks and line breaks${where}`, "something else");
}

function credentials(
  accessKeyId: string,
  secretAccessKey: string,
  sessionToken: string | undefined,
): Credentials {
  return { accessKeyId, secretAccessKey, ...(sessionToken ? { sessionToken } : {}) };
}

async function variable(key: string, name: string): Promise<string> {
  const { value, problem } = await readSecretVariable(name);
  if (problem !== undefined) return fail(key, problem, name);
  checkValue(key, value, " in the variable");
  return value;
}

async function optionalVariable(key: string, name: string): Promise<string | undefined> {
  const { value } = await readSecretVariable(name);
  checkValue(key, value, " in the variable");
  return value;
}

function fail(key: string, expected: string, received: unknown = "nothing"): never {
  throw new ConfigError({ adapter: "s3 adapter", key, expected, received });
}
