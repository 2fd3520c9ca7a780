// SPDX-License-Identifier: MIT
// child: what a loop keeps of a process that it has started, until that has ended and been reaped.
//
//   a process object            child                      libuv
//   child_ -------------------> (status, who waits) <----- handle (in_loop keeps the child until it is closed)
//
// Either may go first. A child without an owner is reaped by the loop; one without a loop by its owner, or later:
// see leftovers in child.cpp.
#ifndef LIB_HUB_CHILD_HPP
#define LIB_HUB_CHILD_HPP

#include "loop.hpp"

#include <greenlet/hub/process.hpp>

#include <memory>
#include <optional>
#include <sys/types.h>
#include <uv.h>

namespace greenlets::hub::detail {

// A process that was left, in a list.
struct leftover {
  pid_t pid;
  leftover* next;
};

struct child {
  uv_process_t handle;
  loop_ref home;
  std::shared_ptr<child> in_loop;  // this, while libuv has the handle
  std::optional<exit_status> status;
  wait_list ended{"process", nullptr};
  std::unique_ptr<leftover> place = std::make_unique<leftover>();  // here, for there may be no memory then
  pid_t pid = 0;
  pid_t parent;  // else we are a copy, in a forked process
  bool leads_group = false;
  bool owned = true;   // by a process object
  bool killed = false;  // by its owner, who has gone

  explicit child(loop& l);

  // Our ends of its pipes go to `ours`. Throws as process's constructor.
  static std::shared_ptr<child> start(const process_options& what, descriptor (&ours)[3]);
  // Whether it can still be asked and told something.
  bool runs() const noexcept;
  // Its owner goes.
  void let_go(bool kill) noexcept;
  // Its loop ends.
  void detach() noexcept;

 private:
  struct streams;
  void spawn(const std::shared_ptr<child>& self, const uv_process_options_t& how, const process_options& what);
  static int count_descriptors(const process_options& what);
  // Nobody will tell us of its end any more.
  void leave() noexcept;
  static void on_exit(uv_process_t* handle, std::int64_t code, int signal);
  static void on_closed(uv_handle_t* handle);
};

}  // namespace greenlets::hub::detail

#endif
