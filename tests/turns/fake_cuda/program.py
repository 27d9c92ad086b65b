"""A program that uses CUDA: takes GPU memory, then counts, asking CUDA before every count.

Arguments: the bytes to take, and the file that shows the count.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time

driver = ctypes.CDLL("libcuda.so.1")
pointer = ctypes.c_uint64()
assert driver.cuInit(0) == 0
assert driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(int(sys.argv[1]))) == 0
shown = os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY)
count = 0
while driver.cuCtxSynchronize() == 0:
    count += 1
    os.pwrite(shown, f"{count:012d}".encode(), 0)
    time.sleep(0.002)
