import type { FileSystem } from "./file_system.ts";

/** An accented letter in composed form; its other forms are decomposed or lowercase. */
const LETTER = "\u00c9";
const SAME = [LETTER.toLowerCase(), LETTER.normalize("NFD")];

/**
 * Creates a temporary file to test whether names that differ in case or Unicode form are equal.
 *
 * @param pathOf Path for a name in the directory to test.
 */
export async function foldsNames(
  files: FileSystem,
  pathOf: (name: string) => string,
  mode: number,
): Promise<boolean> {
  const path = pathOf("");
  const probe = `${path}${LETTER}`;
  try {
    using file = await files.create(probe, mode);
    await file.flush?.();
    for (const name of SAME) if (await files.exists(`${path}${name}`)) return true;
    return false;
  } finally {
    await files.remove(probe).catch(() => {});
  }
}
