// SPDX-License-Identifier: MIT
// The baseline: what no switch can be faster than.
//   switch   a call through a pointer, there and back; half of it
#include "bench.h"

namespace {

__attribute__((noinline)) void empty() { __asm__ volatile("" ::: "memory"); }
void (*volatile target)() = empty;

void call(long n) {
  for (long i = 0; i < n; ++i) target();
}

constexpr work works[] = {{"switch", call, 20000000, 2}, {nullptr, nullptr, 0, 0}};

}  // namespace

int main(int argc, char** argv) { return bench_main(argc, argv, works); }
