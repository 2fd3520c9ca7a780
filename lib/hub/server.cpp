// SPDX-License-Identifier: MIT
// server: one greenlet accepts from each listener, one serves each connection; all of them know the same state, which
// lives as long as the last of them.
#include <greenlet/hub/server.hpp>

#include <greenlet/hub/group.hpp>

#include "server.hpp"

#include <algorithm>
#include <chrono>
#include <new>
#include <stdexcept>
#include <utility>

namespace greenlets::hub {
namespace {

using std::chrono::milliseconds;
using detail::first_pause, detail::longest_pause, detail::most_in_a_row;

}  // namespace

// A connection's place among those that are served; leaves also when its greenlet never starts.
class server::state::seat {
 public:
  explicit seat(std::shared_ptr<state> of) : of_(std::move(of)), at_(of_->connections.emplace(of_->connections.end())) {}
  seat(seat&& other) noexcept : of_(std::move(other.of_)), at_(other.at_), served_(other.served_) {}
  seat(const seat&) = delete;
  seat& operator=(const seat&) = delete;
  ~seat() {
    if (!of_) return;
    if (at_->spawned && !served_) ++of_->counts.failed;
    const greenlet last = std::move(at_->who);  // goes when it is no longer in the list: its end may be user code
    of_->connections.erase(at_);
    of_->ended.give_all();
    if (of_->connections.empty()) of_->changed.give_all();
  }
  state& of() const noexcept { return *of_; }
  std::list<served>::iterator at() const noexcept { return at_; }
  void is_served() noexcept { served_ = true; }

 private:
  std::shared_ptr<state> of_;
  std::list<served>::iterator at_;
  bool served_ = false;
};

// What a connection's greenlet runs.
struct server::state::service {
  seat place;
  std::shared_ptr<void> until_end;
  connection c;

  void operator()() {
    // These go here, and in this order: who waits for a descriptor finds it when the seat is left.
    seat mine = std::move(place);
    const std::shared_ptr<void> kept = std::move(until_end);
    connection ours = std::move(c);
    try {
      mine.of().serve(ours);
      mine.is_served();
    } catch (const greenlet_exit&) {
      mine.is_served();
      throw;
    } catch (...) {
      std::exception_ptr e = std::current_exception();
      if (!e) throw;  // a forced unwind
      report_unraisable(current(), std::move(e));
    }
  }
};

template <class F>
void server::state::start(F&& make, std::shared_ptr<void> until_end) {
  ++counts.accepted;
  detail::unless_done failed([this]() noexcept { ++counts.failed; });
  connection c = make();
  service run{seat(shared_from_this()), std::move(until_end), std::move(c)};
  const auto at = run.place.at();
  auto closure = greenlets::detail::make_closure(std::move(run));
  const greenlet g = how.each ? detail::start_soon(std::move(closure), *how.each) : detail::start_soon(std::move(closure));
  failed.done = true;  // from now on the seat knows
  if (g.dead()) return;
  at->who = g;
  at->spawned = true;
}

void server::state::take(int fd, std::shared_ptr<void> until_end) {
  detail::unowned_fd accepted(fd, "accept4");
  if (stopped) return;
  start(
      [&accepted] {
        connection c(accepted.get());
        accepted.taken();
        return c;
      },
      std::move(until_end));
}

std::size_t server::state::others() const {
  const greenlet& self = current();
  return static_cast<std::size_t>(
      std::count_if(connections.begin(), connections.end(), [&self](const served& each) { return each.who != self; }));
}

void server::state::cancel_others() {
  const greenlet& self = current();
  for (served& each : connections) {
    if (each.told || each.who.empty() || each.who == self) continue;
    hub::cancel(each.who);
    each.told = cancelled = true;
  }
}

void server::state::close_listeners() noexcept {
  stopped = true;
  for (const auto& each : sources) each->from.close();
  sources.clear();
  ended.give_all();  // who accepts may wait for one of its connections' end
  changed.give_all();
}

// Others are cancelled once: they may have to wait for their own end.
bool server::state::stop(deadline grace) {
  close_listeners();
  while (others() > 0)
    if (!detail::place(ended).wait(grace)) break;
  cancel_others();
  while (others() > 0)
    if (!detail::place(ended).wait({})) break;  // the hub has gone, and they with it
  return !cancelled;
}

// Waits a while because of `why`, or until a connection has ended.
void server::state::pause(std::error_code why, milliseconds& how_long) {
  ++counts.shortages;
  if (how_long == milliseconds::zero()) {
    how_long = first_pause;
    try {
      if (how.on_shortage) how.on_shortage(why);
    } catch (const greenlet_exit&) {
      throw;
    } catch (...) {
      std::exception_ptr e = std::current_exception();
      if (!e) throw;
      report_unraisable(current(), std::move(e));
    }
  }
  detail::place(ended).wait(how_long);
  how_long = std::min(2 * how_long, longest_pause);
}

// Accepts one, or finds that it cannot now: then the error says why.
io_result server::state::accept_one(listener& from) {
  try {
    int fd = -1;
    const io_result r = from.try_accept(fd);
    if (!r) return r;
    take(fd, nullptr);
    return r;
  } catch (const std::bad_alloc&) {
    return io_result::failed(std::errc::not_enough_memory);
  } catch (const std::system_error& e) {
    return {0, e.code(), false};
  }
}

// What the greenlet of a listener does.
void server::state::accept_all(listener& from) {
  milliseconds how_long(0);
  for (unsigned in_a_row = 0; from.is_open();) {
    if (connections.size() >= how.most) {
      ++counts.limited;
      while (connections.size() >= how.most && from.is_open())
        if (!detail::place(ended).wait({})) return;
      continue;
    }
    const io_result r = accept_one(from);
    if (r) {
      how_long = milliseconds::zero();
      if (++in_a_row % most_in_a_row == 0) hub::yield();
    } else if (r.closed()) {
      return;
    } else if (r.error == std::errc::operation_would_block) {
      // Closed: then there is no more to do here. Any other failure, try_accept() tells.
      in_a_row = 0;
      if (from.wait().closed()) return;
    } else {
      pause(r.error, how_long);
    }
  }
}

// Held by the function of a greenlet that accepts: tells also when that is never called.
class server::state::acceptor {
 public:
  acceptor(std::shared_ptr<state> s, std::shared_ptr<source> from) noexcept : of_(std::move(s)), source_(std::move(from)) {
    source_->at = source::phase::accepted_from;
  }
  acceptor(acceptor&&) noexcept = default;
  acceptor(const acceptor&) = delete;
  acceptor& operator=(const acceptor&) = delete;
  ~acceptor() {
    if (!of_) return;
    if (source_->at == source::phase::accepted_from) source_->at = source::phase::unstarted;
    of_->changed.give_all();
  }

  void operator()() {
    try {
      of_->accept_all(source_->from);
      source_->at = source::phase::over;
    } catch (const std::exception&) {
      of_->failure = std::current_exception();  // no memory to wait: run() tells
    }
  }

 private:
  std::shared_ptr<state> of_;
  std::shared_ptr<source> source_;
};

void server::state::run() {
  if (running) throw error(errc::already_waiting, "another greenlet runs the server");
  group acceptors;  // ends them when we leave
  struct leaver {
    state& s;
    ~leaver() { s.running = false; }
  } at_any_exit{*this};
  running = true;
  failure = nullptr;
  for (const auto& each : sources)
    if (each->at == source::phase::unstarted) each->at = source::phase::fresh;
  const auto is_unstarted = [](const auto& each) { return each->at == source::phase::unstarted; };
  for (milliseconds how_long(0); !stopped;) {
    if (std::any_of(sources.begin(), sources.end(), is_unstarted))
      pause(std::make_error_code(std::errc::not_enough_memory), how_long);
    else
      how_long = milliseconds::zero();
    for (std::size_t n = 0; n < sources.size(); ++n)  // not an iterator: spawning may unwind others, who may listen
      if (is_unstarted(sources[n]) || sources[n]->at == source::phase::fresh)
        acceptors.spawn(acceptor(shared_from_this(), sources[n]));
    if (failure) std::rethrow_exception(failure);
    if (!stopped && !detail::place(changed).wait({})) return;  // the hub has gone
  }
  acceptors.wait();
  while (!connections.empty())
    if (!detail::place(changed).wait({})) return;
}

server::server(handler serve, options how) {
  if (!serve) throw std::invalid_argument("greenlets::hub::server: there is no function to call");
  if (how.each) detail::check(*how.each, "greenlets::hub::server");
  if (how.most == 0) throw std::invalid_argument("greenlets::hub::server: a limit of no connections");
  state_ = std::make_shared<state>(std::move(serve), std::move(how));
}

server::~server() {
  state_->close_listeners();
  std::exception_ptr meanwhile;
  for (bool over = false; !over;) {
    try {
      state_->stop(clock::time_point());
      over = true;
    } catch (...) {
      meanwhile = std::current_exception();
    }
  }
  if (meanwhile) hub::cancel(current(), std::move(meanwhile));
}

void server::listen(listener&& from) {
  auto shared = std::make_shared<state::source>(std::move(from));
  if (state_->stopped) return;
  state_->sources.push_back(std::move(shared));
  state_->changed.give_all();
}

void server::run() {
  const auto kept = state_;  // this object may go while we wait
  kept->run();
}

bool server::stop(deadline grace) {
  const auto kept = state_;
  return kept->stop(grace);
}

std::vector<listener> server::take_listeners() {
  std::vector<listener> taken;
  taken.reserve(state_->sources.size());
  const auto all = std::exchange(state_->sources, {});
  state_->ended.give_all();
  for (const auto& each : all) {
    if (!each->from.is_open()) continue;
    detail::unowned_fd fd(each->from.release(), "listener::release");  // who accepts finds it closed
    taken.emplace(taken.end(), fd.get());  // emplace_back() would be exported at -O0: what it gives is a type of ours
    fd.taken();
  }
  return taken;
}

std::vector<int> server::listening() const {
  std::vector<int> all;
  for (const auto& each : state_->sources) all.push_back(each->from.fd());
  return all;
}

void server::serve(connection&& c) {
  const auto kept = state_;
  connection ours = std::move(c);
  if (kept->stopped) return;
  kept->start([&ours] { return std::move(ours); }, nullptr);
}

server_statistics server::statistics() const noexcept {
  server_statistics now = state_->counts;
  now.active = state_->connections.size();
  return now;
}

}  // namespace greenlets::hub
