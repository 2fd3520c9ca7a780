# SPDX-License-Identifier: MIT
# Crystal's fibers, on its one thread, through their scheduler. No million: each has 8 MiB of addresses, and a
# mapping or two of the 65,530 that Linux gives a process.
#   switch   two fibers hand an int over to each other by two unbuffered channels, one way
#   start    a fiber that says by a channel that it ends
#   collect  a full collection while 30,000 fibers wait, which is about what there can be, for each of them

def just_switch(n)
  there = Channel(Int32).new
  back = Channel(Int32).new
  spawn do
    while i = there.receive?
      back.send(i &+ 1)
    end
  end
  n.times do |i|
    there.send(i)
    back.receive
  end
  there.close
end

def start(n)
  ended = Channel(Nil).new
  n.times do
    spawn { ended.send(nil) }
    ended.receive
  end
end

def collect(n)
  never = Channel(Nil).new
  waiting = 0
  n.times do
    spawn { waiting += 1; never.receive }
  end
  while waiting < n
    Fiber.yield
  end
  times = (1..5).map do
    before = Time.monotonic
    GC.collect
    (Time.monotonic - before).total_nanoseconds / n
  end
  printf("%.3f\n", times.sort[2])
end

def one_of(n, divide)
  yield n // 10 + 1
  before = Time.monotonic
  yield n
  printf("%.3f\n", (Time.monotonic - before).total_nanoseconds / n / divide)
end

case ARGV[0]?
when nil       then puts "switch", "start", "collect"
when "switch"  then one_of(500000, 2) { |n| just_switch(n) }
when "start"   then one_of(100000, 1) { |n| start(n) }
when "collect" then collect(30000)
else                exit 3
end
