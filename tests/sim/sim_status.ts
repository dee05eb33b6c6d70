/** Throws unless a status survives JSON unchanged. */
export function checkStatus(status: unknown): void {
  const check = (value: unknown, path: string): void => {
    if (value === undefined || value === null || typeof value === "boolean") return;
    if (typeof value === "string" || Number.isFinite(value)) return;
    if (typeof value !== "object") throw new Error(`Status is no JSON: ${path} is ${value}`);
    for (const [name, part] of Object.entries(value)) check(part, `${path}.${name}`);
  };
  check(status, "status");
  JSON.stringify(status);
}
