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
from collections import namedtuple
from types import SimpleNamespace

import gdb
import gdb.unwinder

STATES = {0: "unstarted", 1: "suspended", 2: "finished", 3: "unwound"}

CHUNKS = "next first stride count"
# As the anchor has them: offsets; -1: there is no such thing.
LAYOUTS = (
    ("body", "bytes id state main owner parent shared sp fp pc base memory stack_size name created switches"),
    ("chunks", CHUNKS),
    ("string", "data size"),
    ("thread", "bytes next tid name current main exited hub"),
    ("creation", "made count addresses"),
    ("entry_chunks", CHUNKS),
    ("entries", "hidden made made_at"),
    ("hub", "loop runner ready time waiters"),
    ("waiter_chunks", CHUNKS),
    ("waiter", "what why timed who home slot in_list when aligned reader writer descriptor kind object"),
)

# By anchor::registers: sp, fp, pc, base; and where a ucontext_t has each (<sys/ucontext.h>).
MACHINES = {
    1: (("rsp", "rbp", "rip", "rbx"), 1,
        {n: 40 + 8 * i for i, n in enumerate("r8 r9 r10 r11 r12 r13 r14 r15 rdi rsi rbp rbx rdx rax rcx rsp rip".split())}),
    2: (("sp", "x29", "pc", "x19"), 4,
        {n: 184 + 8 * i for i, n in enumerate(["x%d" % i for i in range(31)] + ["sp", "pc"])}),
}


class Unreadable(gdb.GdbError):
    pass


def read(address, size):
    try:
        return bytes(gdb.selected_inferior().read_memory(address, size if size < 1 << 26 else -1))
    except (gdb.MemoryError, OverflowError, ValueError):
        raise Unreadable("greenlets: there is no memory at 0x%x" % address)


def quoted(text):
    """A name as greenlet-dump writes it: in one line, and nothing that a terminal would obey."""
    def escaped(c):
        if c in '"\\':
            return "\\" + c
        if ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0:
            return "".join("\\x%02x" % b for b in c.encode())
        return "\\x%02x" % (ord(c) - 0xDC00) if 0xDC80 <= ord(c) <= 0xDCFF else c  # a byte that belongs to no character
    return '"%s"' % "".join(map(escaped, text))


def word(data, at):
    return struct.unpack_from("Q", data, at)[0]


def int32(data, at):
    return struct.unpack_from("i", data, at)[0]


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
                               % (quoted(library.rstrip(b"\0").decode("utf-8", "surrogateescape")), version, 8 * pointer))
        self.names, self.step, self.ucontext = MACHINES[registers]
        self.lost = 0
        self.threads, self.cells, self.registry = struct.unpack_from("3Q", head, 48)
        numbers = iter(struct.unpack("%di" % ((size - 72) // 4), read(at + 72, (size - 72) // 4 * 4)))
        for name, fields in LAYOUTS:
            setattr(self, name, SimpleNamespace(**{field: next(numbers) for field in fields.split()}))

    def string_at(self, address):
        if not address or self.string.data < 0:
            return ""
        s = read(address, 32)
        return read(word(s, self.string.data), min(word(s, self.string.size), 4096)).decode("utf-8", "surrogateescape")

    def each_chunk(self, address, chunks):
        seen = set()
        while address and address not in seen:
            seen.add(address)
            try:
                data = read(address, chunks.first + chunks.stride * chunks.count)
            except Unreadable:
                self.lost += 1
                return
            for i in range(chunks.count):
                yield address, data, chunks.first + chunks.stride * i
            address = word(data, chunks.next)


def number_in_container(lwp):
    """What a thread has for a number itself."""
    try:
        with open("/proc/%d/status" % lwp) as file:
            return int(re.search(r"^NSpid:.*?(\d+)$", file.read(), re.M).group(1))
    except (OSError, AttributeError):
        return 0


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
        all_ = gdb.selected_inferior().threads()
        for t in all_:
            if t.ptid[1] == self.tid or t.ptid[2] == self.tid:
                return t
        for t in all_:
            if self.tid == number_in_container(t.ptid[1]):
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
        self.stack_size = word(data, at + b.stack_size)
        self.all = all_
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
        self.sp = self.pc = 0
        self.words = [word(data, at + o) for o in (b.sp, b.fp, b.pc, b.base)]
        if self.state == "suspended":
            self.find_registers(a, self.words)

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
        self.sp, self.pc = self.registers[a.names[0]], self.registers[a.names[2]]

    def has_stack(self, sp):
        return self.stack_end - self.stack_size <= sp < self.stack_end

    def is_left(self, sp):
        """In a switch who is current is another than whose stack it is: that is a known one, or where the thread's own was
        left. Any other is one that the program has for signals."""
        if any(g.has_stack(sp) for g in self.all.greenlets):
            return not self.has_stack(sp)
        lefts = [g.words[0] for g in self.all.greenlets if g.main and g.thread is self.thread and g.words[0]]
        return self.stack_end != 0 and any(abs(sp - left) < 1 << 20 for left in lefts)

    def title(self):
        text = "greenlet %d" % self.id
        if self.name:
            text += " " + quoted(self.name)
        text += " (%s%s)" % (self.state, ", main" if self.main else "")
        if self.thread:
            text += " of thread %d" % self.thread.tid
            if self.thread.name:
                text += " " + quoted(self.thread.name)
        return text


class Process:
    """All greenlets, as the memory is now."""

    def __init__(self):
        self.threads = {}
        self.hubs = {}
        self.by_address = {}
        try:
            self.anchor = Anchor()
            for g in self.each():
                self.by_address[g.address] = g
        except (struct.error, IndexError, StopIteration):
            raise gdb.GdbError("greenlets: what the library tells about itself is damaged")
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
                self.anchor.lost += 1

    def each_place(self):
        a = self.anchor
        for chunk, data, at in a.each_chunk(a.cells, a.chunks):
            self.address_of_place = chunk + at
            yield data, at
        if not a.registry or not a.entry_chunks.count:
            return
        for _, data, at in a.each_chunk(a.registry, a.entry_chunks):
            hidden = word(data, at + a.entries.hidden)
            if not hidden:
                continue
            self.address_of_place = ~hidden & 0xFFFFFFFFFFFFFFFF
            try:
                yield read(self.address_of_place, a.body.bytes), 0
            except Unreadable:
                a.lost += 1

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
        for _, data, at in a.each_chunk(word(read(loop, a.hub.loop), a.hub.waiters), a.waiter_chunks):
            who = word(data, at + w.who)
            if word(data, at + w.home) == loop and data[at + w.what] == 0 and who:
                waits[who] = self.describe_wait(loop, data, at)
        return waits

    def describe_wait(self, loop, data, at):
        a = self.anchor
        w = a.waiter
        slot, list_ = word(data, at + w.slot), word(data, at + w.in_list)
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


FrameId = namedtuple("FrameId", "sp pc")


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
            frame = gdb.newest_frame()
            if not g.is_left(int(frame.read_register(g.all.anchor.names[0])) & 0xFFFFFFFFFFFFFFFF):
                return frame
            g.find_registers(g.all.anchor, g.words)  # where it goes on
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
    step = g.step if g.registers else 0
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
            text = quoted(g.name) + " " if g.name else ""
            waits = p.waits_for(g)
            text += "main " if g.main else ""
            text += "[%s] " % waits if waits else ""
            text += (where(g) if few else place(g.pc)) if g.pc else ""
            line = "%10d %-10s %8s %10s  %s" % (g.id, g.state, g.thread.tid if g.thread else "-", parent.id if parent else "-", text)
            if argument in line:
                print(line.rstrip())
        if p.anchor.lost:
            print("%d could not be read" % p.anchor.lost)


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
