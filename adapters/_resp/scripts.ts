/**
 * What has to happen at once on the server. All keys of an object lie in one slot, so that a
 * script may touch its chunks, whose names follow from its head.
 *
 * @module
 */
import { MAX_CHUNKS } from "./object_head.ts";

/**
 * Lua: the head that is there, what the chunks of a head are called, and how many there are; none of
 * what is no head, and none where the number is larger than any that is written, which would keep
 * the server busy.
 */
const CHUNKS_OF = `
local function chunks_of(head)
  local count = tonumber(string.match(head, '^KVR1(%x%x%x%x%x%x%x%x)') or '', 16) or 0
  if string.len(head) < 72 or count > ${MAX_CHUNKS} then count = 0 end
  return KEYS[1] .. string.sub(head, 41, 72) .. ':', count
end
local old = redis.pcall('GETRANGE', KEYS[1], 0, 71)
if type(old) ~= 'string' then old = '' end`;

/** Lua: removes the chunks that belong to a head. */
const UNLINK_CHUNKS = `
${CHUNKS_OF}
local function unlink_chunks(head)
  local stem, count = chunks_of(head)
  for i = 0, count - 1 do redis.call('UNLINK', stem .. i) end
end`;

/**
 * Makes an object visible whose chunks are written, and removes those of the one it replaces.
 * Arguments: value, time to live of the head and of the chunks in ms (0: for ever), stem of the
 * chunks, their number. Answers 0, and does nothing, if a chunk has left already.
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

/** Lets the chunks of an object expire that is about to be replaced by one without chunks. */
export const RETIRE_CHUNKS = `${CHUNKS_OF}
local stem, count = chunks_of(old)
for i = 0, count - 1 do redis.call('PEXPIRE', stem .. i, ARGV[1]) end
return count`;

/**
 * Lets the chunks of an object live as long as it does, and as many ms as the argument says longer:
 * it was not replaced after all.
 */
export const KEEP_CHUNKS = `${CHUNKS_OF}
local stem, count = chunks_of(old)
local ttl = redis.call('PTTL', KEYS[1])
for i = 0, count - 1 do
  if ttl < 0 then redis.call('PERSIST', stem .. i)
  else redis.call('PEXPIRE', stem .. i, ttl + tonumber(ARGV[1])) end
end
return count`;

/** Counts as a use of an object and of its chunks, for the order in which the server evicts. */
export const TOUCH = `${CHUNKS_OF}
local stem, count = chunks_of(old)
redis.call('TOUCH', KEYS[1])
for i = 0, count - 1 do redis.call('TOUCH', stem .. i) end
return count`;

/**
 * Removes an object with its chunks, of any generation or of that in the argument only. Answers its
 * head, empty if there was none.
 */
export const REMOVE = `${UNLINK_CHUNKS}
if ARGV[1] ~= '' and string.sub(old, 41, 72) ~= ARGV[1] then return '' end
redis.call('UNLINK', KEYS[1])
unlink_chunks(old)
return old`;
