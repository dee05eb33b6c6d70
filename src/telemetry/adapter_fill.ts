/** Bytes in an adapter, and how many it may hold. */
export interface AdapterFill {
  readonly usedBytes: number | undefined;
  readonly capacityBytes: number | undefined;
}

/**
 * Reads how full an adapter is from the status that it reports itself: `usedBytes` and
 * `capacityBytes`, there or below `space`. Anything but a number of bytes counts as unknown.
 */
export function fillOf(details: Readonly<Record<string, unknown>>): AdapterFill {
  const { space } = details;
  const places = [details, typeof space === "object" && space !== null ? space : {}];
  const read = (key: string): number | undefined =>
    places.map((place): unknown => Reflect.get(place, key)).find(isBytes);
  return { usedBytes: read("usedBytes"), capacityBytes: read("capacityBytes") };
}

function isBytes(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}
