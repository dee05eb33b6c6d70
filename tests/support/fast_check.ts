// Outside the import map: Deno fetches all packages of the map for any program that runs here.
export * from "npm:fast-check@^4.10.2";
