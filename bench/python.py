#!/usr/bin/python3
# SPDX-License-Identifier: MIT
# greenlet, in Python.
#   switch   g.switch() and its parent's, one way
#   start    a greenlet of an empty function, run to its end
import sys
import time

from greenlet import getcurrent, greenlet


def switch(n):
    main = getcurrent()

    def loop():
        back = main.switch
        while True:
            back()

    go = greenlet(loop).switch
    go()
    begin = time.perf_counter_ns()
    for _ in range(n):
        go()
    return (time.perf_counter_ns() - begin) / n / 2


def start(n):
    def empty():
        pass

    begin = time.perf_counter_ns()
    for _ in range(n):
        greenlet(empty).switch()
    return (time.perf_counter_ns() - begin) / n


works = {"switch": (switch, 300000), "start": (start, 20000)}
if len(sys.argv) < 2:
    print("\n".join(works))
elif sys.argv[1] in works:
    work, n = works[sys.argv[1]]
    work(n // 10)
    print("%.3f" % work(n))
else:
    sys.exit(3)
