// SPDX-License-Identifier: MIT
// Files in blocking style: what the disk does is waited for on libuv's pool (see offload.hpp).
#ifndef GREENLET_HUB_FILE_HPP
#define GREENLET_HUB_FILE_HPP

#include <greenlet/hub/io.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <sys/types.h>

namespace greenlets::hub {

/// How a file is opened. They can be joined: open_mode::write | open_mode::create.
enum class open_mode : unsigned {
  read = 1,
  write = 2,
  append = 4,      ///< write, always to the end (O_APPEND)
  create = 8,      ///< when there is none
  exclusive = 16,  ///< create, and it is an error when there is one (O_EXCL)
  truncate = 32,   ///< empty it; wants write or append
};
constexpr open_mode operator|(open_mode a, open_mode b) noexcept {
  return static_cast<open_mode>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
constexpr bool operator&(open_mode a, open_mode b) noexcept {
  return (static_cast<unsigned>(a) & static_cast<unsigned>(b)) != 0;
}

/// A file on a disk. Move-only. Nothing of it blocks the hub but the destructor (see there). What would block for
/// ever, such as a FIFO that nobody writes to, keeps a thread of the pool: for those there is descriptor.
///
/// Several greenlets may read_at() and write_at() at once; at the position one at a time reads or writes, another is
/// an error(already_waiting). What is thrown into the caller comes out when the system call has ended, as with
/// offload(), and the position is where that got. Thread: one at a time; it has no hub of its own.
///
/// What waits throws: as offload(). On a file that is closed, or was moved from, it gives closed().
class GREENLET_API file {
 public:
  file() noexcept;
  /// Opens it, with O_CLOEXEC. `permissions` are those of a file that is created, less umask(2).
  /// Switches: to the hub. Throws: std::system_error with the call and the path; std::invalid_argument for a mode that
  /// neither reads nor writes, or truncates what is only read; and as offload().
  explicit file(const std::string& path, open_mode how = open_mode::read, mode_t permissions = 0666);
  file(file&& other) noexcept;
  file& operator=(file&& other) noexcept;
  /// Closes it, here and now, which on a disk of another machine may take its time; call close() then. What other
  /// greenlets are at goes on to its end.
  ~file();

  bool is_open() const noexcept { return state_ != nullptr; }
  int fd() const noexcept;  ///< -1 when closed; still owned here
  /// From where the next read_some() reads and write_all() writes. What append writes does not move it.
  std::uint64_t position() const noexcept;
  void seek(std::uint64_t to) noexcept;

  /// Reads what one read(2) gives, at most `size` bytes; at_end() at the end. `size` 0: nothing. Switches: to the hub.
  io_result read_some(void* data, std::size_t size);
  /// Reads exactly `size` bytes, unless the end or an error comes first. Switches: to the hub.
  io_result read_exactly(void* data, std::size_t size);
  /// Writes all of it; no_space_on_device or the like is a result, with how much was written. Switches: to the hub.
  io_result write_all(const void* data, std::size_t size);
  /// The same elsewhere than at the position, which stays: read_at() as read_exactly(). Switches: to the hub.
  io_result read_at(std::uint64_t at, void* data, std::size_t size);
  io_result write_at(std::uint64_t at, const void* data, std::size_t size);

  /// Its size now. Switches: to the hub. Throws: std::system_error with the call, when it is closed for instance.
  std::uint64_t size() const;
  /// Waits until what was written is on the disk (fsync(2)). Switches: to the hub.
  io_result sync();
  /// Makes it so long (ftruncate(2)). Switches: to the hub.
  io_result truncate(std::uint64_t size);
  /// Waits until nobody is at it any more, and closes it; from now on it is closed() to all. What could not be written
  /// before may be told only here (EIO, ENOSPC, EDQUOT: close(2)); it is closed all the same, also when something is
  /// thrown into the caller. Switches: to the hub.
  io_result close();

 private:
  struct state;
  template <class F>
  io_result at_position(F&& f);
  std::shared_ptr<state> state_;
};

/// Reads a file, whole, in one call on the pool; `to` is what it was when that fails. Switches: to the hub.
/// Throws: as offload().
GREENLET_API io_result read_file(std::string& to, const std::string& path);

/// Gives a file this content, in one call on the pool: whoever opens it, whenever, and after a crash too, finds what it
/// was or what it becomes, and nothing in between. It is written beside the file (".greenlet-..."), synced, and renamed
/// (rename(2)), then the directory is synced. The permissions (0777) are what they were, or 0666 less umask(2); the
/// owner is the process's, and lists of access are not kept. Through a symbolic link it is the file that is replaced.
/// What is there and is no regular file is invalid_argument. When there is an error nothing has changed, unless it comes from syncing the directory.
/// Switches: to the hub. Throws: as offload().
GREENLET_API io_result write_file(const std::string& path, std::string_view data);

}  // namespace greenlets::hub

#endif
