// SPDX-License-Identifier: MIT
// The files below a directory, opened so that nothing leads out of it, and kept while they are what they were.
#ifndef HTTPD_FILES_HPP
#define HTTPD_FILES_HPP

#include "request.hpp"

#include <greenlet/hub.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <sys/stat.h>

namespace httpd {

namespace hub = greenlets::hub;

// A file as it is served; or, when its status is not 200, why there is none.
struct file {
  unsigned status = 200;  // 301: a directory, whose path ends in "/"; 403, 404, 500, 503
  std::string path;       // that was asked for
  struct stat identity {};
  std::string type, etag, last_modified;
  std::string head;     // of a whole answer, from the status line on
  std::string content;  // of one small enough
  hub::owned_fd fd;     // of one that is not
  bool settled = false;  // it was last changed a second or more before it was looked at
  hub::clock::time_point looked;

  std::uint64_t size() const { return static_cast<std::uint64_t>(identity.st_size); }
  representation as_represented() const { return {etag, last_modified, identity.st_mtime, size()}; }
  // The fields that an answer of any part of it has.
  std::string validators() const { return "Last-Modified: " + last_modified + "\r\nETag: " + etag + "\r\n"; }
};

// One thread's. What is in the system's memory is had at once, what is on the disk is waited for on the hub's pool.
//
// What leads outside is not found. Symbolic links are followed as long as they stay below the root, and none is where
// openat2(2) is not there (before Linux 5.6), or by choice. Nothing whose name begins with "." is served, but ".well-known".
class directory {
 public:
  struct options {
    std::chrono::milliseconds fresh = std::chrono::seconds(1);  // how long a file is not looked at again
    bool links = true;
  };
  static constexpr std::size_t most_content = 64 * 1024;  // of one that is kept in memory

  // `root` is an open directory, and stays the caller's.
  directory(int root, const options& how) : root_(root), how_(how) {}
  // The file of a path as path_of() gives it; of a directory its index.html. Switches: to the hub, when the disk has to
  // be waited for.
  std::shared_ptr<const file> find(const std::string& path, hub::clock::time_point now);

 private:
  std::shared_ptr<file> look(const std::string& path, const file* known) const;

  int root_;
  options how_;
  std::array<std::shared_ptr<file>, 256> kept_;  // each where the hash of its path says; the next there takes its place
};

}  // namespace httpd

#endif
