/**
 * Opens a file of a pool, which must be a file where its name is: a link could lead anywhere.
 *
 * @throws {Deno.errors.FilesystemLoop} If it is a link, or is not what has that name any more.
 */
export async function openOwn(path: string, options: Deno.OpenOptions): Promise<Deno.FsFile> {
  const file = await Deno.open(path, options);
  try {
    const [opened, named] = await Promise.all([file.stat(), Deno.lstat(path)]);
    const isSame = named.isFile && opened.ino === named.ino && opened.dev === named.dev;
    if (!isSame) throw new Deno.errors.FilesystemLoop(`${path} is a link, or no file`);
    return file;
  } catch (error) {
    file.close();
    throw error;
  }
}
