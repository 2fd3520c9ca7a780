// SPDX-License-Identifier: MIT
// The stacks that were read while a process was stopped, to be walked when it goes on.
#ifndef TOOLS_DUMP_STACKS_HPP
#define TOOLS_DUMP_STACKS_HPP

#include "image.hpp"
#include "target.hpp"
#include "unwinder.hpp"

#include "backtrace/walk.hpp"
#include "suspension.hpp"

#include <greenlet/snapshot.hpp>

#include <cstddef>
#include <map>
#include <memory>
#include <vector>

namespace greenlets::outside {

class stacks {
 public:
  // `files` lives as long as this.
  stacks(const image& files, pid_t pid, std::size_t most_frames) : files_(files), pid_(pid), most_(most_frames) {}

  // Instead of walking it now; a snapshot then has this in the place of the frames.
  std::vector<detail::place_in_code> keep(const detail::suspension_v1& s);
  // Walks all that were kept, and looks up what is there. Throws failure, std::bad_alloc.
  void walk(process_snapshot& s);

  // What the thread with that number for itself is running, on a stack that ends at `high`; 0: that is not known.
  static bool copy_running(target& of, pid_t own, std::uintptr_t high, detail::suspension_v1& to);

 private:
  std::vector<detail::place_in_code> walk_one(const detail::suspension_v1& s);
  void describe(process_snapshot& s) const;

  const image& files_;
  pid_t pid_;
  std::size_t most_;
  std::unique_ptr<unwinder> unwinder_;
  struct kept {
    detail::suspension_v1 stack;  // empty: it was walked at once
    std::vector<detail::place_in_code> places;
  };
  std::vector<kept> kept_;
  std::size_t bytes_ = 0;
  std::map<void*, bool> places_;  // whether it was interrupted there
};

}  // namespace greenlets::outside

#endif
