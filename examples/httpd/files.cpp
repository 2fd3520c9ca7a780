// SPDX-License-Identifier: MIT
// Opening below the root, and what is kept.
#include "files.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <functional>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace httpd {
namespace {

// A FIFO must not be waited for, a terminal not become ours.
constexpr int how_to_open = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;

// Where from: `cached` gives EAGAIN when the disk would have to be waited for.
enum class from { cached, disk };

// Directory by directory, none of them a symbolic link. The path has no "..".
hub::owned_fd open_step_by_step(int root, const char* path) {
  hub::owned_fd at;
  for (std::string rest = path;;) {
    const std::size_t slash = rest.find('/');
    const bool last = slash == std::string::npos;
    const int parent = at.get() < 0 ? root : at.get();
    const int how = last ? how_to_open : O_PATH | O_DIRECTORY | O_CLOEXEC;
    hub::owned_fd next(openat(parent, rest.substr(0, slash).c_str(), how | O_NOFOLLOW));
    if (last || next.get() < 0) return next;
    at = std::move(next);
    rest.erase(0, slash + 1);
  }
}

// By openat2(2), which sees to it that no link leads out. On failure errno is set: EAGAIN, ENOSYS (Linux before 5.6),
// EPERM (a sandbox that does not know it), and what open(2) gives.
hub::owned_fd open_beneath(int root, const char* path, from where) {
  open_how how{};
  how.flags = how_to_open;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
#ifdef RESOLVE_CACHED
  if (where == from::cached) how.resolve |= RESOLVE_CACHED;
#else
  if (where == from::cached) return errno = EAGAIN, hub::owned_fd();
#endif
  for (int tries = 0;; ++tries) {
    hub::owned_fd fd(static_cast<int>(syscall(SYS_openat2, root, path, &how, sizeof how)));
    if (fd.get() < 0 && errno == EINVAL && where == from::cached) errno = EAGAIN;  // Linux before 5.12
    // EAGAIN of the other kind: somebody renames directories meanwhile.
    if (fd.get() >= 0 || errno != EAGAIN || where == from::cached || tries == 100) return fd;
  }
}

// `path` is below the root and not empty. On failure errno is set.
hub::owned_fd open_below(int root, const char* path, bool links, from where) {
  if (links) {
    hub::owned_fd fd = open_beneath(root, path, where);
    if (fd.get() >= 0 || (errno != ENOSYS && errno != EPERM)) return fd;
  }
  if (where == from::cached) return errno = EAGAIN, hub::owned_fd();
  return open_step_by_step(root, path);
}

bool read_content(int fd, std::string& to, std::size_t size, from where) {
  to.resize(size);
  std::size_t got = 0;
  while (got < size) {
    iovec piece{&to[got], size - got};
    const ssize_t n = preadv2(fd, &piece, 1, static_cast<off_t>(got), where == from::cached ? RWF_NOWAIT : 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EOPNOTSUPP || errno == ENOSYS) && where == from::cached) errno = EAGAIN;
    if (n < 0) return false;
    if (n == 0) break;  // it has become shorter
    got += static_cast<std::size_t>(n);
  }
  to.resize(got);
  return true;
}

bool is_same(const struct stat& a, const struct stat& b) {
  const auto same_time = [](const timespec& x, const timespec& y) { return x.tv_sec == y.tv_sec && x.tv_nsec == y.tv_nsec; };
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_size == b.st_size && same_time(a.st_mtim, b.st_mtim) &&
         same_time(a.st_ctim, b.st_ctim);
}

struct found {
  int error = 0;
  bool same = false;  // as what was known
  hub::owned_fd fd;
  struct stat identity {};
  std::string content;
};

// `known`, if not null, is what it was; when it still is, no more is done.
found open_and_read(int root, const char* path, bool links, from where, const file* known) {
  found f;
  f.fd = open_below(root, path, links, where);
  if (f.fd.get() < 0 || fstat(f.fd.get(), &f.identity) < 0) {
    f.error = errno;
  } else if (known && known->settled && is_same(known->identity, f.identity)) {
    f.same = true;
  } else if (S_ISREG(f.identity.st_mode) && static_cast<std::size_t>(f.identity.st_size) <= directory::most_content) {
    if (!read_content(f.fd.get(), f.content, static_cast<std::size_t>(f.identity.st_size), where)) f.error = errno;
    f.identity.st_size = static_cast<off_t>(f.content.size());
    f.fd = hub::owned_fd();
  }
  return f;
}

unsigned status_of(int error) {
  switch (error) {
    case ENOENT: case ENOTDIR: case ENAMETOOLONG: case ELOOP: case EXDEV: return 404;
    case EACCES: case EPERM: case ENXIO: return 403;
    case EMFILE: case ENFILE: case ENOMEM: return 503;
    default: return 500;
  }
}

bool is_hidden(const std::string& path) {
  for (std::size_t at = 0; (at = path.find("/.", at)) != std::string::npos; at += 2)
    if (path.compare(at, 13, "/.well-known/") != 0) return true;
  return false;
}

const char* type_of(const std::string& path) {
  static constexpr struct {
    const char *ending, *type;
  } known[] = {
      {"avif", "image/avif"},         {"css", "text/css; charset=utf-8"},    {"csv", "text/csv; charset=utf-8"},
      {"gif", "image/gif"},           {"gz", "application/gzip"},            {"htm", "text/html; charset=utf-8"},
      {"html", "text/html; charset=utf-8"}, {"ico", "image/x-icon"},         {"jpeg", "image/jpeg"},
      {"jpg", "image/jpeg"},          {"js", "text/javascript; charset=utf-8"}, {"json", "application/json"},
      {"md", "text/markdown; charset=utf-8"}, {"mjs", "text/javascript; charset=utf-8"}, {"mp3", "audio/mpeg"},
      {"mp4", "video/mp4"},           {"ogg", "audio/ogg"},                  {"pdf", "application/pdf"},
      {"png", "image/png"},           {"svg", "image/svg+xml"},              {"tar", "application/x-tar"},
      {"txt", "text/plain; charset=utf-8"}, {"wasm", "application/wasm"},    {"webm", "video/webm"},
      {"webp", "image/webp"},         {"woff2", "font/woff2"},               {"xml", "text/xml; charset=utf-8"},
      {"zip", "application/zip"},
  };
  const std::size_t dot = path.find_last_of("./");
  if (dot != std::string::npos && path[dot] == '.')
    for (const auto& each : known)
      if (path.compare(dot + 1, std::string::npos, each.ending) == 0) return each.type;
  return "application/octet-stream";
}

// Strong, but for a file that could change once more without its time changing. RFC 9110, 8.8.1.
std::string etag_of(const struct stat& s, bool settled) {
  char text[80];
  std::snprintf(text, sizeof text, "%s\"%llx.%lx-%llx\"", settled ? "" : "W/",
                static_cast<unsigned long long>(s.st_mtim.tv_sec), static_cast<unsigned long>(s.st_mtim.tv_nsec),
                static_cast<unsigned long long>(s.st_size));
  return text;
}

void describe(file& f, const std::string& name) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  f.settled = f.identity.st_mtime < now.tv_sec - 1;
  f.etag = etag_of(f.identity, f.settled);
  // RFC 9110, 8.8.2.1: not later than now.
  f.last_modified = http_date(std::min(f.identity.st_mtime, now.tv_sec));
  f.type = type_of(name);
  f.head = "HTTP/1.1 200 OK\r\nContent-Type: " + f.type + "\r\nContent-Length: " + std::to_string(f.size()) + "\r\n" +
           f.validators() + "Accept-Ranges: bytes\r\n";
}

}  // namespace

// Null when what is known still is right.
std::shared_ptr<file> directory::look(const std::string& path, const file* known) const {
  auto made = std::make_shared<file>();
  made->path = path;
  const std::string name = path.back() == '/' ? path + "index.html" : path;
  if (is_hidden(name)) {
    made->status = 404;
    return made;
  }
  const char* const below = name.c_str() + 1;
  found f = open_and_read(root_, below, how_.links, from::cached, known);
  if (f.error == EAGAIN)
    f = hub::offload([&, root = root_, links = how_.links] { return open_and_read(root, below, links, from::disk, known); });
  if (f.same) return nullptr;
  made->identity = f.identity;
  if (f.error) {
    made->status = status_of(f.error);
  } else if (S_ISDIR(f.identity.st_mode)) {
    made->status = path.back() == '/' ? 403 : 301;  // 403: index.html is a directory
  } else if (!S_ISREG(f.identity.st_mode)) {
    made->status = 403;
  } else {
    made->content = std::move(f.content);
    made->fd = std::move(f.fd);
    describe(*made, name);
  }
  return made;
}

std::shared_ptr<const file> directory::find(const std::string& path, hub::clock::time_point now) {
  std::shared_ptr<file>& place = kept_[std::hash<std::string_view>()(path) % kept_.size()];
  std::shared_ptr<file> known = place && place->path == path ? place : nullptr;
  if (known && now - known->looked < how_.fresh) return known;
  if (std::shared_ptr<file> other = look(path, known.get())) {
    if (other->status != 200) {
      if (place == known) place = nullptr;
      return other;
    }
    known = std::move(other);
  }
  known->looked = now;
  place = known;
  return known;
}

}  // namespace httpd
