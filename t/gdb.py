# SPDX-License-Identifier: MIT
# For t/gdb.sh, in gdb: whether what contrib/greenlet-gdb.py finds is what the program's own snapshot has.
import json
import re

import gdb



def inside(path):
    """By number: everything that does not depend on when one looks."""
    with open(path) as file:
        told = json.load(file)
    found = {}
    for thread in told["threads"]:
        for g in thread["greenlets"]:
            found[g["id"]] = {
                "thread": thread["tid"],
                "name": g["name"],
                "state": g["state"],
                "parent": g["parent"] or 0,
                "main": g["is_main"],
                "waits": re.sub(r", -?[0-9.]+ s left", ", until a deadline", g["waits_for"]),
                "addresses": [int(a, 16) for a in g["addresses"]],
            }
    return found


def outside():
    process = Process()  # noqa: F821
    if process.anchor.lost:
        print("LOST %d" % process.anchor.lost)
    found = {}
    for g in process.greenlets:
        parent = process.by_address.get(g.parent)
        addresses = []
        if g.state == "suspended":
            # Not those that gdb has from debugging information alone: inlined ones, and who has jumped instead of called.
            addresses = [pc for pc, kind, _ in places_of(g) if kind == gdb.NORMAL_FRAME]  # noqa: F821
        found[g.id] = {
            "thread": g.thread.tid if g.thread else 0,
            "name": g.name,
            "state": g.state,
            "parent": parent.id if parent else 0,
            "main": g.main,
            "waits": process.waits_for(g),
            "addresses": addresses,
        }
    return found


def shown(g):
    return {**g, "addresses": ["0x%x" % a for a in g["addresses"]]} if g else None


class Compare(gdb.Command):
    """compare-greenlets FILE"""

    def __init__(self):
        super().__init__("compare-greenlets", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        told, found = inside(argument), outside()
        different = [i for i in sorted(told.keys() | found.keys()) if told.get(i) != found.get(i)]
        for i in different[:5]:
            print("DIFFERENT %d\n  inside:  %s\n  outside: %s" % (i, shown(told.get(i)), shown(found.get(i))))
        frames = sum(len(g["addresses"]) for g in found.values())
        print("compared: %d greenlets, %d frames, %d different" % (len(found), frames, len(different)))


Compare()
