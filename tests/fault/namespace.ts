/**
 * A shell for `childCommand` that runs a script in a separate mount namespace, where it can mount
 * file systems, which are unmounted when it ends.
 *
 * @returns `undefined` if the host does not allow that.
 */
export async function inNewNamespace(
  script: string,
): Promise<readonly [string, ...string[]] | undefined> {
  const shell = ["unshare", "-rm", "sh", "-c", script, "sh"] as const;
  const trial = "mount -t tmpfs -o size=1m tmpfs /mnt";
  const args = ["-rm", "sh", "-c", trial];
  const works = await new Deno.Command("unshare", { args, stderr: "null" }).output().then(
    ({ success }) => success,
    () => false,
  );
  return works ? shell : undefined;
}
