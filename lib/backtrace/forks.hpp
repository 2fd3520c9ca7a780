// SPDX-License-Identifier: MIT
// fork() and the libraries that walk stacks: they have locks of their own, and know nothing of it.
#ifndef LIB_BACKTRACE_FORKS_HPP
#define LIB_BACKTRACE_FORKS_HPP

namespace greenlets::detail {

// Held around calls of libunwind and libdw. While anybody does, fork() waits, though not for ever: a child in which their
// locks are held by nobody could never look at a frame. Not twice by a thread, and no user code is called under it.
class out_of_forks {
 public:
  out_of_forks() noexcept;
  out_of_forks(const out_of_forks&) = delete;
  out_of_forks& operator=(const out_of_forks&) = delete;
  ~out_of_forks();
};

// Has fork() look. Once is enough, before the first thread that is not the program's own.
void guard_against_forks();

}  // namespace greenlets::detail

#endif
