// SPDX-License-Identifier: MIT
// A session with PostgreSQL: waiting for libpq's socket, whose turn it is, and bringing it in order again. Not for users.
//
//   scope_   a statement, or a whole transaction           first come, first served, both
//   wire_    a statement, until the last of its answer
//
// Who leaves a statement before its end (a deadline, something thrown in, a stream dropped) goes at once, and leaves the
// wire to a greenlet of its own, which has the server cancel the statement and reads what is still to come. So no
// destructor waits, and who uses the session next waits until that is done.
#ifndef GREENLET_DETAIL_LIBPQ_HPP
#define GREENLET_DETAIL_LIBPQ_HPP

#include <greenlet/error.hpp>
#include <greenlet/greenlet.hpp>
#include <greenlet/hub/deadline.hpp>
#include <greenlet/hub/io.hpp>
#include <greenlet/hub/libpq_result.hpp>
#include <greenlet/hub/run.hpp>
#include <greenlet/hub/semaphore.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <deque>
#include <exception>
#include <fcntl.h>
#include <map>
#include <memory>
#include <new>
#include <poll.h>
#include <pthread.h>
#include <string>
#include <sys/epoll.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace greenlets::hub::libpq::detail {

inline int checked(int result, const char* call) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), call);
  return result;
}

// A descriptor of the hub's to the same socket: libpq closes its own when it likes.
inline descriptor watching(int fd, const char* call) {
  owned_fd own(checked(fd, call));
  descriptor watched(own.get());
  own.release();
  return watched;
}

inline bool is_error(ExecStatusType s) noexcept {
  return s == PGRES_FATAL_ERROR || s == PGRES_BAD_RESPONSE || s == PGRES_NONFATAL_ERROR;
}

// What libpq wants to know of parameters, one array each.
struct arguments {
  std::vector<const char*> values;
  std::vector<int> sizes, formats;

  explicit arguments(const std::vector<parameter>& list) {
    for (const parameter& p : list) {
      values.push_back(p.data());
      sizes.push_back(p.size());
      formats.push_back(static_cast<int>(p.how()));
    }
  }
  int count() const noexcept { return static_cast<int>(values.size()); }
};

// Has the server cancel what it does for that connection. PQcancel() makes a connection of its own and blocks, for
// minutes when the server is stopped or the network has gone; so it has a thread of its own, which may be left behind,
// and none of the pool that everybody shares and the hub's end waits for.
inline void cancel(PGconn* c, deadline until) {
  struct signals_held {
    sigset_t before;
    signals_held() {
      sigset_t all;
      sigfillset(&all);
      pthread_sigmask(SIG_SETMASK, &all, &before);
    }
    ~signals_held() { pthread_sigmask(SIG_SETMASK, &before, nullptr); }
  };
  owned<PGcancel> what(PQgetCancel(c));
  int ends[2];
  checked(pipe2(ends, O_CLOEXEC), "pipe2");
  owned_fd told(ends[1]);
  descriptor end = watching(ends[0], "pipe2");
  {
    const signals_held for_the_programs_own_threads;
    std::thread([what = std::move(what), told = std::move(told)] {
      char why[256];
      PQcancel(what.get(), why, sizeof why);  // when it fails, the answer does not come either
    }).detach();
  }
  char byte;
  if (!end.read_some(&byte, 1, until).end()) throw timed_out("libpq: the server takes no cancelling");
}

class session : public std::enable_shared_from_this<session> {
 public:
  explicit session(owned<PGconn> connected)
      : conn_(std::move(connected)),
        watched_(watching(fcntl(PQsocket(conn_.get()), F_DUPFD_CLOEXEC, 0), "fcntl(F_DUPFD_CLOEXEC)")) {
    PQsetnonblocking(conn_.get(), 1);
    PQsetNoticeProcessor(conn_.get(), keep_notice, this);
  }
  session(const session&) = delete;
  session& operator=(const session&) = delete;
  ~session() { close(); }

  // Who waits is told. Nothing of libpq's may be on the stack.
  void close() noexcept {
    if (!conn_) return;
    if (process_ != getpid()) {
      // A child's. To close it would be to say good-bye to the server, and to the hub, for the parent.
      static_cast<void>(conn_.release());
      static_cast<void>(new (std::nothrow) descriptor(std::move(watched_)));
      return;
    }
    either_.close();
    watched_.close();
    conn_.reset();
  }
  // Its hub may have ended: then nothing can be waited for.
  bool open() noexcept { return conn_ && here() && !watched_.try_write("", 0).closed(); }
  PGconn* conn() const noexcept { return conn_.get(); }

  void check_here() const {
    if (!here()) throw error(errc::different_thread, "a connection to PostgreSQL belongs to another thread", {});
  }
  // The libpq connection, while there is one.
  PGconn* live() {
    check_here();
    if (!open()) lose("libpq: the connection is closed");
    return conn();
  }

  // -- Whose turn it is ------------------------------------------------------------------------------------

  enum class turns { none, wire, both };

  // False when the deadline came first.
  bool take(turns& taken, bool transaction, deadline until) {
    live();
    const std::uint64_t me = current().id();
    if (on_wire_ == me)
      throw error(errc::already_locked, "the greenlet is in the midst of an answer from this connection", {});
    if (transaction && in_scope_ == me)
      throw error(errc::already_locked, "the greenlet is in a transaction on this connection already", {});
    const bool inside = in_scope_ == me;
    if (!inside && !acquire(scope_, until)) return false;
    struct undo {
      session* s;
      ~undo() {
        if (s) s->scope_.release();
      }
    } at_failure{inside ? nullptr : this};
    if (!acquire(wire_, until)) return false;
    on_wire_ = me;
    at_failure.s = nullptr;
    taken = inside ? turns::wire : turns::both;
    if (!open()) {
      give_back(std::exchange(taken, turns::none));
      live();
    }
    return true;
  }
  // From a transaction: only the wire is given back, and the scope is the greenlet's until leave_scope().
  void enter_scope() noexcept { in_scope_ = on_wire_; }
  void leave_scope() noexcept {
    in_scope_ = 0;
    roll_back();
    scope_.release();
  }
  // What is begun is not to be committed. Who has the wire will see to it, or is mended.
  void roll_back() noexcept {
    roll_back_ = true;
    if (wire_.try_acquire()) give_back(turns::wire);
  }
  void give_back(turns taken) noexcept {
    if (taken == turns::none) return;
    on_wire_ = 0;
    const PGTransactionStatusType now = open() ? PQtransactionStatus(conn()) : PQTRANS_UNKNOWN;
    if (now == PQTRANS_UNKNOWN) close();
    if (now == PQTRANS_ACTIVE || (roll_back_ && (now == PQTRANS_INTRANS || now == PQTRANS_INERROR))) {
      mend();
    } else {
      roll_back_ = false;
      wire_.release();
    }
    if (taken == turns::both) scope_.release();
  }
  bool busy() const noexcept { return wire_.free() == 0; }

  // -- Talking ---------------------------------------------------------------------------------------------

  [[noreturn]] void lose(const std::string& why, const char* sqlstate = nullptr) {
    const connection_error e(why, sqlstate);
    close();
    throw e;
  }
  [[noreturn]] void lose() { lose(line_of(PQerrorMessage(conn()))); }

  // What libpq has put together goes to the server. `sent`: what one of its functions PQsend...() said.
  void send(int sent, deadline until) {
    if (!sent) {
      if (PQstatus(conn()) == CONNECTION_BAD) lose();
      throw std::invalid_argument("libpq: " + line_of(PQerrorMessage(conn())));  // too many parameters, say
    }
    flush(until);
  }
  void flush(deadline until) {
    struct closer {
      descriptor& d;
      ~closer() { d.close(); }  // it can nearly always be written: not to be watched when nobody asks
    } const at_any_exit{either_};
    while (const int left = PQflush(live())) {
      if (left < 0) return;  // the answer, or rather its lack, will say so
      // Read as well: a server that has much to say while it is sent something would wait for us.
      if (!either_.is_open()) watch_both();
      wait(either_, direction::readable, until);
      if (!PQconsumeInput(live())) return;
    }
  }
  void wait(descriptor& d, direction which, deadline until) {
    const io_result r = d.wait(which, until);
    if (r.timed_out()) throw timed_out("libpq: the deadline has passed");
    if (!r) lose("libpq: the connection was closed, or its hub has ended");
  }
  void wait_readable(deadline until) { wait(watched_, direction::readable, until); }
  // Waits for more of the answer. False: nothing more will come.
  bool more(deadline until) {
    wait_readable(until);
    return PQconsumeInput(live()) != 0;
  }
  // Null: that was all.
  owned<PGresult> next_result(deadline until) {
    // With nothing more to come, PQgetResult() says why and does not wait.
    while (PQisBusy(live()) && more(until)) continue;
    return owned<PGresult>(PQgetResult(conn()));
  }
  // Reads the rest of an answer, and gives its last part. Throws when a part of it is an error, as `failed` is.
  owned<PGresult> finish(deadline until, owned<PGresult> failed = nullptr) {
    owned<PGresult> last;
    while (owned<PGresult> r = next_result(until)) {
      const ExecStatusType s = PQresultStatus(r.get());
      if (s == PGRES_COPY_OUT || s == PGRES_COPY_BOTH) throw_no_copy();
      if (s == PGRES_COPY_IN) {
        by_mistake_ = true;
        send(PQputCopyEnd(conn(), "not by copy_in") == 1, until);
      } else if (!is_error(s)) {
        last = std::move(r);
      } else if (!failed) {
        failed = std::move(r);
      }
    }
    if (PQstatus(conn()) == CONNECTION_BAD) {
      if (!failed) lose();
      lose(line_of(PQresultErrorMessage(failed.get())), PQresultErrorField(failed.get(), PG_DIAG_SQLSTATE));
    }
    if (std::exchange(by_mistake_, false)) throw_no_copy();
    if (failed) throw server_error(std::move(failed));
    return last;
  }
  // Without parameters.
  owned<PGresult> run(const std::string& sql, deadline until) {
    check_text(sql);
    send(PQsendQueryParams(live(), sql.c_str(), 0, nullptr, nullptr, nullptr, nullptr, 0), until);
    return finish(until);
  }
  void begin_copy(const std::string& sql, ExecStatusType which, deadline until) {
    check_text(sql);
    // Not as with parameters: then libpq sends two messages Sync, of which the server answers both instead of one when the
    // COPY is cancelled before it has read the first, and all answers from then on would be those of the statement before.
    send(PQsendQuery(live(), sql.c_str()), until);
    owned<PGresult> r = next_result(until);
    const ExecStatusType now = PQresultStatus(r.get());
    if (now == which) return;
    finish(until, is_error(now) ? std::move(r) : nullptr);
    throw std::invalid_argument("libpq: the statement is no such COPY");
  }
  // In the pool the server may have said good-bye meanwhile.
  void look() noexcept {
    pollfd p{PQsocket(conn()), POLLIN, 0};
    while (p.fd >= 0 && ::poll(&p, 1, 0) > 0) {
      if (!PQconsumeInput(conn())) return close();
      PQisBusy(conn());  // which reads what it says
    }
  }

  std::map<std::string, std::string> prepared;  // statements: their names by their text
  std::uint64_t names = 0;
  std::deque<std::string> notices;
  clock::duration patience = std::chrono::seconds(5);  // with a server that is to leave a statement

 private:
  [[noreturn]] static void throw_no_copy() { throw std::invalid_argument("libpq: COPY is for copy_in and copy_out"); }
  bool here() const noexcept { return thread_ == std::this_thread::get_id(); }

  bool acquire(semaphore& s, deadline until) {
    const auto kept = shared_from_this();
    if (s.acquire(1, until)) return true;
    if (until.never()) lose("libpq: the hub has ended");
    return false;
  }

  void watch_both() {
    owned_fd both(checked(epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
    epoll_event e{};
    e.events = EPOLLIN | EPOLLOUT;
    checked(epoll_ctl(both.get(), EPOLL_CTL_ADD, watched_.fd(), &e), "epoll_ctl");
    either_ = watching(both.release(), "epoll_create1");
  }

  // The wire is held, by nobody who is there. In the end it is free, and the session in order or closed.
  struct mending {
    std::shared_ptr<session> of;
    bool done = false;

    explicit mending(std::shared_ptr<session> s) noexcept : of(std::move(s)) {}
    mending(mending&& other) noexcept : of(std::move(other.of)) {}
    mending(const mending&) = delete;
    mending& operator=(const mending&) = delete;
    ~mending() {
      if (!of) return;
      if (!done) of->close();
      of->wire_.release();
    }
    void operator()() {
      try {
        of->clean(of->patience);
        done = true;
      } catch (const std::exception&) {
        // Closed then: who uses it next is told.
      }
    }
  };

  void mend() noexcept {
    mending m(shared_from_this());
    try {
      spawn(std::move(m));
    } catch (const std::exception&) {
      // No memory for a greenlet: as above.
    }
  }

  void clean(deadline until) {
    if (by_mistake_) lose("libpq: a COPY by mistake, left in its midst");  // cancelled, it would be as begin_copy() says
    for (clock::duration step = std::chrono::milliseconds(10); PQtransactionStatus(live()) == PQTRANS_ACTIVE; step *= 2) {
      // A cancelling that comes before the server has read the statement hits nothing: there may have to be a second.
      // One too many does no harm, for the server has taken it in before anything more is sent.
      cancel(conn(), until);
      try {
        drain(std::min(until.at(), clock::now() + step));
      } catch (const timed_out&) {
        if (clock::now() >= until.at()) throw;
      }
    }
    if (roll_back_ && PQtransactionStatus(live()) != PQTRANS_IDLE) {
      send(PQsendQuery(conn(), "rollback"), until);
      drain(until);
    }
    roll_back_ = false;
    if (PQtransactionStatus(live()) == PQTRANS_UNKNOWN) lose();
  }

  // Whatever comes, to the end of the answer.
  void drain(deadline until) {
    flush(until);
    while (const owned<PGresult> r = next_result(until)) {
      const ExecStatusType s = PQresultStatus(r.get());
      if (s == PGRES_COPY_IN) send(PQputCopyEnd(conn(), "given up") == 1, until);
      if (s != PGRES_COPY_OUT) continue;
      char* data = nullptr;
      for (int n; (n = PQgetCopyData(live(), &data, 1)) >= 0;) {
        const owned<char> line(n > 0 ? data : nullptr);
        if (n == 0 && !more(until)) break;
      }
    }
  }

  static void keep_notice(void* self, const char* message) {
    constexpr std::size_t most = 64;
    auto& kept = static_cast<session*>(self)->notices;
    try {
      if (kept.size() == most) kept.pop_front();
      kept.push_back(line_of(message));
    } catch (const std::bad_alloc&) {
      // It was only a notice; and C has called us.
    }
  }

  owned<PGconn> conn_;
  descriptor watched_, either_;
  semaphore scope_{1}, wire_{1};
  std::uint64_t in_scope_ = 0, on_wire_ = 0;  // greenlets' ids
  bool roll_back_ = false;
  bool by_mistake_ = false;  // a COPY that is being ended
  const std::thread::id thread_ = std::this_thread::get_id();
  const pid_t process_ = getpid();
};

// A session that is the caller's, for a statement or for a transaction.
class turn {
 public:
  turn() noexcept = default;
  turn(const std::shared_ptr<session>& s, deadline until, bool transaction = false) {
    if (!take(s, until, transaction)) throw timed_out("libpq: the deadline has passed before the connection was free");
  }
  turn(const turn&) = delete;
  turn& operator=(const turn&) = delete;
  ~turn() { end(); }

  bool take(const std::shared_ptr<session>& s, deadline until, bool transaction = false) {
    if (!s) throw connection_error("libpq: there is no connection");
    session_ = s;
    return session_->take(taken_, transaction, until);
  }
  // Switches: no. What is unfinished is mended.
  void end() noexcept {
    if (session_) session_->give_back(std::exchange(taken_, session::turns::none));
  }
  // The scope stays.
  void end_statement() noexcept {
    session_->give_back(taken_ == session::turns::none ? taken_ : session::turns::wire);
    taken_ = session::turns::none;
  }
  void check_held() const {
    if (taken_ == session::turns::none) throw std::invalid_argument("libpq: this has ended");
  }
  session* operator->() const noexcept { return session_.get(); }
  session& operator*() const noexcept { return *session_; }
  const std::shared_ptr<session>& shared() const noexcept { return session_; }

 private:
  std::shared_ptr<session> session_;
  session::turns taken_ = session::turns::none;
};

}  // namespace greenlets::hub::libpq::detail

#endif
