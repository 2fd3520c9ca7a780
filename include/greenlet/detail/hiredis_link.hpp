// SPDX-License-Identifier: MIT
// link: hiredis's asynchronous context, driven by greenlets that wait. Not for users; see <greenlet/hub/hiredis.hpp>.
//
//   a greenlet                         another                       hiredis
//   run(): append, write  ----------------------------------------> output
//   wait(): reads, for all             wait(): stands in line
//      (the descriptor is readable) -------------------------------> input: on_reply() for each
//   its own has come: leaves,          given: its own has come, or
//   and has the first in line read     it is to read now
//
// hiredis's callbacks only store and make ready: no greenlet ever runs on top of a frame of hiredis, and nothing is
// thrown through one.
#ifndef GREENLET_DETAIL_HIREDIS_LINK_HPP
#define GREENLET_DETAIL_HIREDIS_LINK_HPP

#include <greenlet/hub/hiredis_reply.hpp>
#include <greenlet/hub/io.hpp>
#include <greenlet/hub/line.hpp>
#include <greenlet/hub/run.hpp>
#include <greenlet/hub/tcp.hpp>

#if __has_include(<hiredis/async.h>)
#include <hiredis/async.h>
#else
#include <async.h>
#endif

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <ctime>
#include <exception>
#include <fcntl.h>
#include <memory>
#include <netdb.h>
#include <new>
#include <stdexcept>
#include <string>
#include <strings.h>
#include <sys/un.h>
#include <system_error>
#include <type_traits>
#include <utility>

namespace greenlets::hub::hiredis::detail {

// SIGPIPE of this thread, held back while hiredis writes, which it does by write(2).
class sigpipe_held {
 public:
  sigpipe_held() noexcept {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
    sigset_t pending;
    was_pending_ = sigismember(&before_, SIGPIPE) && sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE);
  }
  sigpipe_held(const sigpipe_held&) = delete;
  sigpipe_held& operator=(const sigpipe_held&) = delete;
  ~sigpipe_held() {
    constexpr timespec at_once{};
    if (failed && !was_pending_) sigtimedwait(&pipe_, nullptr, &at_once);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  bool failed = false;

 private:
  sigset_t pipe_, before_;
  bool was_pending_;
};

// What one caller waits for. Of two owners: the caller, and hiredis as long as replies are missing; the last frees it.
struct exchange {
  reply* to;                           // on the caller's stack; null when it has left
  std::size_t missing = 0;
  hub::detail::place* at = nullptr;    // where the caller stands in line, while somebody else reads
};

// A connection: hiredis's context, its descriptor in the hub, and who waits. Kept by all who wait at it.
class link : public std::enable_shared_from_this<link> {
 public:
  link() = default;
  link(const link&) = delete;
  link& operator=(const link&) = delete;
  ~link() { end(std::make_error_code(std::errc::operation_canceled)); }

  // On success `to` is a new one.
  static io_result open(std::shared_ptr<link>& to, const address& where, deadline until);

  redisAsyncContext* context() const noexcept { return context_; }
  const std::error_code& why() const noexcept { return why_; }
  const std::string& text() const noexcept { return text_; }
  io_result failure() const noexcept { return {0, why_, false}; }

  // Whether it can be used here. Throws error(different_thread).
  bool alive();
  // All that wait are told `why`.
  void end(std::error_code why) noexcept;
  // Sends commands, and waits for as many replies.
  void run(const request* what, std::size_t count, reply* to, deadline until);
  // Has what was appended written, together with what others append meanwhile when an answer is on its way anyway.
  void send(bool at_once);
  // Has all that wait look again.
  void wake() noexcept { waiting_.give_all(); }
  // Waits until so(), and reads; false when the deadline came first. When the link ends, so() must be.
  template <class F>
  bool wait(hub::detail::place*& at, F so, deadline until);

 private:
  // Who leaves while nobody reads wakes the next, who is to read.
  struct hand_over {
    link& l;
    ~hand_over() {
      if (!l.reading_ && !l.waiting_.empty()) l.waiting_.first()->give();
    }
  };
  struct reader {
    bool& reads;
    explicit reader(bool& r) noexcept : reads(r) { reads = true; }
    reader(const reader&) = delete;
    reader& operator=(const reader&) = delete;
    ~reader() { reads = false; }
  };
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdangling-pointer"  // the destructor takes it back
#endif
  struct stander {
    hub::detail::place mine;
    hub::detail::place*& at;
    stander(hub::detail::line& l, hub::detail::place*& told) noexcept : mine(l), at(told) { at = &mine; }
    stander(const stander&) = delete;
    stander& operator=(const stander&) = delete;
    ~stander() { at = nullptr; }
  };
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#pragma GCC diagnostic pop
#endif
  // Writes on what the system did not take at once. Told to go on also when it never started.
  struct writer {
    std::shared_ptr<link> of;
    explicit writer(std::shared_ptr<link> l) noexcept : of(std::move(l)) { of->writing_ = true; }
    writer(writer&&) noexcept = default;
    writer(const writer&) = delete;
    writer& operator=(const writer&) = delete;
    ~writer() {
      if (of) of->writing_ = false;
    }
    void operator()() {
      const writer self(std::move(*this));  // goes with this call, and not only with its greenlet
      while (self.of->context_ && self.of->unwritten_)
        if (!self.of->descriptor_.wait(direction::writable) || !self.of->write_some()) return;
    }
  };

  static link& of(void* hook) noexcept { return *static_cast<link*>(hook); }
  static void on_reply(redisAsyncContext* context, void* answer, void* data) noexcept;
  static void on_cleanup(void* self) noexcept;
  void attach(redisAsyncContext* made);
  bool write_some() noexcept;
  void flush();
  void note_end() noexcept;

  // hiredis aborts the process (assert) when Redis sends what it has not been asked for. These stand before its
  // functions that make replies, and make none then: which it takes for an error, and ends the connection.
  template <auto Function, class... A>
  static void* guarded(const redisReadTask* task, A... a) {
    link& self = of(task->privdata);
    constexpr bool nil = sizeof...(A) == 0;
    if (!self.expected(*task, nil, (std::size_t(0) + ... + number(a)))) {
      self.unasked_ = true;
      return nullptr;
    }
    return (self.original_->*Function)(task, a...);
  }
  template <class N>
  static std::size_t number(N n) noexcept {
    if constexpr (std::is_integral_v<N>)
      return static_cast<std::size_t>(n);
    else
      return 0;
  }
  bool expected(const redisReadTask& task, bool nil, std::size_t elements) const noexcept;

  redisAsyncContext* context_ = nullptr;  // freed by hiredis when the connection ends
  descriptor descriptor_;                 // hiredis's, which closes it
  std::error_code why_;                   // it has ended
  std::string text_;                      // what hiredis says of that
  redisReplyObjectFunctions* original_ = nullptr;
  redisReplyObjectFunctions guards_{};
  bool unwritten_ = false;                // hiredis wants to write
  bool reading_ = false, writing_ = false, gathering_ = false, unasked_ = false;
  hub::detail::line waiting_{"redis answer", this};  // until somebody else has read what they wait for
};


// --- How it is done

inline io_result link::open(std::shared_ptr<link>& to, const address& where, deadline until) {
  const auto l = std::make_shared<link>();
  errno = 0;
  redisAsyncContext* made;
  if (where.family() == AF_UNIX) {
    const auto* const un = reinterpret_cast<const sockaddr_un*>(where.data());
    if (!un->sun_path[0]) throw std::invalid_argument("hiredis::connect: not in the abstract namespace");
    made = redisAsyncConnectUnix(un->sun_path);
  } else {
    char ip[NI_MAXHOST];
    if (getnameinfo(where.data(), where.size(), ip, sizeof ip, nullptr, 0, NI_NUMERICHOST) != 0)
      throw std::invalid_argument("hiredis::connect: no address");
    errno = 0;
    made = redisAsyncConnect(ip, where.port());
  }
  const int error = errno;
  if (!made) throw std::bad_alloc();
  if (made->err) {
    redisAsyncFree(made);
    return io_result::failed(error ? error : EIO);
  }
  l->attach(made);
  while (l->context_ && !(l->context_->c.flags & REDIS_CONNECTED)) {
    if (const io_result r = l->descriptor_.wait(direction::writable, until); !r) return r;
    l->write_some();
  }
  if (l->context_ && where.family() != AF_UNIX) redisEnableKeepAlive(&l->context_->c);
  if (!l->context_) return l->failure();
  to = l;
  return io_result::done(0);
}

inline void link::attach(redisAsyncContext* made) {
  try {
    fcntl(made->c.fd, F_SETFD, FD_CLOEXEC);
    descriptor_ = descriptor(made->c.fd);
  } catch (...) {
    redisAsyncFree(made);
    throw;
  }
  context_ = made;
  made->data = made->ev.data = this;
  made->ev.addRead = made->ev.delRead = [](void*) {};  // read is when somebody waits
  made->ev.addWrite = [](void* self) { of(self).unwritten_ = true; };
  made->ev.delWrite = [](void* self) { of(self).unwritten_ = false; };
  made->ev.cleanup = on_cleanup;
  using functions = redisReplyObjectFunctions;
  redisReader& parser = *made->c.reader;
  original_ = parser.fn;
  guards_ = *original_;
  guards_.createString = guarded<&functions::createString>;
  guards_.createArray = guarded<&functions::createArray>;
  guards_.createInteger = guarded<&functions::createInteger>;
  guards_.createNil = guarded<&functions::createNil>;
  parser.fn = &guards_;
  parser.privdata = this;
}

inline bool link::expected(const redisReadTask& task, bool nil, std::size_t elements) const noexcept {
  if (context_->replies.head) return true;  // the answer to a command
  if (!task.parent)
    return task.type == REDIS_REPLY_ERROR ||  // by which Redis says that it closes the connection
           (task.type == REDIS_REPLY_ARRAY && elements >= 3 && context_->c.flags & REDIS_SUBSCRIBED);
  if (task.parent->parent || task.idx > 2) return true;
  if (task.idx < 2) return task.type == REDIS_REPLY_STRING && !nil;
  const redisReply& verb = *static_cast<const redisReply*>(task.parent->obj)->element[0];
  return verb.len < 11 || strcasecmp(verb.str + verb.len - 11, "unsubscribe") != 0 || task.type == REDIS_REPLY_INTEGER;
}

inline bool link::alive() {
  if (context_ && !descriptor_.try_write(nullptr, 0)) end(std::make_error_code(std::errc::operation_canceled));
  return context_;
}

inline void link::end(std::error_code why) noexcept {
  if (!context_) return;
  why_ = why;
  redisAsyncFree(context_);
}

// Why hiredis ends the connection; when that is first seen, errno is still what it was.
inline void link::note_end() noexcept {
  if (why_) return;
  const int error = errno;
  switch (context_->err) {
    case REDIS_ERR_IO: why_ = {error ? error : EIO, std::generic_category()}; break;
    case REDIS_ERR_EOF: why_ = std::make_error_code(std::errc::connection_reset); break;
    case REDIS_ERR_OTHER: why_ = {1, redis_category()}; break;
    case REDIS_ERR_OOM:
      why_ = std::make_error_code(unasked_ ? std::errc::protocol_error : std::errc::not_enough_memory);
      break;
    default: why_ = std::make_error_code(std::errc::protocol_error);
  }
  try {
    text_ = unasked_ ? "Redis sent what it had not been asked for" : context_->errstr;
  } catch (const std::bad_alloc&) {
    // The code is enough.
  }
}

inline void link::on_cleanup(void* hook) noexcept {
  link& self = of(hook);
  self.note_end();
  self.context_ = nullptr;
  self.unwritten_ = false;
  self.descriptor_.release();  // hiredis closes it
  self.waiting_.give_all();
}

inline void link::on_reply(redisAsyncContext* context, void* answer, void* data) noexcept {
  auto& e = *static_cast<exchange*>(data);
  if (!answer) of(context->data).note_end();
  if (e.to) {
    try {
      *e.to = answer ? reply(*static_cast<const redisReply*>(answer))
                     : reply::failed(of(context->data).why_, of(context->data).text_);
    } catch (const std::exception&) {
      *e.to = reply::failed(std::make_error_code(std::errc::not_enough_memory));
    }
    ++e.to;
  }
  if (--e.missing > 0) return;
  if (!e.to)
    delete &e;
  else if (e.at)
    e.at->give();
}

inline void link::run(const request* what, std::size_t count, reply* to, deadline until) {
  reply* const last = to + count;
  if (count > 0 && alive()) {
    const bool at_once = !context_->replies.head;
    struct party {
      exchange* x;
      ~party() {
        x->to = nullptr;
        if (x->missing == 0) delete x;
      }
    } here{new exchange{to}};
    exchange& x = *here.x;
    for (const request* r = what; r != what + count; ++r)
      if (redisAsyncFormattedCommand(context_, on_reply, &x, r->wire().data(), r->wire().size()) == REDIS_OK) ++x.missing;
    send(at_once);
    const bool came = wait(x.at, [&] { return x.missing == 0; }, until);
    to = x.to;
    if (!came)
      for (; to != last; ++to) *to = reply::failed(std::make_error_code(std::errc::timed_out));
  }
  for (; to != last; ++to) *to = reply::failed(why_, text_);
}

inline void link::send(bool at_once) {
  if (gathering_) return;  // somebody writes soon
  if (!at_once) {
    gathering_ = true;
    try {
      yield();
    } catch (...) {
      gathering_ = false;
      flush();
      throw;
    }
    gathering_ = false;
  }
  flush();
}

// Once. False when the connection has ended.
inline bool link::write_some() noexcept {
  sigpipe_held held;
  errno = 0;
  redisAsyncHandleWrite(context_);
  held.failed = !context_;
  return context_;
}

inline void link::flush() {
  if (!context_ || !unwritten_ || writing_ || !write_some() || !unwritten_) return;
  try {
    spawn(writer(shared_from_this()));
  } catch (const std::bad_alloc&) {
    end(std::make_error_code(std::errc::not_enough_memory));
  }
}

template <class F>
bool link::wait(hub::detail::place*& at, F so, deadline until) {
  const hand_over at_exit{*this};
  // alive(): when the hub has ended, so has the connection. Who reads may never go on to say so.
  while (!so() && alive()) {
    if (reading_) {
      stander here(waiting_, at);
      if (!here.mine.wait(until) && alive()) return so();
    } else {
      const reader here(reading_);
      const io_result r = descriptor_.wait(direction::readable, until);
      if (r.timed_out()) return so();
      if (!context_) return true;
      if (!r) {
        end(r.error);
      } else {
        errno = 0;
        redisAsyncHandleRead(context_);
      }
    }
  }
  return true;
}

}  // namespace greenlets::hub::hiredis::detail

#endif
