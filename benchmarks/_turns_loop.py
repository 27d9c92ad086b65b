"""``python _turns_loop.py MEGABYTES COUNTER``: a program that knows nothing of Turntable, and works on an array for ever.

It adds 1 to one megabyte after the other, round and round, and counts them in the file COUNTER, which whoever measures it
maps into memory: that costs either side next to nothing.
"""

import mmap
import sys
from pathlib import Path

import numpy as np

BLOCK = 250_000
"""Numbers of 4 bytes: a megabyte."""


def main():
    megabytes = int(sys.argv[1])
    array = np.random.default_rng(0).random(megabytes * BLOCK, np.float32)
    with Path(sys.argv[2]).open("r+b") as file:
        counter = np.frombuffer(mmap.mmap(file.fileno(), 8), np.int64)
        while True:
            for start in range(0, array.size, BLOCK):
                array[start : start + BLOCK] += 1
                counter[0] += 1


if __name__ == "__main__":
    main()
