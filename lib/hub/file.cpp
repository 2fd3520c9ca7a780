// SPDX-License-Identifier: MIT
// Files: system calls on the pool.
#define _FILE_OFFSET_BITS 64
#include <greenlet/hub/file.hpp>

#include <greenlet/error.hpp>
#include <greenlet/hub/line.hpp>
#include <greenlet/hub/offload.hpp>

#include "system.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <stdexcept>
#include <sys/stat.h>
#include <utility>

namespace greenlets::hub {
namespace {

using detail::check;
using detail::unowned_fd;

// -- On the pool: nothing here knows a greenlet --------------------------------------------------

// A call's failure, or what it gave; again when a signal came between.
template <class F>
auto again(F call) {
  for (;;)
    if (const auto n = call(); n >= 0 || errno != EINTR) return n;
}

off_t offset(std::uint64_t at) noexcept { return static_cast<off_t>(at); }

io_result read_from(int fd, std::uint64_t at, void* data, std::size_t size, bool all) noexcept {
  std::size_t moved = 0;
  while (moved < size) {
    const ssize_t n = again([&] { return ::pread(fd, static_cast<char*>(data) + moved, size - moved, offset(at + moved)); });
    if (n < 0) return io_result::failed(errno, moved);
    if (n == 0) return io_result::at_end(moved);
    moved += static_cast<std::size_t>(n);
    if (!all) break;
  }
  return io_result::done(moved);
}

io_result write_to(int fd, std::uint64_t at, const void* data, std::size_t size) noexcept {
  std::size_t moved = 0;
  while (moved < size) {
    const ssize_t n =
        again([&] { return ::pwrite(fd, static_cast<const char*>(data) + moved, size - moved, offset(at + moved)); });
    if (n <= 0) return io_result::failed(n < 0 ? errno : EIO, moved);
    moved += static_cast<std::size_t>(n);
  }
  return io_result::done(moved);
}

// Whether a C string would end before it does.
bool is_cut(const std::string& path) noexcept { return path.find('\0') != std::string::npos; }

int open_file(const std::string& path, int flags, mode_t permissions = 0) noexcept {
  if (is_cut(path)) {
    errno = EINVAL;
    return -1;
  }
  return again([&] { return ::open(path.c_str(), flags | O_CLOEXEC, permissions); });
}

io_result read_whole(std::string& to, const std::string& path) {
  const int fd = open_file(path, O_RDONLY);
  if (fd < 0) return io_result::failed(errno);
  const unowned_fd closed_at_end(fd, "open");
  struct stat s;
  if (fstat(fd, &s) < 0) return io_result::failed(errno);
  // What fstat says is a hint: it may grow, and files of /proc say 0. One more byte than that shows the end.
  std::string all(static_cast<std::size_t>(s.st_size) + 1, '\0');
  for (std::size_t got = 0;;) {
    const io_result r = read_from(fd, got, all.data() + got, all.size() - got, true);
    got += r.bytes;
    if (r.error) return io_result::failed(r.error.value());
    if (r.end()) {
      all.resize(got);
      to.swap(all);
      return io_result::done(got);
    }
    all.resize(all.size() * 2 + 4096);
  }
}

// A new file beside the one that it is to replace; removed unless it does.
class successor {
 public:
  explicit successor(const std::string& directory) {
    static std::atomic<unsigned> made{0};
    // There may be one, of a process that had this number before us.
    do {
      path_ = directory + ".greenlet-" + std::to_string(getpid()) + "-" + std::to_string(made++);
      fd_ = open_file(path_, O_WRONLY | O_CREAT | O_EXCL, 0666);
    } while (fd_ < 0 && errno == EEXIST);
    error_ = fd_ < 0 ? errno : 0;
  }
  successor(const successor&) = delete;
  successor& operator=(const successor&) = delete;
  ~successor() {
    if (fd_ >= 0) ::close(fd_);
    if (!error_ && !placed_) ::unlink(path_.c_str());
  }

  // The error of what comes first in the way; 0 when `target` is what was to be.
  int replace(const std::string& target, std::string_view data, const mode_t* permissions) {
    if (error_) return error_;
    if (permissions && fchmod(fd_, *permissions) < 0) return errno;  // first: what follows may be secret
    if (const io_result r = write_to(fd_, 0, data.data(), data.size()); !r) return r.error.value();
    if (again([&] { return ::fsync(fd_); }) < 0 || ::close(std::exchange(fd_, -1)) < 0) return errno;
    if (::rename(path_.c_str(), target.c_str()) < 0) return errno;
    placed_ = true;
    return 0;
  }

 private:
  std::string path_;
  int fd_ = -1;
  int error_ = 0;
  bool placed_ = false;
};

// That a file has a new name is on the disk when its directory is. Not every one may be read, nor can be synced.
int sync_directory(const std::string& directory) {
  const int fd = open_file(directory.empty() ? "." : directory, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return 0;
  const unowned_fd closed_at_end(fd, "open");
  return again([&] { return ::fsync(fd); }) < 0 && errno != EINVAL ? errno : 0;
}

io_result replace_whole(std::string path, std::string_view data) {
  if (is_cut(path)) return io_result::failed(EINVAL);
  struct stat s;
  if (lstat(path.c_str(), &s) == 0 && S_ISLNK(s.st_mode)) {
    char* const real = ::realpath(path.c_str(), nullptr);
    if (!real) return io_result::failed(errno);
    const std::unique_ptr<char, decltype(&std::free)> freed(real, std::free);
    path = real;
  }
  const bool exists = ::stat(path.c_str(), &s) == 0;
  if (!exists && errno != ENOENT) return io_result::failed(errno);
  if (exists && !S_ISREG(s.st_mode)) return io_result::failed(EINVAL);
  const std::string directory = path.substr(0, path.rfind('/') + 1);
  const mode_t permissions = s.st_mode & 0777;
  int error = successor(directory).replace(path, data, exists ? &permissions : nullptr);
  if (!error) error = sync_directory(directory);
  return error ? io_result::failed(error) : io_result::done(data.size());
}

int flags_of(open_mode how) {
  const bool writes = how & (open_mode::write | open_mode::append);
  const bool reads = how & open_mode::read;
  if (!reads && !writes) throw std::invalid_argument("greenlets::hub::file: a mode that neither reads nor writes");
  if (how & open_mode::truncate && !writes)
    throw std::invalid_argument("greenlets::hub::file: a mode that truncates, and does not write");
  int flags = !writes ? O_RDONLY : reads ? O_RDWR : O_WRONLY;
  if (how & open_mode::append) flags |= O_APPEND;
  if (how & (open_mode::create | open_mode::exclusive)) flags |= O_CREAT;
  if (how & open_mode::exclusive) flags |= O_EXCL;
  if (how & open_mode::truncate) flags |= O_TRUNC;
  return flags;
}

}  // namespace

// -- A file --------------------------------------------------------------------------------------

// Who is at it has a share of it, so that the number is nobody else's before all have ended. Hidden, though a member of
// an exported class.
struct __attribute__((visibility("hidden"))) file::state {
  int fd;
  bool appends;
  std::uint64_t position = 0;
  bool position_taken = false;
  unsigned users = 0;
  detail::wait_list unused{"file", nullptr};

  state(int descriptor, bool to_the_end) noexcept : fd(descriptor), appends(to_the_end) {}
  state(const state&) = delete;
  state& operator=(const state&) = delete;
  ~state() {
    if (fd >= 0) ::close(fd);
  }

  // Somebody is at it.
  struct use {
    const std::shared_ptr<state> of;
    explicit use(std::shared_ptr<state> s) noexcept : of(std::move(s)) { ++of->users; }
    use(const use&) = delete;
    use& operator=(const use&) = delete;
    ~use() {
      if (--of->users == 0) of->unused.wake_all();
    }
    state* operator->() const noexcept { return of.get(); }
  };

  // Calls `f(fd)` on the pool.
  template <class F>
  static io_result call(const std::shared_ptr<state>& s, F&& f) {
    if (!s) return io_result::failed(std::errc::operation_canceled);
    const use in_use(s);  // the file object may go while we wait
    return offload([&] { return f(in_use->fd); });
  }
};

file::file() noexcept = default;
file::file(file&& other) noexcept = default;
file& file::operator=(file&& other) noexcept = default;
file::~file() = default;

file::file(const std::string& path, open_mode how, mode_t permissions) {
  const int flags = flags_of(how);
  // Made before: an open descriptor is nobody's for no moment, also when something is thrown in meanwhile.
  const auto s = std::make_shared<state>(-1, how & open_mode::append);
  const int error = offload([&] {
    s->fd = open_file(path, flags, permissions);
    return s->fd < 0 ? errno : 0;
  });
  if (error) throw std::system_error(error, std::generic_category(), "open \"" + path + "\"");
  state_ = s;
}

int file::fd() const noexcept { return state_ ? state_->fd : -1; }

std::uint64_t file::position() const noexcept { return state_ ? state_->position : 0; }

void file::seek(std::uint64_t to) noexcept {
  if (state_) state_->position = to;
}

// Calls `f(fd, position)` on the pool, and moves the position by what it says, also when its greenlet is not told.
template <class F>
io_result file::at_position(F&& f) {
  struct turn {
    state& s;
    const std::uint64_t from;
    std::size_t moved = 0;
    explicit turn(state& of) noexcept : s(of), from(of.position) { s.position_taken = true; }
    turn(const turn&) = delete;
    turn& operator=(const turn&) = delete;
    ~turn() {
      s.position_taken = false;
      s.position = from + moved;
    }
  };
  const std::shared_ptr<state> s = state_;
  if (!s) return io_result::failed(std::errc::operation_canceled);
  if (s->position_taken)
    throw error(errc::already_waiting, "another greenlet is at the file's position already",
                "  descriptor " + std::to_string(s->fd));
  turn mine(*s);
  return state::call(s, [&](int fd) {
    const io_result r = f(fd, mine.from);
    mine.moved = r.bytes;
    return r;
  });
}

io_result file::read_some(void* data, std::size_t size) {
  return at_position([&](int fd, std::uint64_t at) { return read_from(fd, at, data, size, false); });
}

io_result file::read_exactly(void* data, std::size_t size) {
  return at_position([&](int fd, std::uint64_t at) { return read_from(fd, at, data, size, true); });
}

io_result file::write_all(const void* data, std::size_t size) {
  // With O_APPEND Linux writes to the end whatever is asked for (pwrite(2), BUGS).
  if (state_ && state_->appends) return write_at(0, data, size);
  return at_position([&](int fd, std::uint64_t at) { return write_to(fd, at, data, size); });
}

io_result file::read_at(std::uint64_t at, void* data, std::size_t size) {
  return state::call(state_, [&](int fd) { return read_from(fd, at, data, size, true); });
}

io_result file::write_at(std::uint64_t at, const void* data, std::size_t size) {
  return state::call(state_, [&](int fd) { return write_to(fd, at, data, size); });
}

std::uint64_t file::size() const {
  struct stat s {};
  const io_result r =
      state::call(state_, [&](int fd) { return fstat(fd, &s) < 0 ? io_result::failed(errno) : io_result::done(0); });
  if (!r) throw std::system_error(r.closed() ? std::make_error_code(std::errc::bad_file_descriptor) : r.error, "fstat");
  return static_cast<std::uint64_t>(s.st_size);
}

io_result file::sync() {
  return state::call(state_, [](int fd) {
    return again([&] { return ::fsync(fd); }) < 0 ? io_result::failed(errno) : io_result::done(0);
  });
}

io_result file::truncate(std::uint64_t size) {
  return state::call(state_, [&](int fd) {
    return again([&] { return ::ftruncate(fd, offset(size)); }) < 0 ? io_result::failed(errno) : io_result::done(0);
  });
}

io_result file::close() {
  const std::shared_ptr<state> s = std::exchange(state_, nullptr);
  if (!s) return io_result::failed(std::errc::operation_canceled);
  while (s->users > 0) s->unused.wait();
  return offload([&] {
    // Linux has closed it whatever close() says, EINTR included (close(2)).
    return ::close(std::exchange(s->fd, -1)) < 0 ? io_result::failed(errno) : io_result::done(0);
  });
}

io_result read_file(std::string& to, const std::string& path) {
  std::string got;
  const io_result r = offload([&] { return read_whole(got, path); });
  if (r) to.swap(got);
  return r;
}

io_result write_file(const std::string& path, std::string_view data) {
  return offload([&] { return replace_whole(path, data); });
}

}  // namespace greenlets::hub
