// SPDX-License-Identifier: MIT
// Texts for people: frames, names, amounts. And for programs: JSON's strings.
#ifndef LIB_BACKTRACE_PEOPLE_HPP
#define LIB_BACKTRACE_PEOPLE_HPP

#include <greenlet/snapshot.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

namespace greenlets::detail {

// frames.cpp
// Without what is the same for every greenlet.
std::vector<frame> of_interest(std::vector<frame> all);
std::ostream& print(std::ostream& out, const frame& f);

// people.cpp
// Those at the addresses, as far as they were looked up.
std::vector<frame> frames_at(const process_snapshot& s, const std::vector<void*>& addresses);
// What of them tells one greenlet from another: without how it waits, and how its function or its thread's is called.
std::vector<frame> of_waiting(std::vector<frame> all);
// Where somebody asked for a greenlet: without the library's own ones on the way to the record.
std::vector<frame> of_creation(std::vector<frame> all);
// How long the UTF-8 sequence of one character is (RFC 3629) that begins there; 0: there is none.
std::size_t length_of_character(const char* text, std::size_t left) noexcept;
// Writes to a stream as none of its settings and no locale has it: numbers are decimal, and without separators.
void plainly(std::ostream& to, const std::function<void(std::ostream&)>& write);
// In quotes, on one line, whatever it is.
std::string quoted(const std::string& text);
// The same as RFC 8259 has it, and what is no UTF-8 as U+FFFD.
std::string json_quoted(const std::string& text);
const char* name_of(greenlet_state s) noexcept;
std::string text_of(std::chrono::nanoseconds time);
std::string text_of_bytes(std::size_t bytes);
// RFC 3339, in UTC, to the millisecond.
std::string text_of(std::chrono::system_clock::time_point when);

}  // namespace greenlets::detail

#endif
