import type { FileSystem } from "./file_system.ts";

/** A letter with an accent, in one code point; other forms are two, or the small letter. */
const LETTER = "\u00c9";
const SAME = [LETTER.toLowerCase(), LETTER.normalize("NFD")];

/**
 * Makes a file for a moment, to see whether it can be found under names that mean the same to
 * people.
 *
 * @param pathOf The path for a name, in the directory that is asked about.
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
    await file.flush();
    for (const name of SAME) if (await files.exists(`${path}${name}`)) return true;
    return false;
  } finally {
    await files.remove(probe).catch(() => {});
  }
}
