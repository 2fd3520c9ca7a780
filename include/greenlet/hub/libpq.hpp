// SPDX-License-Identifier: MIT
// PostgreSQL in blocking style, through libpq: connections, streams of rows, COPY, transactions, and a pool. A header
// only; needs libpq (pkg-config greenlet-libpq).
//
//   #include <greenlet/hub/libpq.hpp>
//   namespace libpq = greenlets::hub::libpq;
//
//   void rename(libpq::pool& databases, int id, const std::string& name) {
//     libpq::lease db = databases.acquire(std::chrono::seconds(1));
//     libpq::transaction t(*db);
//     db->execute("update users set name = $2 where id = $1", {id, name}, std::chrono::seconds(5));
//     for (const libpq::row& r : libpq::rows(*db, "select id from users where name = $1", {name}))
//       if (r.get<int>(0) != id) return;  // somebody else has it: rolled back
//     t.commit();
//   }
#ifndef GREENLET_HUB_LIBPQ_HPP
#define GREENLET_HUB_LIBPQ_HPP

#include <greenlet/detail/libpq.hpp>
#include <greenlet/detail/libpq_settings.hpp>
#include <greenlet/hub/deadline.hpp>
#include <greenlet/hub/libpq_result.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace greenlets::hub::libpq {

/// What is to be executed: SQL, or what connection::prepare() made of it.
class statement {
 public:
  statement(const char* sql) : text_(sql) {}                        // NOLINT: conversions are the point
  statement(std::string sql) : text_(std::move(sql)) { detail::check_text(text_); }  // NOLINT

 private:
  friend class connection;
  friend class rows;
  int send(detail::session& s, const std::vector<parameter>& with, format answer) const;

  std::string text_;  // SQL, or the name of what is prepared
  std::weak_ptr<detail::session> prepared_by_;
  bool prepared_ = false;
};

/// A connection to PostgreSQL. Move-only. Thread: the one that made it.
///
/// Greenlets may share one: each statement, and each transaction as a whole, waits until those begun before have ended.
///
/// What executes or waits switches to the hub, and throws: server_error; connection_error; timed_out; error
/// (different_thread; already_locked, in the midst of rows or of a COPY of the same greenlet); std::bad_alloc,
/// std::system_error; what is thrown into the caller meanwhile. When a statement ends by the deadline or by something
/// thrown in, the caller goes on at once, and a greenlet of the connection's own has the server cancel it. The next use
/// of the connection waits for that; when it takes longer than the patience, the connection is closed.
class connection {
 public:
  /// Of nothing: not open.
  connection() noexcept = default;
  connection(connection&& other) noexcept : session_(std::move(other.session_)) {}
  connection& operator=(connection&& other) noexcept {
    if (this != &other) {
      close();
      session_ = std::move(other.session_);
    }
    return *this;
  }
  ~connection() { close(); }

  /// Says good-bye to the server, which rolls back what is not committed. Greenlets that wait for an answer find
  /// a connection_error. Switches: no.
  void close() noexcept {
    if (const auto s = std::move(session_)) s->close();
  }
  /// False once it was closed or lost, or its hub has ended. Whether the server is there, only a statement tells.
  bool is_open() const noexcept { return session_ && session_->open(); }

  /// Executes one statement and waits for all of its answer. Throws also: std::invalid_argument: COPY, a zero byte in
  /// the SQL, too many parameters, a statement that another connection prepared.
  result execute(const statement& what, const std::vector<parameter>& with = {}, deadline until = {},
                 format answer = format::text) {
    detail::turn t(session_, until);
    t->send(what.send(*t, with, answer), until);
    return result(t->finish(until));
  }
  /// Has the server prepare it, the first time that this connection is asked for that text; it keeps it as long as the
  /// connection lives, so a DISCARD ALL or DEALLOCATE must not come between.
  statement prepare(const std::string& sql, deadline until = {});
  /// LISTEN and UNLISTEN; the channel is any text.
  void listen(const std::string& channel, deadline until = {}) { on_channel("listen ", channel, until); }
  void unlisten(const std::string& channel, deadline until = {}) { on_channel("unlisten ", channel, until); }
  /// Waits for the next notification; nothing when the deadline comes first. Other greenlets' statements stand behind it
  /// meanwhile: give listening a connection of its own.
  std::optional<notification> wait_notification(deadline until = {});

  /// What the server remarked (NOTICE, WARNING) since the last time, of that the last 64. Switches: no. Throws:
  /// connection_error, std::bad_alloc.
  std::vector<std::string> take_notices() {
    detail::session& s = *open();
    std::vector<std::string> all(s.notices.begin(), s.notices.end());
    s.notices.clear();
    return all;
  }
  /// How long the server may take to leave a statement; 5 seconds at first. Switches: no. Throws: connection_error.
  void set_patience(clock::duration d) { open()->patience = d; }
  /// The server's process. Switches: no. Throws: connection_error.
  int backend() const { return PQbackendPID(native()); }
  /// libpq's own, in non-blocking mode; still owned here. Its functions that wait block the thread, and it is not to be
  /// closed. Switches: no. Throws: connection_error.
  PGconn* native() const { return open()->live(); }

 private:
  friend class copy_in;
  friend class copy_out;
  friend class lease;
  friend class pool;
  friend class rows;
  friend class transaction;
  friend connection connect(const std::string& conninfo, deadline until);

  explicit connection(std::shared_ptr<detail::session> s) noexcept : session_(std::move(s)) {}
  const std::shared_ptr<detail::session>& open() const {
    if (!session_) throw connection_error("libpq: there is no connection");
    return session_;
  }
  void on_channel(const char* verb, const std::string& channel, deadline until) {
    detail::check_text(channel);
    std::string quoted = "\"";
    for (const char c : channel) quoted.append(c == '"' ? 2 : 1, c);
    execute(verb + quoted + "\"", {}, until);
  }

  std::shared_ptr<detail::session> session_;
};

/// The rows of an answer, one after the other, while they come: never all of them in memory. Dropped before the last, it
/// has the server cancel the statement. The deadline bounds all of it, to the last row. The connection is the greenlet's
/// until then. Switches, thread, throws: as connection::execute().
class rows {
 public:
  explicit rows(connection& c, const statement& what, const std::vector<parameter>& with = {}, deadline until = {},
                format answer = format::text)
      : until_(until), turn_(c.session_, until) {
    const int sent = what.send(*turn_, with, answer);
    if (sent) PQsetSingleRowMode(turn_->conn());
    turn_->send(sent, until);
  }
  rows(const rows&) = delete;
  rows& operator=(const rows&) = delete;

  /// Waits for the next; nullptr after the last. It lives until the next call.
  const row* next();

  class iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = row;
    using difference_type = std::ptrdiff_t;
    using pointer = const row*;
    using reference = const row&;

    explicit iterator(rows* of) : of_(of), row_(of ? of->next() : nullptr) {}
    const row& operator*() const noexcept { return *row_; }
    const row* operator->() const noexcept { return row_; }
    iterator& operator++() {
      row_ = of_->next();
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const iterator& a, const iterator& b) noexcept { return a.row_ == b.row_; }
    friend bool operator!=(const iterator& a, const iterator& b) noexcept { return a.row_ != b.row_; }

   private:
    rows* of_;
    const row* row_;
  };
  /// For one loop.
  iterator begin() { return iterator(this); }
  iterator end() noexcept { return iterator(nullptr); }

 private:
  deadline until_;
  row row_;
  bool over_ = false;
  detail::turn turn_;
};

/// COPY ... FROM STDIN: bytes to the server, in the statement's format and in pieces of any size. Dropped before
/// finish(), nothing is copied. Deadline, switches, thread, throws: as rows; std::invalid_argument: the statement is no
/// such COPY.
class copy_in {
 public:
  explicit copy_in(connection& c, const std::string& sql, deadline until = {});
  copy_in(const copy_in&) = delete;
  copy_in& operator=(const copy_in&) = delete;

  /// Waits while the server does not keep up. What it refuses, finish() tells.
  void write(std::string_view bytes);
  /// Gives the number of rows. After it, or a failure, what is called throws std::invalid_argument.
  std::uint64_t finish();

 private:
  static constexpr std::size_t at_once = 65536;  // in libpq's memory

  void refused();

  deadline until_;
  std::size_t unsent_ = 0;
  detail::turn turn_;
};

/// COPY ... TO STDOUT: bytes from the server. Dropped before the end, it has the server cancel it. Deadline, switches,
/// thread, throws: as copy_in.
class copy_out {
 public:
  explicit copy_out(connection& c, const std::string& sql, deadline until = {});
  copy_out(const copy_out&) = delete;
  copy_out& operator=(const copy_out&) = delete;

  /// Waits for the next row, in the statement's format; nothing after the last. It lives until the next call.
  std::optional<std::string_view> next();

 private:
  deadline until_;
  detail::owned<char> row_;
  bool over_ = false;
  detail::turn turn_;
};

/// From when it is made to when it goes: all that the greenlet executes on that connection is committed as one, or not at
/// all. Other greenlets' statements wait outside; so the greenlet must not wait for one of them.
/// Switches, thread, throws: as connection::execute(); error(already_locked): in another one of the greenlet's own, for
/// which there are savepoints.
class transaction {
 public:
  /// `begin` may say more: "begin isolation level serializable".
  explicit transaction(connection& c, deadline until = {}, const std::string& begin = "begin");
  transaction(const transaction&) = delete;
  transaction& operator=(const transaction&) = delete;
  /// Rolls back, unless it is over. Switches: no; the next use of the connection waits for it.
  ~transaction() { leave(); }

  /// Throws also: server_error with SQLSTATE 25P02: a statement had failed, so that it was rolled back. After timed_out,
  /// connection_error, or something thrown in, it may have been committed or not.
  void commit(deadline until = {});
  /// Rolls back, and waits for it.
  void rollback(deadline until = {});

 private:
  std::string end(const char* how, deadline until);
  void leave() noexcept {
    if (const auto s = std::move(session_)) s->leave_scope();
  }

  std::shared_ptr<detail::session> session_;  // until it is over
};

/// Connects, as PQconnectdb() does with the same string or URI. Host names, of the string and of the environment, are
/// looked up by hub::resolve(), and all their addresses tried; but with service=NAME in the string libpq looks them up
/// itself, and blocks the thread. The deadline bounds all of it; connect_timeout is ignored.
/// Switches, thread, throws: as connection::execute(); std::invalid_argument: that is no such string.
connection connect(const std::string& conninfo, deadline until = {});

class pool;

/// A connection of a pool, used as a pointer to it. Move-only. It goes back when this goes; what it had begun is
/// rolled back; what else was set (LISTEN, SET) stays. Thread: the pool's.
class lease {
 public:
  lease() noexcept = default;
  lease(lease&& other) noexcept : pool_(std::move(other.pool_)), connection_(std::move(other.connection_)) {}
  lease& operator=(lease&& other) noexcept {
    lease taken(std::move(other));
    std::swap(pool_, taken.pool_);
    std::swap(connection_, taken.connection_);
    return *this;
  }
  ~lease();

  connection& operator*() noexcept { return connection_; }
  connection* operator->() noexcept { return &connection_; }

 private:
  friend class pool;
  struct shared {
    shared(std::string c, std::size_t n) : conninfo(std::move(c)), most(n), free(n) { idle.reserve(n); }
    const std::string conninfo;
    const std::size_t most;
    semaphore free;  // to be acquired
    std::vector<connection> idle;
    bool over = false;
    const std::thread::id thread = std::this_thread::get_id();
  };

  explicit lease(std::shared_ptr<shared> p) noexcept : pool_(std::move(p)) {}

  std::shared_ptr<shared> pool_;  // a place of its is taken
  connection connection_;
};

/// At most so many connections, made at need and kept. Leases may outlive it. Thread: the one that made it.
class pool {
 public:
  /// Connects to nothing yet. Throws: std::bad_alloc.
  explicit pool(std::string conninfo, std::size_t most)
      : shared_(std::make_shared<lease::shared>(std::move(conninfo), most)) {}
  pool(const pool&) = delete;
  pool& operator=(const pool&) = delete;
  /// Closes those that nobody has.
  ~pool() {
    shared_->over = true;
    shared_->idle.clear();
  }

  /// Waits until one is free, first come, first served. One that was lost meanwhile is thrown away, and another is made.
  /// Switches, throws: as connect().
  lease acquire(deadline until = {});
  /// How many connections nobody has, and how many leases there are. Switches: no.
  std::size_t idle() const noexcept { return shared_->idle.size(); }
  std::size_t in_use() const noexcept { return shared_->most - shared_->free.free(); }

 private:
  std::shared_ptr<lease::shared> shared_;
};

// -- How ---------------------------------------------------------------------------------------------------

inline int statement::send(detail::session& s, const std::vector<parameter>& with, format answer) const {
  PGconn* const c = s.conn();
  const detail::arguments a(with);
  const int how = static_cast<int>(answer);
  if (!prepared_)
    return PQsendQueryParams(c, text_.c_str(), a.count(), nullptr, a.values.data(), a.sizes.data(), a.formats.data(), how);
  if (prepared_by_.lock().get() != &s) throw std::invalid_argument("libpq: a statement that another connection prepared");
  return PQsendQueryPrepared(c, text_.c_str(), a.count(), a.values.data(), a.sizes.data(), a.formats.data(), how);
}

inline statement connection::prepare(const std::string& sql, deadline until) {
  detail::check_text(sql);
  detail::turn t(session_, until);
  auto known = t->prepared.find(sql);
  if (known == t->prepared.end()) {
    const std::string name = "greenlet_" + std::to_string(++t->names);  // one that failed half-way is not used again
    t->send(PQsendPrepare(t->conn(), name.c_str(), sql.c_str(), 0, nullptr), until);
    t->finish(until);
    known = t->prepared.emplace(sql, name).first;
  }
  statement made(known->second);
  made.prepared_ = true;
  made.prepared_by_ = t.shared();
  return made;
}

inline std::optional<notification> connection::wait_notification(deadline until) {
  detail::turn t;
  if (!t.take(session_, until)) return {};
  for (;;) {
    if (!PQconsumeInput(t->live())) t->lose();  // what has come counts, also when the deadline has passed
    if (const detail::owned<PGnotify> n{PQnotifies(t->conn())}) return notification{n->relname, n->extra, n->be_pid};
    try {
      t->wait_readable(until);
    } catch (const timed_out&) {
      return {};
    }
  }
}

inline const row* rows::next() {
  while (!over_) {
    detail::owned<PGresult> r = turn_->next_result(until_);
    const ExecStatusType now = PQresultStatus(r.get());
    if (r && now == PGRES_SINGLE_TUPLE) {
      row_.of_ = result(std::move(r));
      return &row_;
    }
    if (r && now != PGRES_TUPLES_OK && now != PGRES_COMMAND_OK) {
      over_ = true;
      // Of a COPY the rest is not asked for: that throws, and the turn's end gives it up.
      if (!detail::is_error(now)) turn_->finish(until_);
      turn_->finish(until_, std::move(r));
    }
    over_ = !r;
  }
  turn_.end();
  return nullptr;
}

inline copy_in::copy_in(connection& c, const std::string& sql, deadline until) : until_(until), turn_(c.session_, until) {
  turn_->begin_copy(sql, PGRES_COPY_IN, until);
}

inline void copy_in::write(std::string_view bytes) {
  turn_.check_held();
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, at_once);
    if (PQputCopyData(turn_->live(), piece.data(), static_cast<int>(piece.size())) != 1) refused();
    bytes.remove_prefix(piece.size());
    if ((unsent_ += piece.size()) < at_once) continue;
    unsent_ = 0;
    turn_->flush(until_);
    // libpq would take the bytes for a connection that is lost as well, for ever.
    if (!PQconsumeInput(turn_->conn())) refused();
  }
}

// A connection that is lost, which is an answer.
inline void copy_in::refused() {
  turn_->finish(until_);
  throw std::invalid_argument("libpq: this COPY has ended");
}

inline std::uint64_t copy_in::finish() {
  turn_.check_held();
  if (PQputCopyEnd(turn_->live(), nullptr) != 1) refused();
  turn_->flush(until_);
  const result r(turn_->finish(until_));
  turn_.end();
  return r.affected();
}

inline copy_out::copy_out(connection& c, const std::string& sql, deadline until) : until_(until), turn_(c.session_, until) {
  turn_->begin_copy(sql, PGRES_COPY_OUT, until);
}

inline std::optional<std::string_view> copy_out::next() {
  row_.reset();
  while (!over_) {
    char* data = nullptr;
    const int n = PQgetCopyData(turn_->live(), &data, 1);
    row_.reset(data);
    if (n > 0) return std::string_view(data, static_cast<std::size_t>(n));
    if (n == 0 && turn_->more(until_)) continue;
    over_ = true;
    turn_->finish(until_);
  }
  turn_.end();
  return {};
}

inline transaction::transaction(connection& c, deadline until, const std::string& begin) {
  detail::turn t(c.session_, until, true);
  t->run(begin, until);
  session_ = t.shared();
  session_->enter_scope();
  t.end_statement();
}

inline std::string transaction::end(const char* how, deadline until) {
  if (!session_) throw std::invalid_argument("libpq: the transaction is over");
  detail::turn t(session_, until);
  const result r(t->run(how, until));
  t.end();
  leave();
  return std::string(r.command());
}

inline void transaction::commit(deadline until) {
  // PostgreSQL's manual, COMMIT: of a failed transaction it is a ROLLBACK, and no error.
  if (end("commit", until) == "ROLLBACK")
    throw server_error("libpq: a statement of the transaction had failed: it was rolled back", "25P02");
}

inline void transaction::rollback(deadline until) { end("rollback", until); }

inline connection connect(const std::string& conninfo, deadline until) {
  detail::settings all(conninfo);
  all.resolve_names(until);
  detail::owned<PGconn> c = all.start();
  PostgresPollingStatusType next = PQstatus(c.get()) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING;
  for (; next != PGRES_POLLING_OK; next = PQconnectPoll(c.get())) {
    if (next == PGRES_POLLING_FAILED) throw connection_error(detail::line_of(PQerrorMessage(c.get())));
    // With a descriptor of its own each time: libpq may have gone on to another address, by a socket of the same number.
    const io_result r =
        wait(PQsocket(c.get()), next == PGRES_POLLING_READING ? direction::readable : direction::writable, until);
    if (r.timed_out()) throw timed_out("libpq: the deadline has passed before there was a connection");
    if (!r) throw connection_error("libpq: the hub has ended");
  }
  return connection(std::make_shared<detail::session>(std::move(c)));
}

inline lease::~lease() {
  const auto p = std::move(pool_);
  if (!p) return;
  if (!p->over && connection_.is_open()) {
    connection_.session_->roll_back();
    p->idle.push_back(std::move(connection_));  // there is room
  }
  connection_.close();
  p->free.release();
}

inline lease pool::acquire(deadline until) {
  const auto kept = shared_;
  if (kept->thread != std::this_thread::get_id())
    throw error(errc::different_thread, "a pool of connections to PostgreSQL belongs to another thread", {});
  if (!kept->free.acquire(1, until)) {
    if (until.never()) throw connection_error("libpq: the hub has ended");
    throw timed_out("libpq: the deadline has passed before a connection was free");
  }
  lease l(kept);
  auto& idle = kept->idle;
  while (!idle.empty()) {
    // The last that was used, but rather one that is not in the midst of being mended.
    const auto is_ready = [](const connection& c) { return c.is_open() && !c.session_->busy(); };
    const auto ready = std::find_if(idle.rbegin(), idle.rend(), is_ready);
    std::swap(*(ready == idle.rend() ? idle.rbegin() : ready), idle.back());
    l.connection_ = std::move(idle.back());
    idle.pop_back();
    try {
      detail::turn t(l.connection_.session_, until);
      t->look();
      if (t->open()) return l;
    } catch (const connection_error&) {
      // As if it had been found closed.
    }
    l.connection_.close();
  }
  l.connection_ = connect(kept->conninfo, until);
  return l;
}

}  // namespace greenlets::hub::libpq

#endif
