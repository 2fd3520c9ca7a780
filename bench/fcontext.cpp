// SPDX-License-Identifier: MIT
// Boost.Context: jump_fcontext, the switch beneath its fiber. Keeps neither exception state nor an owner.
//   switch   jump_fcontext there and back, one way
//   start    make_fcontext on one and the same stack, run to its end
#include "bench.h"

#include <boost/context/detail/fcontext.hpp>

namespace context = boost::context::detail;

namespace {

alignas(64) char stack[64 * 1024];

void loop(context::transfer_t from) {
  for (;;) from = context::jump_fcontext(from.fctx, nullptr);
}

void just_switch(long n) {
  context::fcontext_t to = context::make_fcontext(stack + sizeof stack, sizeof stack, loop);
  for (long i = 0; i < n; ++i) to = context::jump_fcontext(to, nullptr).fctx;
}

void start(long n) {
  for (long i = 0; i < n; ++i)
    context::jump_fcontext(context::make_fcontext(stack + sizeof stack, sizeof stack,
                                                  [](context::transfer_t from) { context::jump_fcontext(from.fctx, nullptr); }),
                           nullptr);
}

constexpr work works[] = {{"switch", just_switch, 3000000, 2}, {"start", start, 1000000, 1}, {nullptr, nullptr, 0, 0}};

}  // namespace

int main(int argc, char** argv) { return bench_main(argc, argv, works); }
