// SPDX-License-Identifier: MIT
// Redis in blocking style: the asynchronous context of hiredis, driven by the hub. A header only; not part of hub.hpp:
// what includes it is linked with hiredis as well (pkg-config greenlet-hiredis).
//
//   #include <greenlet/hub/hiredis.hpp>
//   namespace hub = greenlets::hub;
//
//   int main() {
//     hub::hiredis::connection redis;
//     if (!connect(redis, "localhost", 6379, std::chrono::seconds(5))) return 1;
//     const auto n = redis.command({"INCRBY", "visits", 2}, std::chrono::seconds(1));
//     return n && n.integer() > 0 ? 0 : 1;
//   }
//
// Nobody reads a connection but a greenlet that waits at it: the first one there reads for all, and when it leaves
// the next one does. So a connection has no greenlet of its own, and keeps no hub from ending.
#ifndef GREENLET_HUB_HIREDIS_HPP
#define GREENLET_HUB_HIREDIS_HPP

#include <greenlet/detail/hiredis_link.hpp>
#include <greenlet/hub/deadline.hpp>
#include <greenlet/hub/hiredis_reply.hpp>
#include <greenlet/hub/io.hpp>
#include <greenlet/hub/names.hpp>
#include <greenlet/hub/tcp.hpp>

#include <cstdint>
#include <deque>
#include <memory>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace greenlets::hub::hiredis {

/// A connection to Redis. Greenlets of the thread that made it may share it: their commands go out in the order in
/// which they were given, many in one write where they come together, and are answered in that order. A command that
/// blocks in Redis (BLPOP, XREAD with BLOCK) keeps those behind it waiting: give it a connection of its own; so WATCH.
/// Move-only.
class connection {
 public:
  connection() noexcept = default;
  connection(connection&& other) noexcept = default;
  connection& operator=(connection&& other) noexcept {
    if (this != &other) {
      close();
      link_ = std::move(other.link_);
    }
    return *this;
  }
  ~connection() { close(); }

  /// Sends a command and waits for the answer. When the deadline comes first, or something is thrown into the caller,
  /// the answer is dropped when it comes; the connection goes on. A connection that is lost stays so: connect() anew.
  /// Switches: to the hub. Throws: error(different_thread), std::bad_alloc, and what is thrown into the caller meanwhile.
  reply command(const request& what, deadline until = {});
  /// Sends many in one go, and waits for as many answers, in their order. When the deadline comes first, those that have
  /// come are there. Switches, throws: as command().
  std::vector<reply> run(const pipeline& all, deadline until = {});

  /// Who waits finds closed(). Switches: no.
  void close() noexcept;
  /// False when it was closed, or lost, as far as is known: nobody looks while nobody waits.
  bool is_open() const noexcept { return link_ && link_->context(); }
  /// Why it was lost, for people; empty while it is not.
  std::string lost_because() const { return link_ ? link_->text() : std::string(); }

 private:
  friend class subscriber;
  friend io_result connect(connection& to, const address& where, deadline until);
  std::shared_ptr<detail::link> link_;
};

/// Connects, by TCP, where TCP_NODELAY and keep-alive are on, or to a Unix domain socket (unix_address()). On success `to`
/// is open; otherwise it is what it was. What Redis wants besides (AUTH, SELECT) are commands. Switches: to the hub.
/// Throws: std::invalid_argument: no address, or a name in the abstract namespace, which hiredis does not know;
/// std::system_error, when the hub cannot be made or does not take the socket; std::bad_alloc; what is thrown into the
/// caller meanwhile.
io_result connect(connection& to, const address& where, deadline until = {});
/// Looks up the host first (resolve()), and takes the first of its addresses that can be connected to.
io_result connect(connection& to, const std::string& host, std::uint16_t port, deadline until = {});

/// What was published, or why there is nothing.
struct message {
  std::string channel;
  std::string pattern;  ///< by which it was subscribed to; empty when by its channel
  std::string text;
  std::error_code error;  ///< as reply::error()

  explicit operator bool() const noexcept { return !error; }
  bool timed_out() const noexcept { return error == std::errc::timed_out; }
  bool closed() const noexcept { return error == std::errc::operation_canceled; }
};

/// Receives what is published. Takes a connection, on which AUTH may have been, and which has no other use then. Messages
/// are queued; while nobody waits here they stay in the system and in Redis, which ends a connection that leaves too much
/// there (client-output-buffer-limit). Thread: the connection's. Move-only.
class subscriber {
 public:
  subscriber() noexcept = default;
  /// Throws: std::bad_alloc.
  explicit subscriber(connection&& from);
  subscriber(subscriber&& other) noexcept = default;
  subscriber& operator=(subscriber&& other) noexcept {
    if (this != &other) {
      close();
      state_ = std::move(other.state_);
    }
    return *this;
  }
  ~subscriber() { close(); }

  /// Asks for channels, or for those that match patterns, and waits until Redis has confirmed it; when the deadline comes
  /// first the confirmation may still come. What Redis refuses ends the connection. Switches: to the hub. Throws: as
  /// connection::command(); std::invalid_argument of none.
  io_result subscribe(const std::vector<std::string>& channels, deadline until = {});
  io_result psubscribe(const std::vector<std::string>& patterns, deadline until = {});
  /// The reverse; of what it has not asked for nothing is done.
  io_result unsubscribe(const std::vector<std::string>& channels, deadline until = {});
  io_result punsubscribe(const std::vector<std::string>& patterns, deadline until = {});
  /// Takes the next; waits for it. Several greenlets may: each message is for one. What came before the connection was
  /// lost is there first. Switches: to the hub, when there is none. Throws: as connection::command(); no message is lost.
  message pop(deadline until = {});

  /// Who waits finds closed(). Switches: no.
  void close() noexcept;
  bool is_open() const noexcept { return state_ && state_->l->context(); }
  std::string lost_because() const { return state_ ? state_->l->text() : std::string(); }

 private:
  // Ends the connection before it goes: hiredis refers to it.
  struct state {
    std::shared_ptr<detail::link> l;
    std::deque<message> messages;
    std::set<std::string> channels, patterns;  // asked for
    std::uint64_t asked = 0, confirmed = 0;

    ~state() { l->end(std::make_error_code(std::errc::operation_canceled)); }
    void take(const redisReply& r);
    static void on_push(redisAsyncContext*, void* pushed, void* self) noexcept;
  };

  io_result change(const char* verb, bool add, std::set<std::string> state::*which, const std::vector<std::string>& names,
                   deadline until);

  std::shared_ptr<state> state_;
};


// --- How it is done

inline reply connection::command(const request& what, deadline until) {
  reply r = reply::failed(std::make_error_code(std::errc::operation_canceled));
  if (const auto kept = link_) kept->run(&what, 1, &r, until);
  return r;
}

inline std::vector<reply> connection::run(const pipeline& all, deadline until) {
  std::vector<reply> r(all.size(), reply::failed(std::make_error_code(std::errc::operation_canceled)));
  if (const auto kept = link_) kept->run(all.all_.data(), all.size(), r.data(), until);
  return r;
}

inline void connection::close() noexcept {
  if (const auto kept = std::move(link_)) kept->end(std::make_error_code(std::errc::operation_canceled));
}

inline io_result connect(connection& to, const address& where, deadline until) {
  std::shared_ptr<detail::link> made;
  const io_result r = detail::link::open(made, where, until);
  if (r) {
    to.close();
    to.link_ = std::move(made);
  }
  return r;
}

inline io_result connect(connection& to, const std::string& host, std::uint16_t port, deadline until) {
  const resolution found = resolve(host, port, until);
  io_result r;
  r.error = found.error;
  for (const address& each : found.addresses)
    if ((r = connect(to, each, until)) || r.timed_out()) break;
  return r;
}


// --- What is published

inline subscriber::subscriber(connection&& from) {
  if (!from.link_) return;
  state_ = std::make_shared<state>();
  state_->l = std::move(from.link_);
}

inline void subscriber::close() noexcept {
  if (const auto kept = std::move(state_)) kept->l->end(std::make_error_code(std::errc::operation_canceled));
}

// message CHANNEL TEXT, pmessage PATTERN CHANNEL TEXT, or what confirms a change: subscribe CHANNEL COUNT.
inline void subscriber::state::take(const redisReply& r) {
  const auto text = [&r](std::size_t n) { return std::string(r.element[n]->str, r.element[n]->len); };
  const std::string what = text(0);
  const bool by_pattern = what == "pmessage";
  if (!by_pattern && what != "message") {
    ++confirmed;
  } else if (r.elements == (by_pattern ? 4 : 3)) {
    messages.push_back({text(r.elements - 2), by_pattern ? text(1) : std::string(), text(r.elements - 1), {}});
  }
}

inline void subscriber::state::on_push(redisAsyncContext*, void* pushed, void* self) noexcept {
  if (!pushed) return;  // the end, of which all are told
  auto& s = *static_cast<state*>(self);
  try {
    s.take(*static_cast<const redisReply*>(pushed));
  } catch (const std::bad_alloc&) {
    s.l->end(std::make_error_code(std::errc::not_enough_memory));  // else a message would be lost, and nobody know
  }
  s.l->wake();
}

inline io_result subscriber::change(const char* verb, bool add, std::set<std::string> state::*which,
                                    const std::vector<std::string>& names, deadline until) {
  if (names.empty()) throw std::invalid_argument(std::string("hiredis::subscriber: ") + verb + " of nothing");
  const auto kept = state_;
  if (!kept) return io_result::failed(std::errc::operation_canceled);
  state& s = *kept;
  if (!s.l->alive()) return s.l->failure();
  for (const std::string& name : names) {
    const argument words[] = {verb, name};
    const request one(request::unchecked(), std::begin(words), std::end(words));
    // Redis would confirm what it did not have as well, and hiredis not know whom to tell.
    if (add ? ((s.*which).insert(name), false) : (s.*which).erase(name) == 0) continue;
    if (redisAsyncFormattedCommand(s.l->context(), state::on_push, &s, one.wire().data(), one.wire().size()) == REDIS_OK)
      ++s.asked;
  }
  s.l->send(true);
  hub::detail::place* at = nullptr;
  const auto so = [&s, all = s.asked] { return s.confirmed >= all || !s.l->context(); };
  if (!s.l->wait(at, so, until)) return io_result::failed(std::errc::timed_out);
  return s.l->context() ? io_result::done(0) : s.l->failure();
}

inline io_result subscriber::subscribe(const std::vector<std::string>& channels, deadline until) {
  return change("SUBSCRIBE", true, &state::channels, channels, until);
}
inline io_result subscriber::psubscribe(const std::vector<std::string>& patterns, deadline until) {
  return change("PSUBSCRIBE", true, &state::patterns, patterns, until);
}
inline io_result subscriber::unsubscribe(const std::vector<std::string>& channels, deadline until) {
  return change("UNSUBSCRIBE", false, &state::channels, channels, until);
}
inline io_result subscriber::punsubscribe(const std::vector<std::string>& patterns, deadline until) {
  return change("PUNSUBSCRIBE", false, &state::patterns, patterns, until);
}

inline message subscriber::pop(deadline until) {
  message m;
  m.error = std::make_error_code(std::errc::operation_canceled);
  const auto kept = state_;
  if (!kept) return m;
  state& s = *kept;
  s.l->alive();
  hub::detail::place* at = nullptr;
  if (!s.l->wait(at, [&s] { return !s.messages.empty() || !s.l->context(); }, until)) {
    m.error = std::make_error_code(std::errc::timed_out);
  } else if (s.messages.empty()) {
    m.error = s.l->why();
  } else {
    m = std::move(s.messages.front());
    s.messages.pop_front();
  }
  return m;
}

}  // namespace greenlets::hub::hiredis

#endif
