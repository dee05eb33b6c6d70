// deno-lint-ignore-file no-import-prefix -- a consumer of the package fetches nothing of the tests
import axe from "npm:axe-core@^4.11.0";

/** Source of axe-core, which finds barriers in a page. */
export const AXE_SOURCE: string = axe.source;
