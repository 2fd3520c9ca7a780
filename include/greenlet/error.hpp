// SPDX-License-Identifier: MIT
// error: misuse of the library, found before anything was changed.
#ifndef GREENLET_ERROR_HPP
#define GREENLET_ERROR_HPP

#include <greenlet/detail/api.hpp>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>

namespace greenlets {

/// What was wrong.
enum class errc {
  different_thread = 1,  ///< the greenlet belongs to another thread
  thread_exited,         ///< ... which has exited
  collected,             ///< it is the main greenlet of a thread that has exited
  no_run,                ///< it was never given anything to run
  already_started,       ///< what it runs can no longer be changed
  cyclic_parent,         ///< the new parent descends from the greenlet itself
  main_parent,           ///< a main greenlet has no parent, and gets none
  parent_thread,         ///< the new parent belongs to another thread
  wrong_type,            ///< a value was asked for as what it is not
  wrong_arguments,       ///< what was sent does not fit the callable's parameters
  empty_handle,          ///< the handle refers to no greenlet
  not_running,           ///< the operation needs a running greenlet of this thread
  stack_limit,           ///< the system allows no more guarded stacks
  already_waiting,       ///< another greenlet already waits for the same thing, which takes one
  in_hook,               ///< a hook of attributes::on_switch() must not switch
  no_value,              ///< the context variable has neither a value nor a default
  wrong_token,           ///< the token is not from this variable, is of another context, or is used up
  already_entered,       ///< the context is in use by another context::run()
  out_of_turn,           ///< a generator is read while it runs, or gives while nobody reads
  already_locked,        ///< the greenlet has the mutex already
  not_locked,            ///< ... or does not have it, and would unlock it
  already_set,           ///< the result is there already
};

/// Misuse of the library. Thrown before any state has changed, so the caller may go on.
/// Failures of the system are std::system_error instead, with the call's name.
class GREENLET_API error : public std::logic_error {
 public:
  /// `summary` is one sentence; `details` (may be empty) follow it in what() after a newline.
  error(errc code, const std::string& summary, const std::string& details = {});
  ~error() override;
  error(const error&) = default;
  error& operator=(const error&) = default;

  errc code() const noexcept { return code_; }
  /// The sentence alone, without the details: what(), up to its first newline.
  std::string_view summary() const noexcept { return {what(), summary_length_}; }

 private:
  errc code_;
  std::size_t summary_length_;
};

}  // namespace greenlets

#endif
