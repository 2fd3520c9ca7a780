// SPDX-License-Identifier: MIT
// A daemon with a classic mistake: for each request two greenlets are made that wait for each other's answer, and
// each holds a handle to the other, so that they never go.
//
//   leaky report      says who leaks, from where, since when
//   leaky reclaim     stays flat, whatever the mistake
//   leaky ignore      grows
//
// Now and then a line says how it is: five times, or as often as is asked for. bench/pressure draws them.
#ifdef WITH_FRAMES
#include <greenlet/backtrace.hpp>  // with which it says in which functions they wait
#endif
#include <greenlet/gc.hpp>
#include <greenlet/greenlet.hpp>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <string>
#include <unistd.h>

using namespace greenlets;

namespace {

// What a leak costs besides the greenlet.
struct connection {
  char buffer[2000] = {};
};
struct query {
  char text[1000] = {};
};

// The parser waits for the backend to say how much it wants, and the backend for the parser's first word.
void parser(const greenlet& backend) {
  const greenlet other = backend;
  [[maybe_unused]] const connection mine;
  switch_to_parent();
}

void backend(const greenlet& parser) {
  const greenlet other = parser;
  [[maybe_unused]] const query mine;
  switch_to_parent(std::string("ready"));
}

void serve(int request) {
  const greenlet a(attributes().name("parser " + std::to_string(request)), &parser);
  const greenlet b(attributes().name("backend " + std::to_string(request)), &backend);
  a.switch_to(b);
  b.switch_to(a);
}

const std::clock_t begun = std::clock();

long resident_kib() {
  long all = 0;
  long resident = 0;
  std::ifstream("/proc/self/statm") >> all >> resident;
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

// The time is the processor's, of libgc's threads too: what else the machine does is not in it.
void status(int requests) {
  const double us = 1e6 * static_cast<double>(std::clock() - begun) / CLOCKS_PER_SEC;
  const process_stacks stacks = stack_statistics();
  const gc::statistics_t found = gc::statistics();
  std::cout << requests << " requests, " << std::fixed << std::setprecision(1) << us / std::max(requests, 1)
            << " us each, " << resident_kib() << " KiB resident, " << counts().greenlets << " greenlets, "
            << stacks.in_use << " stacks in use, " << stacks.mapped << " mapped, " << found.collections
            << " collections, " << found.found << " found unreachable\n";
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  gc::options with;
  if (mode == "report") {
    with.unreachable = gc::policy::report;
    with.note_creation = true;
  } else if (mode == "ignore") {
    with.unreachable = gc::policy::ignore;
  } else if (mode != "reclaim") {
    std::cerr << "usage: leaky report|reclaim|ignore [REQUESTS [LINES]]\n";
    return 2;
  }
  gc::enable(with);
  const int requests = argc > 2 ? std::atoi(argv[2]) : mode == "report" ? 3 : 10000;
  const int lines = argc > 3 ? std::atoi(argv[3]) : 5;
  const int step = std::max(1, requests / std::max(1, lines));
  greenlet daemon([&] {
    for (int i = 1; i <= requests; ++i) {
      serve(i);
      if (i % step == 0) status(i);
    }
  });
  daemon.switch_to();
  gc::collect();
  gc::collect();
  status(requests);
  if (mode == "report") gc::write_leaks(std::cout);
}
