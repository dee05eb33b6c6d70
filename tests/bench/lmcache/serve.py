"""Runs LMCache's own L2 adapters for a benchmark: one JSON request a line in, one JSON answer out.

    {"op": "buffers", "count": 96, "bytes": 65536}                      -> {}
    {"op": "open", "config": {"type": "fs_native", "base_path": "..."}} -> {"adapter": 0}
    {"op": "store", "adapter": 0, "keys": ["<hex>", ...], "calls": 3}   -> {"ms": 9.1, "done": 96}
    {"op": "lookup", ...} and {"op": "load", ...}: the same
    {"op": "delete", "adapter": 0, "keys": [...]}                       -> {}
    {"op": "close", "adapter": 0}                                       -> {}

A request that fails is answered by {"error": "..."}. Times run from the first submission to the
last completion; `done` counts objects, after a load only those whose bytes are those stored.
"""

import json
import logging
import os
import select
import sys
import time
import warnings

# LMCache and what it imports print to standard output, which belongs to the answers.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
os.environ["LMCACHE_LOG_LEVEL"] = "ERROR"
logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")

import torch  # noqa: E402
from lmcache.v1.distributed.api import ObjectKey  # noqa: E402
from lmcache.v1.distributed.l2_adapters import create_l2_adapter  # noqa: E402
from lmcache.v1.distributed.l2_adapters.config import (  # noqa: E402
    get_l2_adapter_config_class,
)
from lmcache.v1.memory_management import (  # noqa: E402
    MemoryFormat,
    MemoryObjMetadata,
    TensorMemoryObj,
)
from lmcache.v1.platform import consume_fd  # noqa: E402

PAGE_BYTES = 4096
TIMEOUT_S = 120
TAG_BYTES = 8


def page_aligned(size):
    """Bytes that start on a page, as LMCache's own L1 does."""
    memory = torch.empty(size + PAGE_BYTES, dtype=torch.uint8)
    start = -memory.data_ptr() % PAGE_BYTES
    return memory[start : start + size].fill_(1)


def objects_in(memory, count, size):
    return [
        TensorMemoryObj(
            raw_data=memory[i * size : (i + 1) * size],
            metadata=MemoryObjMetadata(
                shape=torch.Size([size]),
                dtype=torch.uint8,
                address=i * size,
                phy_size=size,
                fmt=MemoryFormat.KV_2LTD,
                ref_count=1,
            ),
            parent_allocator=None,
        )
        for i in range(count)
    ]


def split(items, calls):
    each = -(-len(items) // calls)
    return [items[i : i + each] for i in range(0, len(items), each)]


def wait_for(fd, is_complete):
    """Waits for an adapter's event until `is_complete`, which takes the results it finds."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while not is_complete():
        if not poll.poll(TIMEOUT_S * 1000):
            raise TimeoutError(f"LMCache has not answered within {TIMEOUT_S} s")
        consume_fd(fd)


class Server:
    def __init__(self):
        self.adapters = []
        self.round = 0

    def buffers(self, count, bytes):
        self.sources = objects_in(page_aligned(count * bytes), count, bytes)
        self.loaded = objects_in(page_aligned(count * bytes), count, bytes)
        return {}

    def open(self, config):
        config_class = get_l2_adapter_config_class(config["type"])
        self.adapters.append(create_l2_adapter(config_class.from_dict(config)))
        return {"adapter": len(self.adapters) - 1}

    def store(self, adapter, keys, calls):
        # What an earlier round left in the buffers is not taken for loaded.
        self.round += 1
        for i, source in enumerate(self.sources):
            tag = (i << 32 | self.round).to_bytes(TAG_BYTES, "big")
            source.raw_data[:TAG_BYTES] = torch.frombuffer(bytearray(tag), dtype=torch.uint8)
        completed = {}

        def take():
            completed.update(adapter.pop_completed_store_tasks())
            return len(completed) == len(tasks)

        batches = list(zip(split(keys, calls), split(self.sources, calls)))
        start = time.perf_counter()
        tasks = [adapter.submit_store_task(*batch) for batch in batches]
        wait_for(adapter.get_store_event_fd(), take)
        ms = 1000 * (time.perf_counter() - start)
        done = sum(
            len(batch) for task, (batch, _) in zip(tasks, batches) if completed[task].is_successful()
        )
        return {"ms": ms, "done": done}

    def lookup(self, adapter, keys, calls):
        batches = split(keys, calls)
        start = time.perf_counter()
        tasks = [adapter.submit_lookup_and_lock_task(batch, {}) for batch in batches]
        found = self.bitmaps(
            tasks, adapter.get_lookup_and_lock_event_fd(), adapter.query_lookup_and_lock_result
        )
        ms = 1000 * (time.perf_counter() - start)
        for batch in batches:
            adapter.submit_unlock(batch)
        return {"ms": ms, "done": sum(bitmap.popcount() for bitmap in found)}

    def load(self, adapter, keys, calls):
        start = time.perf_counter()
        tasks = [
            adapter.submit_load_task(*batch)
            for batch in zip(split(keys, calls), split(self.loaded, calls))
        ]
        self.bitmaps(tasks, adapter.get_load_event_fd(), adapter.query_load_result)
        ms = 1000 * (time.perf_counter() - start)
        pairs = zip(self.sources, self.loaded)
        done = sum(torch.equal(source.raw_data, loaded.raw_data) for source, loaded in pairs)
        return {"ms": ms, "done": done}

    def delete(self, adapter, keys):
        adapter.delete(keys)
        return {}

    def close(self, adapter):
        adapter.close()
        return {}

    @staticmethod
    def bitmaps(tasks, fd, query):
        results = {}

        def take():
            for task in tasks:
                result = None if task in results else query(task)
                if result is not None:
                    results[task] = result
            return len(results) == len(tasks)

        wait_for(fd, take)
        return results.values()

    def answer(self, request):
        operation = getattr(self, request.pop("op"))
        if "adapter" in request:
            request["adapter"] = self.adapters[request["adapter"]]
        if "keys" in request:
            request["keys"] = [
                ObjectKey(chunk_hash=bytes.fromhex(key), model_name="bench", kv_rank=0)
                for key in request["keys"]
            ]
        return operation(**request)


server = Server()
for line in sys.stdin:
    try:
        reply = server.answer(json.loads(line))
    except Exception as error:
        reply = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(reply), file=answers, flush=True)
