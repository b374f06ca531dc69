"""Each benchmark in a process of its own: what one leaves behind must not slow or flatter the next."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import sys
from typing import Any, Final

from tests.benchmarks.report import Report
from tests.benchmarks.sizes import Size

#: Name and module. Imported when it is run: each has packages of its own.
BENCHMARKS: Final = {
    "requests": "request_cost",
    "calls": "call_count",
    "memory": "memory_cost",
    "writes": "write_cost",
    "http": "http_cost",
    "lists": "list_cost",
    "sizes": "size_cost",
    "strict": "strict_answers",
    "peers": "peers",
}


def run(name: str, size: Size) -> Report:
    """Run one benchmark."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_run_here, args=(name, size, there))
    process.start()
    there.close()
    try:
        return Report.from_json(here.recv())
    except EOFError:
        sys.exit(f"The benchmark {name} has failed.")
    finally:
        process.join()


def _run_here(name: str, size: Size, found: Any) -> None:
    # Strangers' tokens are refused by the million.
    logging.getLogger("asgi_token_auth").setLevel(logging.CRITICAL)
    module = importlib.import_module(f"tests.benchmarks.{BENCHMARKS[name]}")
    report: Report = module.benchmark(size)
    found.send(report.as_json())
