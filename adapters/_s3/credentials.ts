import type { ConfigValues } from "../../src/adapter/contract.ts";
import { failFor } from "../../src/base/config_error.ts";
import { readSecretVariable } from "../../src/base/secrets.ts";
import type { s3Config } from "./s3_config.ts";

const fail = failFor("s3 adapter");

/** Credentials for signing requests. */
export interface Credentials {
  /** Not secret. */
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Token of temporary credentials. */
  readonly sessionToken?: string;
}

/** Configuration keys of the credentials. */
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
 * Reads the credentials from the configuration, or from the environment variables that it names.
 *
 * @throws {ConfigError} If they are missing or incomplete; the error shows nothing of them.
 */
export async function readCredentials(config: CredentialsConfig): Promise<Credentials> {
  const { aws_access_key_id: id, aws_secret_access_key: secret, aws_session_token: token } = config;
  if (id || secret) {
    if (!id) {
      return fail("aws_access_key_id", "a string together with aws_secret_access_key", "nothing");
    }
    if (!secret) {
      return fail("aws_secret_access_key", "a string together with aws_access_key_id", "nothing");
    }
    checkValue("aws_access_key_id", id);
    checkValue("aws_secret_access_key", secret);
    checkValue("aws_session_token", token);
    return credentials(id, secret, token);
  }
  if (token) {
    return fail("aws_access_key_id", "a string together with aws_session_token", "nothing");
  }
  return credentials(
    await variable("aws_access_key_id_env", config.aws_access_key_id_env),
    await variable("aws_secret_access_key_env", config.aws_secret_access_key_env),
    await optionalVariable("aws_session_token_env", config.aws_session_token_env),
  );
}

/** Rejects characters that are not allowed in a header, such as a line break from copying. */
function checkValue(key: string, value: string | undefined, where = ""): void {
  if (value === undefined || /^[\x21-\x7e]*$/.test(value)) return;
  fail(key, `printable ASCII without spaces and line breaks${where}`, "something else");
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
