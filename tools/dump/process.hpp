// SPDX-License-Identifier: MIT
// A running process: it is stopped for as long as its memory is read, and nothing of it is changed.
#ifndef TOOLS_DUMP_PROCESS_HPP
#define TOOLS_DUMP_PROCESS_HPP

#include "target.hpp"

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace greenlets::outside {

class process : public target {
 public:
  // Looks only. Throws failure.
  explicit process(pid_t pid);
  ~process() override;
  process(const process&) = delete;
  process& operator=(const process&) = delete;

  // Stops every thread, and has its registers. Throws failure, and nothing is stopped then.
  void stop();
  // They go on as if nothing had been; also when this program ends, in whatever way: ptrace(2). Returns for how long
  // they did not.
  std::chrono::nanoseconds let_go() noexcept;
  // How many threads did not stop, for they are in the kernel and cannot be interrupted.
  std::size_t stubborn() const noexcept { return stubborn_; }

  using detail::memory::read;
  void read(part* parts, std::size_t n) noexcept override;
  bool pages(std::uintptr_t low, std::size_t n, unsigned char* to) noexcept override { return memory_->pages(low, n, to); }
  std::optional<std::uint64_t> now() const noexcept override { return memory_->now(); }
  pid_t pid() const noexcept override { return pid_; }
  std::string title() const override { return "process " + std::to_string(pid_); }
  failure unread() const override { return {status::gone, title() + " ended while it was read"}; }
  std::vector<mapping> mappings() const override;
  descriptor open(const mapping& first, unsigned attempt) const override;
  std::uintptr_t auxiliary(unsigned long type) const override;
  const std::vector<thread_state>& threads() const noexcept override { return threads_; }

 private:
  struct seized {
    pid_t tid;
    int signal = 0;  // that was about to be delivered, and is at the end
    bool stopped = false;
    bool gone = false;
  };

  std::string path(const std::string& file) const { return directory_ + file; }
  std::string of_thread(pid_t tid, const std::string& file) const {
    return "/proc/" + std::to_string(pid_) + "/task/" + std::to_string(tid) + '/' + file;
  }
  [[noreturn]] void refuse(const std::string& call) const;
  [[noreturn]] void fail(const std::string& call) const;
  bool seize_new();
  void await();
  bool look(seized& t);
  void read_registers(const seized& t);

  pid_t pid_;
  std::string directory_;  // "/proc/4242/", or of a thread, when the first has ended
  descriptor file_;        // its memory, by the file system
  std::optional<detail::process_memory> memory_;  // and by a faster call
  bool slowly_ = false;    // which is forbidden
  std::string program_;    // where its executable is, as it says
  std::vector<seized> seized_;
  std::vector<thread_state> threads_;
  std::size_t stubborn_ = 0;
  std::chrono::steady_clock::time_point since_;
};

}  // namespace greenlets::outside

#endif
