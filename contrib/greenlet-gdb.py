# SPDX-License-Identifier: MIT
# greenlets in gdb: which there are, and their frames, in running processes and in core files.
#
#   info greenlets                 a line for each
#   greenlet ID bt                 the frames of one; any other command runs in its innermost frame
#   greenlet ID                    go there: bt, up, down, info locals; "greenlet" goes back
#   greenlet apply all bt          of all; those that are in the same place are told once
#   greenlet apply ID... COMMAND
#
# gdb loads it by itself beside an installed libgreenlet (see greenlet-gdb(7)), or by "source greenlet-gdb.py". It reads
# nothing but the data that the library tells about itself (greenlet_anchor_v1), so a library without debugging information
# will do; and writes nothing, so a core will do. To gdb, a suspended greenlet is what has called the function in which the
# selected thread is: an unwinder says so, while one is selected.
import re
import struct

import gdb
import gdb.unwinder

STATES = {0: "unstarted", 1: "suspended", 2: "finished", 3: "unwound"}

BODY = ("bytes id state main owner parent shared sp fp pc base memory stack_size name created switches").split()
CHUNKS = "next first stride count".split()
STRING = "data size".split()
THREAD = "bytes next tid name current main exited hub".split()
CREATION = "made count addresses".split()
ENTRIES = "hidden made made_at".split()
HUB = "loop runner ready time waiters".split()
WAITER = "what why timed who home slot in when aligned reader writer descriptor kind object".split()

# By anchor::registers: sp, fp, pc, base; and where a ucontext_t has each (<sys/ucontext.h>).
MACHINES = {
    1: (
        ("rsp", "rbp", "rip", "rbx"),
        1,
        {n: 40 + 8 * i for i, n in enumerate("r8 r9 r10 r11 r12 r13 r14 r15 rdi rsi rbp rbx rdx rax rcx rsp rip".split())},
    ),
    2: (
        ("sp", "x29", "pc", "x19"),
        4,
        dict([("x%d" % i, 184 + 8 * i) for i in range(31)] + [("sp", 184 + 8 * 31), ("pc", 184 + 8 * 32)]),
    ),
}


class Unreadable(gdb.GdbError):
    pass


def read(address, size):
    try:
        return bytes(gdb.selected_inferior().read_memory(address, size))
    except gdb.MemoryError:
        raise Unreadable("greenlets: there is no memory at 0x%x" % address)


def word(data, at):
    return struct.unpack_from("Q", data, at)[0]


def int32(data, at):
    return struct.unpack_from("i", data, at)[0]


class Layout:
    """Offsets by name; -1: there is no such thing."""

    def __init__(self, names, numbers):
        for name in names:
            setattr(self, name, next(numbers))


class Anchor:
    """Where everything is (lib/anchor.hpp)."""

    def __init__(self):
        try:
            at = int(gdb.parse_and_eval("(char *) &greenlet_anchor_v1"))
        except gdb.error:
            raise gdb.GdbError("no libgreenlet with greenlet_anchor_v1 in this process, or gdb has not found its symbols")
        head = read(at, 72)
        magic, version, size, pointer, registers, library = struct.unpack_from("16s4i16s", head)
        if magic.rstrip(b"\0") != b"greenlet anchor":
            raise gdb.GdbError("what is called greenlet_anchor_v1 is something else, or not there yet")
        if version != 1 or pointer != 8 or registers not in MACHINES:
            raise gdb.GdbError("libgreenlet %s: anchor version %d, %d bits: not known here"
                               % (library.rstrip(b"\0").decode(), version, 8 * pointer))
        self.names, self.step, self.ucontext = MACHINES[registers]
        self.threads, self.cells, self.registry = struct.unpack_from("3Q", head, 48)
        numbers = iter(struct.unpack("%di" % ((size - 72) // 4), read(at + 72, (size - 72) // 4 * 4)))
        self.body = Layout(BODY, numbers)
        self.chunks = Layout(CHUNKS, numbers)
        self.string = Layout(STRING, numbers)
        self.thread = Layout(THREAD, numbers)
        self.creation = Layout(CREATION, numbers)
        self.entry_chunks = Layout(CHUNKS, numbers)
        self.entries = Layout(ENTRIES, numbers)
        self.hub = Layout(HUB, numbers)
        self.waiter_chunks = Layout(CHUNKS, numbers)
        self.waiter = Layout(WAITER, numbers)

    def string_at(self, address):
        if not address or self.string.data < 0:
            return ""
        s = read(address, 32)
        return read(word(s, self.string.data), min(word(s, self.string.size), 4096)).decode("utf-8", "backslashreplace")

    def each_chunk(self, address, chunks):
        seen = set()
        while address and address not in seen:
            seen.add(address)
            data = read(address, chunks.first + chunks.stride * chunks.count)
            for i in range(chunks.count):
                yield data, chunks.first + chunks.stride * i
            address = word(data, chunks.next)


class Thread:
    """A thread's record."""

    def __init__(self, anchor, address):
        t = anchor.thread
        data = read(address, t.bytes)
        self.address = address
        self.tid = int32(data, t.tid)
        self.name = anchor.string_at(address + t.name)
        self.current = word(data, t.current)
        self.main = word(data, t.main)
        self.exited = data[t.exited] != 0
        self.hub = word(data, t.hub) if t.hub >= 0 else 0

    def gdb_thread(self):
        for t in gdb.selected_inferior().threads():
            if t.ptid[1] == self.tid or t.ptid[2] == self.tid:
                return t
        return None


class Greenlet:
    """A body."""

    def __init__(self, all_, address, data, at):
        a = all_.anchor
        b = a.body
        self.address = address
        self.id = word(data, at + b.id)
        self.main = data[at + b.main] != 0
        self.parent = word(data, at + b.parent)
        self.stack_end = word(data, at + b.memory)
        owner = word(data, at + b.owner)
        self.thread = all_.thread_at(owner) if owner else None
        self.state = STATES.get(data[at + b.state], "?")
        if self.state == "suspended" and self.thread:
            if self.thread.exited:
                self.state = "unwound"
            elif self.thread.current == address:
                self.state = "running"
        name = word(data, at + b.name)
        self.name = a.string_at(name) if name else ""
        self.registers = {}
        self.exact = False
        if self.state == "suspended":
            self.find_registers(a, [word(data, at + o) for o in (b.sp, b.fp, b.pc, b.base)])

    def find_registers(self, a, words):
        self.registers = dict(zip(a.names, words))
        # What it goes on with is looked up as a caller's address would be: one byte before. See GREENLET_CFI.
        self.step = a.step
        if words[2] == 0 and words[0]:
            try:
                saved = read(words[0], max(a.ucontext.values()) + 8)
            except Unreadable:
                self.registers = {}
                return
            self.registers = {name: word(saved, at) for name, at in a.ucontext.items()}
            self.step = 0

    @property
    def pc(self):
        return self.registers.get("rip", self.registers.get("pc", 0))

    @property
    def sp(self):
        return self.registers.get("rsp", self.registers.get("sp", 0))

    def title(self):
        text = "greenlet %d" % self.id
        if self.name:
            text += ' "%s"' % self.name
        text += " (%s%s)" % (self.state, ", main" if self.main else "")
        if self.thread:
            text += " of thread %d" % self.thread.tid
            if self.thread.name:
                text += ' "%s"' % self.thread.name
        return text


class Process:
    """All greenlets, as the memory is now."""

    def __init__(self):
        self.anchor = Anchor()
        self.threads = {}
        self.hubs = {}
        self.lost = 0
        self.by_address = {}
        for g in self.each():
            self.by_address[g.address] = g
        self.greenlets = sorted(self.by_address.values(), key=lambda g: g.id)
        self.by_id = {g.id: g for g in self.greenlets}
        for g in self.greenlets:
            g.thread = g.thread or self.thread_of_tree(g)

    def thread_at(self, address):
        if address not in self.threads:
            self.threads[address] = Thread(self.anchor, address)
        return self.threads[address]

    def thread_of_tree(self, g):
        """That on which an unstarted one would start."""
        seen = set()
        while g and not g.thread and g.address not in seen:
            seen.add(g.address)
            g = self.by_address.get(g.parent)
        return g.thread if g else None

    def each(self):
        a = self.anchor
        for data, at in self.each_place():
            if not word(data, at + a.body.id):
                continue
            main = data[at + a.body.main] != 0
            if (word(data, at + a.body.shared) < 4) if main else not word(data, at + a.body.parent):
                continue
            try:
                yield Greenlet(self, self.address_of_place, data, at)
            except (Unreadable, gdb.MemoryError):
                self.lost += 1

    def each_place(self):
        a = self.anchor
        address = a.cells
        seen = set()
        while address and address not in seen:
            seen.add(address)
            data = read(address, a.chunks.first + a.chunks.stride * a.chunks.count)
            for i in range(a.chunks.count):
                at = a.chunks.first + a.chunks.stride * i
                self.address_of_place = address + at
                yield data, at
            address = word(data, a.chunks.next)
        if a.registry and a.entry_chunks.count:
            for data, at in a.each_chunk(a.registry, a.entry_chunks):
                hidden = word(data, at + a.entries.hidden)
                if not hidden:
                    continue
                self.address_of_place = ~hidden & 0xFFFFFFFFFFFFFFFF
                try:
                    yield read(self.address_of_place, a.body.bytes), 0
                except Unreadable:
                    self.lost += 1

    def waits_for(self, g):
        if not g.thread or not g.thread.hub or not self.anchor.hub.loop:
            return ""
        if g.thread.address not in self.hubs:
            try:
                self.hubs[g.thread.address] = self.read_hub(g.thread.hub)
            except Unreadable:
                self.hubs[g.thread.address] = {}
        return self.hubs[g.thread.address].get(g.address, "")

    def read_hub(self, loop):
        a = self.anchor
        w = a.waiter
        waits = {}
        for data, at in a.each_chunk(word(read(loop, a.hub.loop), a.hub.waiters), a.waiter_chunks):
            who = word(data, at + w.who)
            if word(data, at + w.home) == loop and data[at + w.what] == 0 and who:
                waits[who] = self.describe_wait(loop, data, at)
        return waits

    def describe_wait(self, loop, data, at):
        a = self.anchor
        w = a.waiter
        slot, list_ = word(data, at + w.slot), word(data, at + getattr(w, "in"))
        if data[at + w.why] or list_ == loop + a.hub.ready:
            return "nothing: it is ready to run"
        timed = data[at + w.timed] != 0
        if slot:
            reads = slot % w.aligned == w.reader % w.aligned
            poller = slot - (w.reader if reads else w.writer)
            text = "%s descriptor %d" % ("reading" if reads else "writing", int32(read(poller + w.descriptor, 4), 0))
        elif list_:
            kind = word(read(list_ + w.kind, 8), 0)
            about = word(read(list_ + w.object, 8), 0)
            text = read(kind, 64).split(b"\0")[0].decode("ascii", "replace") if kind else "another greenlet"
            text += " 0x%x" % about if about else ""
        else:
            text = "timer" if timed else "another greenlet"
        return text + (", until a deadline" if timed else "")


# --- Unwinding ------------------------------------------------------------------------------------------------------


class FrameId:
    def __init__(self, sp, pc):
        self.sp = sp
        self.pc = pc


class Unwinder(gdb.unwinder.Unwinder):
    """While a greenlet is selected, the selected thread's innermost function was called by it."""

    def __init__(self):
        super().__init__("greenlet")
        self.greenlet = None
        self.sp = self.pc = 0

    def select(self, greenlet, sp_name, pc_name):
        self.greenlet = None
        gdb.invalidate_cached_frames()
        if greenlet:
            frame = gdb.newest_frame()
            while frame.type() == gdb.INLINE_FRAME:
                frame = frame.older()
            self.names = (sp_name, pc_name)
            self.sp = int(frame.read_register(sp_name)) & 0xFFFFFFFFFFFFFFFF
            self.pc = int(frame.read_register(pc_name)) & 0xFFFFFFFFFFFFFFFF
            self.greenlet = greenlet
            gdb.invalidate_cached_frames()

    def __call__(self, pending):
        g = self.greenlet
        if not g:
            return None
        sp, pc = (pending.read_register(name) for name in self.names)
        if int(pc) & 0xFFFFFFFFFFFFFFFF != self.pc or int(sp) & 0xFFFFFFFFFFFFFFFF != self.sp:
            return None
        # gdb lets no caller's frame lie below that of whom it has called.
        info = pending.create_unwind_info(FrameId(gdb.Value(g.sp - 256).cast(sp.type), pc))
        for name, value in g.registers.items():
            if name == self.names[1]:
                value += g.step
            info.add_saved_register(name, gdb.Value(value).cast(pending.read_register(name).type))
        return info


unwinder = Unwinder()


def names_of(g):
    return ("rsp", "rip") if "rip" in g.registers else ("sp", "pc")


class Selected:
    """A greenlet's frames in gdb's place, for a while."""

    def __init__(self, greenlet):
        self.greenlet = greenlet

    def __enter__(self):
        g = self.greenlet
        self.before = gdb.selected_thread()
        self.outer = unwinder.greenlet
        if g.state == "running":
            thread = g.thread.gdb_thread()
            if not thread:
                raise gdb.GdbError("gdb does not know thread %d" % g.thread.tid)
            unwinder.select(None, "", "")
            thread.switch()
            return gdb.newest_frame()
        if not g.registers:
            raise gdb.GdbError(g.title() + " has no frames")
        unwinder.select(g, *names_of(g))
        frame = gdb.newest_frame()
        while frame and (int(frame.read_register(names_of(g)[0])) & 0xFFFFFFFFFFFFFFFF) != g.sp:
            frame = frame.older()
        # What is inlined where it is suspended comes first, and has the same registers.
        if not frame:
            raise gdb.GdbError("gdb cannot unwind " + g.title())
        return frame

    def __exit__(self, *_):
        unwinder.select(None, "", "")
        if self.before and self.before.is_valid():
            self.before.switch()
        if self.outer:
            unwinder.select(self.outer, *names_of(self.outer))


def arguments_of(frame):
    try:
        block = frame.block()
        while block and not block.function:
            block = block.superblock
        texts = []
        for symbol in block or ():
            if not symbol.is_argument:
                continue
            value = symbol.value(frame)
            scalar = value.type.strip_typedefs().code not in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION, gdb.TYPE_CODE_ARRAY)
            try:
                text = value.format_string(max_elements=20, deref_refs=False) if scalar else "..."
            except (gdb.error, gdb.MemoryError):
                text = "..."
            texts.append("%s=%s" % (symbol.name, text))
        return " (" + ", ".join(texts) + ")"
    except (RuntimeError, gdb.error):
        return " ()"


def line_of(frame, step):
    pc = frame.pc() - step
    inlined = frame.type() == gdb.INLINE_FRAME
    text = ("" if inlined else "0x%016x in " % pc) + (frame.name() or "??") + arguments_of(frame)
    sal = frame.find_sal()
    if sal.symtab:
        return text + " at %s:%d" % (sal.symtab.filename, sal.line)
    file = gdb.current_progspace().solib_name(pc)
    return text + (" from " + file if file else "")


def each_frame(g, frame, most):
    """Frames from this one out, with how much further than it is each one's address is told to be."""
    step = g.step if g.state == "suspended" else 0
    own = frame.pc() if step else None
    count = 0
    while frame and frame.pc() and (not most or count < most):
        step = step if frame.pc() == own else 0
        yield frame, step
        count += 1
        frame = frame.older()


def places_of(g, most=0):
    """Where it is, innermost first: what is the same in greenlets that are in the same place."""
    with Selected(g) as frame:
        return tuple((f.pc() - step, f.type(), f.name()) for f, step in each_frame(g, frame, most))


def lines_of(g, most=0):
    """Lines of a backtrace, innermost first."""
    with Selected(g) as frame:
        return ["#%-2d %s" % (i, line_of(f, step)) for i, (f, step) in enumerate(each_frame(g, frame, most))]


# --- Commands -------------------------------------------------------------------------------------------------------

known_places = {}


def place(pc):
    if pc not in known_places:
        text = gdb.execute("info symbol 0x%x" % pc, to_string=True)
        match = re.match(r"(.*?)(?: \+ \d+)? in section .*", text)
        known_places[pc] = match.group(1) if match else "0x%x" % pc
    return known_places[pc]


def where(g):
    """The innermost function that is the program's own, and its line; else the one that it is in."""
    try:
        with Selected(g) as frame:
            for f, _ in each_frame(g, frame, 50):
                sal = f.find_sal()
                file = sal.symtab.filename if sal.symtab else ""
                if f.name() and not re.match(r"(greenlets|std)::", f.name()) and "/include/greenlet/" not in file:
                    return f.name() + (" at %s:%d" % (file, sal.line) if file else "")
    except (gdb.error, gdb.GdbError, RuntimeError):
        pass
    return place(g.pc)


class InfoGreenlets(gdb.Command):
    """A line for each greenlet of the process: info greenlets [TEXT]
With TEXT, only those whose line has it."""

    def __init__(self):
        super().__init__("info greenlets", gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        known_places.clear()
        p = Process()
        few = len(p.greenlets) <= 1000  # each takes milliseconds
        print("%10s %-10s %8s %10s  %s" % ("Id", "State", "Thread", "Parent", "Name, what it waits for, where"))
        for g in p.greenlets:
            parent = p.by_address.get(g.parent)
            text = '"%s" ' % g.name if g.name else ""
            waits = p.waits_for(g)
            text += "main " if g.main else ""
            text += "[%s] " % waits if waits else ""
            text += (where(g) if few else place(g.pc)) if g.pc else ""
            line = "%10d %-10s %8s %10s  %s" % (g.id, g.state, g.thread.tid if g.thread else "-", parent.id if parent else "-", text)
            if argument in line:
                print(line.rstrip())
        if p.lost:
            print("%d could not be read" % p.lost)


BACKTRACE = re.compile(r"(?:bt|where|backtrace)(?:\s+(\d+))?$")


def run(g, command):
    match = BACKTRACE.match(command)
    if match:
        for line in lines_of(g, int(match.group(1) or 0)):
            print(line)
        return
    with Selected(g) as frame:
        frame.select()
        gdb.execute(command)


def find(p, text):
    if not text.isdigit() or int(text) not in p.by_id:
        raise gdb.GdbError("there is no greenlet %s; see: info greenlets" % text)
    return p.by_id[int(text)]


class GreenletCommand(gdb.Command):
    """Go to a greenlet, or run a command in its innermost frame: greenlet [ID [COMMAND]]
Without ID: back to the thread's own frames, as they are."""

    def __init__(self):
        super().__init__("greenlet", gdb.COMMAND_STACK, gdb.COMPLETE_NONE, True)

    def invoke(self, argument, from_tty):
        words = argument.split(None, 1)
        if not words:
            unwinder.select(None, "", "")
            return
        g = find(Process(), words[0])
        if len(words) > 1:
            run(g, words[1])
            return
        Selected(g).__enter__().select()  # and stays
        print("[%s]" % g.title())
        gdb.execute("frame")


class GreenletApply(gdb.Command):
    """Run a command in many greenlets: greenlet apply (all | ID...) COMMAND
With bt, those of one thread that are in the same places are told once, with the arguments of the first."""

    def __init__(self):
        super().__init__("greenlet apply", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        p = Process()
        words = argument.split()
        chosen = p.greenlets
        if words and words[0] == "all":
            words.pop(0)
        else:
            chosen = []
            while words and words[0].isdigit():
                chosen.append(find(p, words.pop(0)))
        if not words or not chosen:
            raise gdb.GdbError("greenlet apply (all | ID...) COMMAND")
        command = " ".join(words)
        match = BACKTRACE.match(command)
        if match:
            self.backtraces(chosen, int(match.group(1) or 0))
            return
        for g in chosen:
            if g.registers or g.state == "running":
                print("\n%s:" % g.title())
                run(g, command)

    def backtraces(self, chosen, most):
        found = {}
        for g in chosen:
            try:
                places = places_of(g, most) if g.registers or g.state == "running" else ()
            except gdb.error as e:
                places = (str(e),)
            found.setdefault((g.thread.tid if g.thread else 0, g.state, places), []).append(g)
        for (_, _, places), same in found.items():
            print("")
            if len(same) == 1:
                print(same[0].title() + ":")
            else:
                ids = ", ".join(str(g.id) for g in same[:8])
                print("%d greenlets (%s%s), as %s:" % (len(same), ids, ", ..." if len(same) > 8 else "", same[0].title()))
            if places and not isinstance(places[0], str):
                places = lines_of(same[0], most)
            for line in places:
                print(line)


gdb.unwinder.register_unwinder(None, unwinder, True)
InfoGreenlets()
GreenletCommand()
GreenletApply()
gdb.events.cont.connect(lambda _: setattr(unwinder, "greenlet", None))
