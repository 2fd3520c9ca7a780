// SPDX-License-Identifier: MIT
// generator: a function that gives one value after another to a loop that reads them.
//
//   greenlets::generator<std::string> names(const tree& root) {
//     return greenlets::generator<std::string>([&root](auto& give) {
//       root.visit([&](const node& n) { give(n.name()); });  // from any depth of calls
//     });
//   }
//
//   for (const std::string& name : names(root)) std::puts(name.c_str());
#ifndef GREENLET_GENERATOR_HPP
#define GREENLET_GENERATOR_HPP

#include <greenlet/attributes.hpp>
#include <greenlet/handle.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace greenlets {

template <class T>
class generator;

namespace detail {

// What a generator, its iterators, its function and its sinks have in common. The handle in it would
// keep the greenlet, which keeps the function, which keeps this: so the generator takes it out.
struct generator_state {
  greenlet function;                    // while the generator exists
  const greenlet* reader = nullptr;     // who waits for a value; not counted, for it waits in step()
  const greenlet* giver = nullptr;      // who is in the sink, and is gone on with by the next step
  std::atomic<std::uint64_t> tree{0};   // the id of its thread's main greenlet; 0 before its start
  bool full = false;                    // a value has been given in this step
  bool over = false;                    // nothing more will be given
};

// Lets it run until it gives a value, ends (false), or throws. `clear` destroys the last value, which
// is user code, when nobody else can read or give.
GREENLET_API bool step(generator_state& s, void (*clear)(generator_state&) noexcept);
// Takes the generator's greenlet away and unwinds it.
GREENLET_API void close(generator_state& s) noexcept;

// While the function runs.
class GREENLET_API generator_scope {
 public:
  explicit generator_scope(generator_state& s) noexcept;
  generator_scope(const generator_scope&) = delete;
  generator_scope& operator=(const generator_scope&) = delete;
  ~generator_scope() { state_.over = true; }

 private:
  generator_state& state_;
};

// While a value is given.
class GREENLET_API generator_turn {
 public:
  // Throws error (different_thread, out_of_turn).
  explicit generator_turn(generator_state& s);
  generator_turn(const generator_turn&) = delete;
  generator_turn& operator=(const generator_turn&) = delete;
  ~generator_turn() {
    if (mine_) state_.giver = nullptr;
  }
  // False when the value would only get in the way of unwinding.
  explicit operator bool() const noexcept { return mine_; }
  // Switches to the reader, and comes back with the next step.
  void give();

 private:
  generator_state& state_;
  bool mine_ = false;
};

// The value in between; what next() returns; what iterators refer to.
template <class T>
struct generator_slot : generator_state {
  using result = std::optional<T>;
  using reference = T&;
  std::optional<T> slot;

  static void clear(generator_state& s) noexcept { static_cast<generator_slot&>(s).slot.reset(); }
  template <class U>
  void put(U&& u) {
    slot.emplace(std::forward<U>(u));
  }
  reference get() noexcept { return *slot; }
  result take() { return std::move(slot); }  // what is left of it goes with the next step
};
template <class T>
struct generator_slot<T&> : generator_state {
  using result = T*;
  using reference = T&;
  T* slot = nullptr;

  static void clear(generator_state&) noexcept {}
  void put(T& t) noexcept { slot = std::addressof(t); }
  reference get() noexcept { return *slot; }
  result take() noexcept { return slot; }
};

template <class T>
bool advance(generator_slot<T>& s) {
  return step(s, &generator_slot<T>::clear);
}

// Whether a U can be given: a reference is not bound to something that would be gone when it is read.
template <class T, class U>
inline constexpr bool can_give = std::is_constructible_v<T, U>;
template <class T, class U>
inline constexpr bool can_give<T&, U> =
    std::is_convertible_v<U, T&> && std::is_convertible_v<std::remove_reference_t<U>*, T*>;

}  // namespace detail

/// A function with a greenlet of its own, which gives values to whoever reads. It is called with a
/// `sink&` at the first read, and runs only while somebody reads: each `give(x)` stops it there, and
/// the next read goes on behind it. When it returns, the sequence ends; what it throws comes out of
/// the read, which is the last. Its context variables and locals are its own, not the reader's.
///
/// Any greenlet of the thread that read first may read, one at a time; that thread is the generator's.
/// While it runs, its parent is the reader; between reads, the main greenlet, so that a half-read
/// generator in a greenlet does not keep that greenlet by its count (a collector may see it kept: greenlet-gc(3), CAVEATS).
///
/// The function may switch elsewhere while somebody reads: then the reader waits. If an exception
/// (or anything else than a value of this generator) reaches the waiting reader, the generator is
/// unwound there and then and is over: nothing is left that could run without a reader.
///
/// A generator that is dropped half-read is unwound like any greenlet: with greenlet_exit, at once if on
/// its own thread. Movable, not copyable, also while it is being read.
template <class T>
class generator {
 public:
  static_assert(!std::is_rvalue_reference_v<T> && !std::is_void_v<T> && !std::is_const_v<T>,
                "a generator gives objects or lvalue references");

  class sink;
  class iterator;

  /// Switches: may unwind. Thread: any. Throws: std::bad_alloc, what moving `f` throws.
  template <class F, class D = std::decay_t<F>,
            class = std::enable_if_t<!std::is_same_v<D, generator> && std::is_invocable_v<D&, sink&>>>
  explicit generator(F&& f) : generator(attributes(), std::forward<F>(f)) {}
  /// With a stack size or a name; the parent there does not matter.
  template <class F, class D = std::decay_t<F>, class = std::enable_if_t<std::is_invocable_v<D&, sink&>>>
  generator(attributes with, F&& f) : state_(detail::make_visible<detail::generator_slot<T>>()) {
    with.parent(main_greenlet());
    state_->function = greenlet(with, [s = state_, f = D(std::forward<F>(f))]() mutable {
      const detail::generator_scope scope(*s);
      sink give(s);
      f(give);
    });
  }
  generator(generator&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  generator& operator=(generator&& other) noexcept {
    generator(std::move(other)).swap(*this);
    return *this;
  }
  /// Switches: into the function, to unwind it, if it is half-read and of this thread. Thread: any.
  ~generator() {
    if (state_) detail::close(*state_);
  }
  void swap(generator& other) noexcept { state_.swap(other.state_); }

  /// Reads the next value: a std::optional<T>, or for a reference a pointer; empty at the end.
  /// Switches: yes. Thread: the generator's. Throws: what the function throws; what is thrown into
  /// the reader; error (different_thread; out_of_turn when it is being read already;
  /// cyclic_parent when the reader descends from it; empty_handle when moved from); at the start
  /// as greenlet::switch_to().
  typename detail::generator_slot<T>::result next() {
    const auto s = state();  // we may be destroyed meanwhile
    if (!detail::advance(*s)) return {};
    return s->take();
  }

  /// Reads the next value and refers to it. So a loop goes on where the last reader stopped.
  /// As next().
  iterator begin() {
    iterator first(state());
    return ++first;
  }
  iterator end() const noexcept { return {}; }

 private:
  const std::shared_ptr<detail::generator_slot<T>>& state() const {
    if (!state_) throw error(errc::empty_handle, "the generator has been moved from");
    return state_;
  }

  std::shared_ptr<detail::generator_slot<T>> state_;
};

/// What the function gives its values to. May be copied, and called from whatever depth of calls; also
/// in another greenlet of the same thread that the function has let run, another generator for
/// instance: the next read then goes on in that greenlet.
template <class T>
class generator<T>::sink {
 public:
  /// Gives a value (constructed from `u`; for a reference generator: the object itself) to the reader
  /// and waits for the next read.
  ///
  /// When nobody reads, for the generator is over, is being unwound, or another greenlet has switched
  /// here, that is error(out_of_turn); but nothing is thrown, and nothing given, where an exception is
  /// already on its way, so that a destructor may give.
  /// Switches: to the reader. Thread: the generator's. Throws: error (out_of_turn, different_thread);
  /// what making the value throws; greenlet_exit when the generator is dropped.
  template <class U, class = std::enable_if_t<detail::can_give<T, U&&>>>
  void operator()(U&& u) const {
    const std::shared_ptr<detail::generator_slot<T>> s = state_;  // the sink may go while its greenlet waits
    detail::generator_turn turn(*s);
    if (!turn) return;
    s->put(std::forward<U>(u));
    turn.give();
  }

 private:
  friend class generator;
  explicit sink(const std::shared_ptr<detail::generator_slot<T>>& s) noexcept : state_(s) {}

  std::shared_ptr<detail::generator_slot<T>> state_;
};

/// An input iterator: all copies refer to the same place, which moves with each increment.
template <class T>
class generator<T>::iterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = std::remove_cv_t<std::remove_reference_t<T>>;
  using difference_type = std::ptrdiff_t;
  using reference = typename detail::generator_slot<T>::reference;
  using pointer = std::remove_reference_t<T>*;

  /// The end of every generator.
  iterator() noexcept = default;

  reference operator*() const noexcept { return state_->get(); }
  pointer operator->() const noexcept { return std::addressof(state_->get()); }
  /// As next().
  iterator& operator++() {
    const auto s = state_;
    if (!detail::advance(*s)) state_.reset();
    return *this;
  }
  /// What `*it++` needs: holds the value that was there.
  class old_value {
   public:
    decltype(auto) operator*() { return *std::move(kept_); }

   private:
    friend class iterator;
    explicit old_value(typename detail::generator_slot<T>::result r) : kept_(std::move(r)) {}
    typename detail::generator_slot<T>::result kept_;
  };
  old_value operator++(int) {
    old_value was(state_->take());
    ++*this;
    return was;
  }

  friend bool operator==(const iterator& a, const iterator& b) noexcept { return a.state_ == b.state_; }
  friend bool operator!=(const iterator& a, const iterator& b) noexcept { return a.state_ != b.state_; }

 private:
  friend class generator;
  explicit iterator(const std::shared_ptr<detail::generator_slot<T>>& s) noexcept : state_(s) {}

  std::shared_ptr<detail::generator_slot<T>> state_;
};

}  // namespace greenlets

#endif
