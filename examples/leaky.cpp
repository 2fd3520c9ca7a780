// SPDX-License-Identifier: MIT
// A daemon with a classic mistake: for each request two greenlets are made that wait for each other's answer, and
// each holds a handle to the other, so that they never go.
//
//   leaky report      says who leaks, from where, since when
//   leaky reclaim     stays flat, whatever the mistake
//   leaky ignore      grows
#include <greenlet/gc.hpp>
#include <greenlet/greenlet.hpp>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>

using namespace greenlets;

namespace {

struct connection {
  char buffer[2000] = {};  // what a leak costs besides the greenlet
};

// The parser waits for the backend to say how much it wants, and the backend for the parser's first word.
void parser(const greenlet& backend) {
  const greenlet other = backend;
  [[maybe_unused]] const connection mine;
  switch_to_parent();
}

void backend(const greenlet& parser) {
  const greenlet other = parser;
  [[maybe_unused]] const connection mine;
  switch_to_parent();
}

void serve(int request) {
  const greenlet a(attributes().name("parser " + std::to_string(request)), &parser);
  const greenlet b(attributes().name("backend " + std::to_string(request)), &backend);
  a.switch_to(b);
  b.switch_to(a);
}

void status(int requests) {
  std::cout << requests << " requests, " << counts().greenlets << " greenlets, " << stack_statistics().in_use
            << " stacks in use, " << gc::statistics().found << " found unreachable\n";
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
    std::cerr << "usage: leaky report|reclaim|ignore [REQUESTS]\n";
    return 2;
  }
  gc::enable(with);
  const int requests = argc > 2 ? std::atoi(argv[2]) : mode == "report" ? 3 : 10000;
  greenlet daemon([&] {
    for (int i = 1; i <= requests; ++i) {
      serve(i);
      if (i % (requests / 5 + 1) == 0) status(i);
    }
  });
  daemon.switch_to();
  gc::collect();
  gc::collect();
  status(requests);
  if (mode == "report") gc::write_leaks(std::cout);
}
