// SPDX-License-Identifier: MIT
// greenlet: a counted handle to a greenlet; and the greenlet that is running.
#ifndef GREENLET_HANDLE_HPP
#define GREENLET_HANDLE_HPP

#include <greenlet/detail/core.hpp>
#include <greenlet/detail/switch.hpp>
#include <greenlet/error.hpp>
#include <greenlet/exit.hpp>
#include <greenlet/value.hpp>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>

namespace greenlets {

class context;  // <greenlet/context.hpp>

/// Where a greenlet is in its life. There is no way back.
enum class greenlet_state {
  unstarted,  ///< has no stack and belongs to no thread yet
  current,    ///< its thread is running it
  suspended,  ///< started, and has switched away
  finished,   ///< its function has returned or thrown
  unwound,    ///< its thread has exited
};

/// Called with the pointer that was given with it when a greenlet is left or entered; see
/// attributes::on_switch().
using switch_hook = void (*)(void* data);

/// Of a greenlet's stack, in bytes. A stack grows towards lower addresses; only the pages that were
/// touched cost memory.
struct stack_usage {
  std::size_t used;       ///< from its beginning to where it is now
  std::size_t committed;  ///< resident in memory just now, in whole pages
  std::size_t reserved;   ///< of address space, without the guard page
};

/// A counted handle, one pointer wide; empty when default-constructed. A greenlet that nobody
/// runs and to which no handle is left is unwound: greenlet_exit is thrown into it at once, in
/// the code that dropped the handle, so that the destructors of its stack run. Dropped on another
/// thread it is handed to its own, which does so at its next entry into the library.
///
/// A child keeps its parent, as a handle would. So a greenlet on whose stack there is a handle to a
/// child of its own, the usual parent of what it makes, keeps itself: it ends when it is thrown at,
/// when that handle goes, or with its thread; not when its last handle elsewhere goes. It keeps its
/// callable until it ends: unstarted greenlets whose callables hold each other stay until reset_run().
///
/// Two threads may use two handles to one greenlet; one handle object is not synchronised. Copying and
/// dropping one costs no locked instruction on the thread of a greenlet that is active.
/// "Switches: no" below means that no other greenlet runs meanwhile. "May unwind" means that the
/// function first unwinds greenlets of this thread whose last handle has gone on another; like a
/// switch, it then throws what has been thrown into the running greenlet while that was in a
/// destructor that dropped a handle, out of which nothing could be thrown.
///
/// A destructor may switch. While it is away, nobody should throw into its greenlet: C++ ends the
/// process when an exception leaves a destructor. The library itself does not do so to a greenlet
/// that is being unwound.
///
/// Nothing here may be called by a signal handler that may have interrupted the library or the
/// allocator; to copy, assign or drop a handle is to be in the library. One that has interrupted other
/// code may switch; it returns when the greenlet that it interrupted is switched to again, and until then
/// what it blocks stays blocked, for the mask is the thread's. On an alternate stack (sigaltstack) it must
/// not: the next signal there would overwrite it.
class GREENLET_API greenlet {
 public:
  /// Refers to no greenlet.
  greenlet() noexcept = default;

  /// Makes a greenlet that will call `run`; nothing runs and no stack is allocated yet. Its
  /// parent is the current greenlet. `run` is moved or copied in, called once, and destroyed on
  /// the greenlet's own stack before the greenlet counts as dead.
  ///
  /// The parameters of `run` are filled from what the first switch sends: none, one object, or
  /// several; a callable that takes one `value` gets it as it is. A mismatch is
  /// error(wrong_arguments), thrown inside the new greenlet. What `run` returns is what the
  /// parent's pending switch returns; what it throws is thrown there.
  ///
  /// Switches: may unwind. Thread: any. Throws: std::bad_alloc, what moving `run` throws.
  template <class F, class D = std::decay_t<F>,
            class = std::enable_if_t<!std::is_same_v<D, greenlet> && !std::is_same_v<D, attributes> &&
                                     detail::is_runnable<F>>>
  explicit greenlet(F&& run)
      : body_(detail::new_body_of(std::forward<F>(run), nullptr, this)) {}

  /// The same with a given parent, of any thread; an empty one means the current greenlet.
  template <class F, class = std::enable_if_t<detail::is_runnable<F>>>
  greenlet(F&& run, const greenlet& parent)
      : body_(detail::new_body_of(std::forward<F>(run), &parent, this)) {}

  /// The same with attributes. Throws also: std::invalid_argument for a stack size that cannot be.
  template <class F, class = std::enable_if_t<detail::is_runnable<F>>>
  greenlet(const attributes& with, F&& run)
      : body_(detail::new_body(detail::make_closure(std::forward<F>(run)), nullptr, with, this)) {}

  /// Nothing to run yet: set_run() gives it. Until then a switch is error(no_run).
  explicit greenlet(const attributes& with) : body_(detail::new_body({}, nullptr, with, this)) {}

  greenlet(const greenlet& other) noexcept : body_(other.body_) {
    if (body_) detail::ref(body_, this);
  }
  greenlet(greenlet&& other) noexcept : body_(std::exchange(other.body_, nullptr)) {
    detail::moved(body_, this, &other);
  }
  /// Switches: dropping the old greenlet may unwind it, as the destructor does; it is dropped
  /// last, when the handle already refers to the new one.
  greenlet& operator=(const greenlet& other) noexcept {
    greenlet(other).swap(*this);
    return *this;
  }
  greenlet& operator=(greenlet&& other) noexcept {
    greenlet(std::move(other)).swap(*this);
    return *this;
  }
  /// Switches: into the greenlet, to unwind it, when this was the last handle to a suspended
  /// greenlet of this thread; control comes back when it has finished. Nothing that it throws
  /// gets here: what is not a greenlet_exit goes to the unraisable handler. Thread: any.
  ~greenlet() {
    if (body_) detail::unref(body_, this);
  }
  void swap(greenlet& other) noexcept {
    std::swap(body_, other.body_);
    detail::moved(body_, this, &other);
    detail::moved(other.body_, &other, this);
  }

  /// Switches to the greenlet and sends it the arguments: nothing, an object, or several (as a
  /// std::tuple of the decayed types). Returns what somebody, not necessarily that greenlet,
  /// later sends to the one that is running now.
  ///
  /// An unstarted greenlet is started with the arguments. A dead one passes them on to its nearest
  /// ancestor that is not dead. The running one gets them back at once.
  ///
  /// Switches: yes. Thread: the greenlet's own. Throws: error (empty_handle, different_thread,
  /// thread_exited, collected, no_run), std::system_error and std::bad_alloc when a stack cannot
  /// be had, and error(stack_limit); all of these before anything has changed. And whatever is
  /// thrown into the running greenlet while it is away.
  template <class... A>
  GREENLET_ALWAYS_INLINE value switch_to(A&&... arguments) const {
    if constexpr (sizeof...(A) == 0) {
      return detail::switch_to(*this, body_, detail::machine::cargo());
    } else if constexpr (sizeof...(A) == 1 && (detail::goes_in_register<A> && ...)) {
      // First, for it may be user code that gives this handle another greenlet.
      const detail::machine::cargo sent = detail::loaded_one(std::forward<A>(arguments)...);
      return detail::switch_to(*this, body_, sent);
    } else {
      value sent = detail::pack(std::forward<A>(arguments)...);
      return detail::switch_to(*this, body_, detail::loaded(sent));
    }
  }

  /// Switches to the greenlet and throws there, out of its pending switch: any object (as
  /// `throw object` would), or what a std::exception_ptr refers to. An unstarted greenlet dies of
  /// it without running. What the greenlet does not catch goes to its parent. A dead one passes it
  /// on to its nearest ancestor that is not dead; a greenlet_exit as a value.
  ///
  /// Switches: yes. Thread: the greenlet's own. Throws: as switch_to(); error(wrong_arguments) for a
  /// null exception_ptr; what copying or moving the object throws, before anything has changed.
  template <class E>
  value throw_in(E&& object) const {
    // In a statement of its own: a by-value parameter lives to the end of the full expression, and a
    // copy of the object may hold a handle to the greenlet that is about to be suspended here.
    std::exception_ptr thrown = [&] {
      using D = std::decay_t<E>;
      if constexpr (std::is_same_v<D, std::exception_ptr>) {
        return std::exception_ptr(std::forward<E>(object));
      } else if constexpr (std::is_nothrow_copy_constructible_v<D> && std::is_nothrow_move_constructible_v<D>) {
        return std::make_exception_ptr<D>(std::forward<E>(object));
      } else {
        // When it cannot copy the object, make_exception_ptr refers to the exception that says so; but we
        // are to be told of that, and not the target.
        try {
          throw D(std::forward<E>(object));
        } catch (const D&) {
          return std::current_exception();
        }
      }
    }();
    using D = std::decay_t<E>;
    if constexpr (!std::is_same_v<D, std::exception_ptr> && std::is_nothrow_copy_constructible_v<D> &&
                  std::is_nothrow_move_constructible_v<D>)
      return detail::throw_in(*this, body_, std::move(thrown), detail::throw_ops_of<D>::ops);
    else
      return detail::throw_in(*this, std::move(thrown));
  }
  /// Throws greenlet_exit.
  value throw_in() const { return throw_in(greenlet_exit()); }

  /// Gives an unstarted greenlet what it is to run, in place of what it had.
  /// Switches: no, unless the old callable's destructor does. Thread: any, but not two at once.
  /// Throws: error (empty_handle, already_started), std::bad_alloc, what moving `run` throws.
  template <class F, class = std::enable_if_t<detail::is_runnable<F>>>
  void set_run(F&& run) const {
    detail::set_run(*this, detail::make_closure(std::forward<F>(run)));
  }
  /// Takes what an unstarted greenlet was to run away, and destroys it. As set_run().
  void reset_run() const { detail::set_run(*this, {}); }
  /// Whether there is something to run; false from the start on. Switches: no. Thread: any.
  /// Throws: error(empty_handle).
  bool has_run() const;

  /// The greenlet that gets control when this one finishes; empty for a main greenlet.
  /// Switches: no. Thread: any. Throws: error(empty_handle).
  greenlet parent() const;
  /// Gives it another parent. While unstarted: one of any thread, even of one that has exited (the
  /// switch will tell). Once started: one of its own thread.
  /// Switches: may unwind the old parent. Thread: any while unstarted, then the greenlet's own.
  /// Throws: error (empty_handle, main_parent, cyclic_parent, parent_thread, different_thread,
  /// thread_exited).
  void set_parent(const greenlet& p) const;

  /// What its context variables are; empty when it has no context yet. On the running greenlet that
  /// is the live context: what it sets is seen there. A dead one still has the last it had, unless
  /// its thread's exit has ended it.
  /// Switches: no. Thread: any, but not while another thread runs the greenlet.
  /// Throws: error (empty_handle, different_thread). Needs <greenlet/context.hpp>, as set_context() does.
  context get_context() const;
  /// Gives it this context: at once if it is running, to go on with if suspended, to begin with if
  /// unstarted. Empty: a fresh one is made when it next sets a variable.
  /// Switches: no, unless the destructor of a value does that the old context held.
  void set_context(context c) const;

  // The predicates never change anything and may be called from any thread; from another thread
  // than the greenlet's own the answer may be old when it arrives. False for an empty handle.

  /// Finished, or its thread has exited.
  bool dead() const noexcept;
  /// No longer unstarted.
  bool started() const noexcept;
  bool is_main() const noexcept;
  /// Active: started and not dead.
  explicit operator bool() const noexcept;
  /// Whether the handle refers to no greenlet.
  bool empty() const noexcept { return body_ == nullptr; }
  /// Throws nothing; an empty handle counts as finished.
  greenlet_state state() const noexcept;

  /// The name, for people. Thread: any. Throws: std::bad_alloc.
  std::string name() const;
  /// Gives it another one. Thread: any. Throws: error(empty_handle), std::bad_alloc.
  void set_name(std::string n) const;
  /// A number that no other greenlet of the process ever has; 0 for an empty handle.
  std::uint64_t id() const noexcept;

  /// A pointer of the user's, for those who bind a language or a framework to the library; null at
  /// first. Thread: any.
  void* user_data() const noexcept;
  /// Sets it. `deleter`, if not null, is called with the pointer when the greenlet's record is freed
  /// (the last handle is gone, the greenlet dead or never started) on the thread that drops the last
  /// handle; or here, when another pointer takes its place. What it throws is std::terminate.
  /// Switches: only if the old deleter does. Thread: any, but not two at once. Throws: error(empty_handle).
  void set_user_data(void* data, void (*deleter)(void*) = nullptr) const;
  /// What attributes::on_switch() does, for greenlets that exist: main greenlets, say. Setting them on
  /// the running greenlet calls neither. Two null pointers take them back.
  /// Switches: no. Thread: any while unstarted, then the greenlet's own. Throws: error (empty_handle,
  /// different_thread, thread_exited), std::bad_alloc.
  void set_on_switch(switch_hook leave, switch_hook enter, void* data) const;

  /// How much of its stack it uses. Without a stack (unstarted, dead, empty handle): zeros. On
  /// another thread than the greenlet's own only `reserved` is known, and 0 for a main greenlet.
  /// Switches: no. Thread: any.
  stack_usage stack() const noexcept;

  friend bool operator==(const greenlet& a, const greenlet& b) noexcept { return a.body_ == b.body_; }
  friend bool operator!=(const greenlet& a, const greenlet& b) noexcept { return a.body_ != b.body_; }

 private:
  friend struct detail::body;
  friend class weak_greenlet;
  friend struct std::hash<greenlet>;
  friend struct access;  // the library's own way in

  struct adopt {};
  greenlet(detail::body* counted, adopt) noexcept : body_(counted) { detail::moved(body_, this, nullptr); }

  detail::body* body_ = nullptr;
};

/// The running greenlet: its own handle, which is not counted (a copy of it is). A reference,
/// because a counted temporary of the usual `current().parent().switch_to()` would live on this
/// greenlet's stack for as long as the switch is pending, and keep it alive by itself.
///
/// Makes the thread's main greenlet at its first use in a thread.
/// Switches: may unwind. Thread: any. Throws: std::bad_alloc, std::system_error at the first use.
GREENLET_API const greenlet& current();

/// The main greenlet of the calling thread. As current().
GREENLET_API greenlet main_greenlet();

/// Switches to the parent of the running greenlet: as `current().parent().switch_to(...)`, with no
/// temporary handle. Throws also: error(main_parent) in a main greenlet.
template <class... A>
GREENLET_ALWAYS_INLINE value switch_to_parent(A&&... arguments) {
  if constexpr (sizeof...(A) == 0) {
    return detail::switch_to_parent(detail::machine::cargo());
  } else if constexpr (sizeof...(A) == 1 && (detail::goes_in_register<A> && ...)) {
    return detail::switch_to_parent(detail::loaded_one(std::forward<A>(arguments)...));
  } else {
    value sent = detail::pack(std::forward<A>(arguments)...);
    return detail::switch_to_parent(detail::loaded(sent));
  }
}

}  // namespace greenlets

template <>
struct std::hash<greenlets::greenlet> {
  std::size_t operator()(const greenlets::greenlet& g) const noexcept { return std::hash<const void*>()(g.body_); }
};

#endif
