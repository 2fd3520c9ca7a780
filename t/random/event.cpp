// SPDX-License-Identifier: MIT
// Events in words.
#include "event.hpp"

#include <greenlet/error.hpp>
#include <greenlet/exit.hpp>

namespace programs {
namespace {

std::string name_of_error(int number) {
  using greenlets::errc;
  switch (static_cast<errc>(number)) {
    case errc::different_thread: return "different_thread";
    case errc::thread_exited: return "thread_exited";
    case errc::collected: return "collected";
    case errc::no_run: return "no_run";
    case errc::already_started: return "already_started";
    case errc::cyclic_parent: return "cyclic_parent";
    case errc::main_parent: return "main_parent";
    case errc::parent_thread: return "parent_thread";
    case errc::empty_handle: return "empty_handle";
    default: return std::to_string(number);
  }
}

std::string name_of_reason(int number) {
  using reason = greenlets::greenlet_exit::reason;
  switch (static_cast<reason>(number)) {
    case reason::thrown: return "greenlet_exit";
    case reason::last_handle: return "greenlet_exit (last_handle)";
    case reason::thread_exit: return "greenlet_exit (thread_exit)";
    default: return "greenlet_exit (" + std::to_string(number) + ")";
  }
}

}  // namespace

std::string words_of_thrown(int code) {
  const int number = code % 100000;
  switch (code / 100000) {
    case thrown::nothing: return "nothing";
    case thrown::exit: return name_of_reason(number);
    case thrown::own_exit: return "own_exit " + std::to_string(number);
    case thrown::custom: return "custom " + std::to_string(number);
    case thrown::error: return "error " + name_of_error(number);
    case thrown::refusal: return "a refusal to end";
    default: return "something unknown";
  }
}

std::string words_of_sent(int code, int handle) {
  const int number = code % 1000000;
  switch (code / 1000000) {
    case sent::nothing: return "nothing";
    case sent::one: return "value " + std::to_string(number) + (handle > 0 ? " with g" + std::to_string(handle) : "");
    case sent::two: return "two values " + std::to_string(number);
    case sent::exit: return words_of_thrown(number);
    default: return "something unknown";
  }
}

std::string to_string(const event& e) {
  const std::string g = "g" + std::to_string(e.who);
  switch (e.what) {
    case event::thread_begins: return g + " begins, a thread's main greenlet";
    case event::takes: {
      std::string s = g + " takes an operation";
      if (e.number) s += ", handling " + words_of_thrown(e.number);
      if (e.more) s += ", " + std::to_string(e.more) + " uncaught";
      return s;
    }
    case event::created: return g + " is made";
    case event::starts: return g + " starts with " + words_of_sent(e.number, e.more);
    case event::gets: return g + " gets " + words_of_sent(e.number, e.more);
    case event::value_gone: return "~value " + std::to_string(e.number);
    case event::guard_gone: return "~guard " + std::to_string(e.number);
    case event::fails: return g + " gets " + words_of_thrown(e.number);
    case event::catches: return g + " catches " + words_of_thrown(e.number);
    case event::swallows: return g + " swallows " + words_of_thrown(e.number) + " in a destructor";
    case event::survives: return g + ", a main greenlet, catches " + words_of_thrown(e.number);
    case event::unraisable: return "unraisable in " + g + ": " + words_of_thrown(e.number);
    case event::thread_ends: return g + " ends its thread";
  }
  return "?";
}

std::string to_string(const look& l) {
  constexpr const char* states[] = {"gone", "unstarted", "current", "suspended", "finished", "unwound"};
  std::string s = states[l.state];
  if (l.state == look::gone) return s;
  if (l.main) s += ", main";
  if (l.has_run) s += ", with a run";
  return s + ", parent " + (l.parent ? "g" + std::to_string(l.parent) : "none");
}

}  // namespace programs
