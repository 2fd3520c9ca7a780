// SPDX-License-Identifier: MIT
// Texts for people: greenlets, threads, types, exceptions.
#include "describe.hpp"

#include "thread.hpp"

#include <cstdlib>
#include <cxxabi.h>
#include <memory>

namespace greenlets::detail {

std::string demangled(const char* symbol) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(abi::__cxa_demangle(symbol, nullptr, nullptr, &status), std::free);
  return status == 0 ? name.get() : symbol;
}

std::string describe(const std::exception_ptr& e) {
  if (!e) return "no exception";
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& x) {
    return demangled(typeid(x)) + ": " + x.what();
  } catch (const greenlet_exit& x) {
    return demangled(typeid(x));
  } catch (...) {
    const std::type_info* type = abi::__cxa_current_exception_type();
    return type ? demangled(*type) : "an exception of another language";
  }
}

std::string describe(const thread_record& t) {
  std::string text = "thread " + std::to_string(t.tid);
  if (!t.name.empty()) text += " \"" + t.name + "\"";
  if (t.exited.load(std::memory_order_acquire)) text += " (exited)";
  return text;
}

std::string describe(body* b) {
  if (!b) return "no greenlet";
  const greenlet& g = b->self;
  std::string text = "greenlet " + std::to_string(b->id);
  if (const std::string name = g.name(); !name.empty()) text += " \"" + name + "\"";
  if (b->main) text += " (main)";
  switch (g.state()) {
    case greenlet_state::unstarted: text += " (unstarted)"; break;
    case greenlet_state::current: text += " (running)"; break;
    case greenlet_state::suspended: text += " (suspended)"; break;
    case greenlet_state::finished: text += " (finished)"; break;
    case greenlet_state::unwound: text += " (unwound)"; break;
  }
  if (thread_record* t = b->thread()) text += " of " + describe(*t);
  return text;
}

std::string describe_here() {
  const thread_record* t = this_thread_if_any();
  return t ? "\n  in " + describe(t->running()) : std::string();
}

}  // namespace greenlets::detail
