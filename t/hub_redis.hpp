// SPDX-License-Identifier: MIT
// What the tests of Redis's header share: a connection to the real server, and servers that only pretend.
#ifndef T_HUB_REDIS_HPP
#define T_HUB_REDIS_HPP

#include "hub_redis_server.hpp"

#include <greenlet/hub/hiredis.hpp>

namespace testing {

namespace redis = hub::hiredis;

using kind = redis::reply::kind;

inline redis::connection connected(const redis_server& to) {
  redis::connection c;
  REQUIRE(connect(c, hub::unix_address(to.socket()), hang_guard()));
  return c;
}

// In front of each case that needs the real one.
#define WITH_SERVER(name)                           \
  const hub_guard end;                              \
  const redis_server* const name = redis_server::here(); \
  if (!name) return

// Somebody who listens where Redis is expected, and does with the connection what `serve` does.
class pretender {
 public:
  template <class F>
  explicit pretender(F serve) : listener_(hub::address("127.0.0.1", 0)) {
    serves_ = hub::spawn([this, serve = std::move(serve)]() mutable {
      hub::connection c;
      if (listener_.accept(c, hang_guard())) serve(c);
    });
  }
  ~pretender() {
    serves_.cancel();
    serves_.join();
  }
  redis::connection connection() {
    redis::connection c;
    REQUIRE(connect(c, listener_.local(), hang_guard()));
    return c;
  }

 private:
  hub::listener listener_;
  hub::task<void> serves_;
};

inline void say(hub::connection& c, const std::string& bytes) { c.write_all(bytes.data(), bytes.size()); }

inline std::string read_what_comes(hub::connection& c) {
  std::string buffer(65536, '\0');
  const hub::io_result r = c.read_some(buffer.data(), buffer.size(), hang_guard());
  buffer.resize(r.bytes);
  return buffer;
}

inline std::string wire_of(const redis::request& r) { return std::string(r.wire()); }

}  // namespace testing

#endif
