/**
 * Scripts for changes that must be atomic. All server keys of an object lie in one slot, so a
 * script may access the chunks, whose names follow from the manifest.
 *
 * @module
 */
import { MAX_CHUNKS } from "./object_head.ts";

/**
 * Lua: reads the current manifest, and defines the prefix and the number of a manifest's chunks.
 * The number is 0 for other values, and above the maximum, which would block the server.
 */
const CHUNKS_OF = `
local function chunks_of(manifest)
  local count = tonumber(string.match(manifest, '^KVR1(%x%x%x%x%x%x%x%x)') or '', 16) or 0
  if string.len(manifest) < 72 or count > ${MAX_CHUNKS} then count = 0 end
  return KEYS[1] .. string.sub(manifest, 41, 72) .. ':', count
end
local old = redis.pcall('GETRANGE', KEYS[1], 0, 71)
if type(old) ~= 'string' then old = '' end`;

/** Lua: removes the chunks of a manifest. */
const UNLINK_CHUNKS = `
${CHUNKS_OF}
local function unlink_chunks(manifest)
  local prefix, count = chunks_of(manifest)
  for i = 0, count - 1 do redis.call('UNLINK', prefix .. i) end
end`;

/**
 * Publishes an object whose chunks are written, and removes the chunks of the one it replaces.
 * Arguments: value, lifetime of the manifest and of the chunks in milliseconds (0: unlimited),
 * chunk prefix, chunk count. Returns 0 and changes nothing if a chunk is missing.
 */
export const PUBLISH = `${UNLINK_CHUNKS}
local last = tonumber(ARGV[5]) - 1
for i = 0, last do
  if redis.call('EXISTS', ARGV[4] .. i) == 0 then return 0 end
end
for i = 0, last do
  if ARGV[3] == '0' then redis.call('PERSIST', ARGV[4] .. i)
  else redis.call('PEXPIRE', ARGV[4] .. i, ARGV[3]) end
end
if ARGV[2] == '0' then redis.call('SET', KEYS[1], ARGV[1])
else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
unlink_chunks(old)
return 1`;

/** Sets an expiry on the chunks of an object that is about to be replaced by one without chunks. */
export const RETIRE_CHUNKS = `${CHUNKS_OF}
local prefix, count = chunks_of(old)
for i = 0, count - 1 do redis.call('PEXPIRE', prefix .. i, ARGV[1]) end
return count`;

/**
 * Undoes that after a failed replacement: the chunks live as long as the object, plus the
 * milliseconds in the argument.
 */
export const KEEP_CHUNKS = `${CHUNKS_OF}
local prefix, count = chunks_of(old)
local ttl = redis.call('PTTL', KEYS[1])
for i = 0, count - 1 do
  if ttl < 0 then redis.call('PERSIST', prefix .. i)
  else redis.call('PEXPIRE', prefix .. i, ttl + tonumber(ARGV[1])) end
end
return count`;

/** Touches an object and its chunks, for the eviction order of the server. */
export const TOUCH = `${CHUNKS_OF}
local prefix, count = chunks_of(old)
redis.call('TOUCH', KEYS[1])
for i = 0, count - 1 do redis.call('TOUCH', prefix .. i) end
return count`;

/**
 * Removes an object and its chunks, of any generation or only of the one in the argument. Returns
 * the manifest, or an empty string if there was none.
 */
export const REMOVE = `${UNLINK_CHUNKS}
if ARGV[1] ~= '' and string.sub(old, 41, 72) ~= ARGV[1] then return '' end
redis.call('UNLINK', KEYS[1])
unlink_chunks(old)
return old`;
