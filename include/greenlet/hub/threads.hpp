// SPDX-License-Identifier: MIT
// threads: a hub on each processor. dispatcher: connections handed round to them.
//
//   hub::threads all(0, [&](hub::worker& self) {
//     hub::listener::options how;
//     how.share_port = true;                       // the kernel spreads connections over the threads
//     hub::server s(serve);
//     s.listen(hub::listener(where, how));
//     self.on_stop([&s] { s.stop(std::chrono::seconds(5)); });
//     s.run();
//   });
//   hub::signals({SIGTERM}).wait();
//   all.stop();
//   all.join();
#ifndef GREENLET_HUB_THREADS_HPP
#define GREENLET_HUB_THREADS_HPP

#include <greenlet/detail/api.hpp>
#include <greenlet/hub/deadline.hpp>
#include <greenlet/hub/server.hpp>
#include <greenlet/hub/tcp.hpp>

#include <cstddef>
#include <functional>
#include <memory>
#include <utility>

namespace greenlets::hub {

/// One of the threads, as its function sees it. Thread: its own.
class GREENLET_API worker {
 public:
  std::size_t index() const noexcept { return index_; }  ///< from 0 on
  operator std::size_t() const noexcept { return index_; }  // so a function may take the number alone
  /// What a stop is here: called in a greenlet of its own, once; at the hub's next turn when the stop has come already.
  /// Without it, greenlet_exit(cancelled) is thrown into the thread's main greenlet, which runs the function. It is not
  /// called any more when the function has returned. Throws: std::bad_alloc.
  void on_stop(std::function<void()> f);
  bool stop_requested() const noexcept;

 private:
  friend class threads;
  struct state;
  worker(std::shared_ptr<state> s, std::size_t index) noexcept : state_(std::move(s)), index_(index) {}

  std::shared_ptr<state> state_;
  std::size_t index_;
};

/// Threads that each have a hub, and a tree of greenlets, of their own. The function is called in each one's main
/// greenlet; when it returns, the thread's hub is ended, and the thread. The first exception of any of them, but for
/// greenlet_exit, stops the others and is thrown by join().
class GREENLET_API threads {
 public:
  struct options {
    bool pin = false;  ///< each to a processor of its own, as long as there are
  };

  /// Starts so many; 0: as many as there are processors that the process may use. Throws: std::invalid_argument (no
  /// function), std::system_error (no more threads; those that were started are stopped and waited for), std::bad_alloc.
  threads(std::size_t count, std::function<void(worker&)> f) : threads(count, std::move(f), options()) {}
  threads(std::size_t count, std::function<void(worker&)> f, const options& how);
  threads(const threads&) = delete;
  threads& operator=(const threads&) = delete;
  /// Stops those that are left, and waits. What join() would have thrown goes to the unraisable handler; what is thrown
  /// into the greenlet meanwhile is thrown at its next wait. Switches: to the hub, unless all have ended; when it cannot
  /// wait there (no memory, no descriptor, or the hub has gone), the thread waits.
  ~threads();

  std::size_t size() const noexcept;
  /// Asks all of them to stop, see worker::on_stop(). Switches: no. Thread: any. Throws: std::bad_alloc.
  void stop();
  /// Waits, in the hub, until all have ended; false when the deadline came first, or the hub has gone. Throws what the
  /// first that failed threw; std::bad_alloc, std::system_error (no descriptor to wait on), and what is thrown into the
  /// caller meanwhile: the threads go on then. Thread: any.
  bool join(deadline until = {});

 private:
  struct state;
  std::shared_ptr<state> state_;
};

/// The processors that this process may run on: sched_getaffinity(2). At least 1.
GREENLET_API std::size_t usable_processors();

/// Hands connections round to servers on other threads: for those that last, which SO_REUSEPORT spreads badly. Thread: any.
class GREENLET_API dispatcher {
 public:
  enum class order { round_robin, least_loaded };

  /// Gives connections to a server for as long as it lives. Thread: the server's.
  class GREENLET_API membership {
   public:
    membership(membership&&) noexcept = default;
    membership& operator=(membership&&) = delete;
      /// The server is given no more; what had been given and not begun is closed. Switches: no.
    ~membership();

   private:
    friend class dispatcher;
    struct target;
    class beginner;
    explicit membership(std::shared_ptr<target> t) noexcept : target_(std::move(t)) {}
    std::shared_ptr<target> target_;
  };

  explicit dispatcher(order how = order::round_robin);
  dispatcher(const dispatcher&) = delete;
  dispatcher& operator=(const dispatcher&) = delete;
  ~dispatcher();

  /// `s` is given connections from now on. At its limit they wait for it. Thread: the server's. Throws: std::bad_alloc, and
  /// what making the hub throws.
  membership add(server& s);
  /// Gives a connected socket to one of the servers, whose thread is woken once for all that it has been given meanwhile.
  /// False when there is no server: then it is closed. Owns `fd`, in any case. Switches: no. Thread: any. Throws: std::bad_alloc.
  bool give(int fd);
  /// Accepts and gives, until the listener is closed (by another greenlet). Pauses when the system refuses, from 10 ms to
  /// a second. Those that come while there is no server are closed. Thread: the listener's. Switches: to the hub.
  /// Throws: std::bad_alloc, std::system_error, and what is thrown into the caller meanwhile.
  void run(listener& from);

 private:
  struct state;
  std::shared_ptr<state> state_;
};

}  // namespace greenlets::hub

#endif
