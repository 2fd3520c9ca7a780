// SPDX-License-Identifier: MIT
// context_var and context: variables whose value belongs to the greenlet that runs.
//
//   static greenlets::context_var<std::string> user("user", "nobody");
//
//   void serve(const request& r) {
//     user.set(r.user());                    // in this greenlet only
//     helper.set_context(greenlets::context::copy_current());  // ... and, from now on, in that one
//     log() << user.get();
//   }
//
// Each greenlet has a context of its own, which begins empty: every variable has its default there.
#ifndef GREENLET_CONTEXT_HPP
#define GREENLET_CONTEXT_HPP

#include <greenlet/handle.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace greenlets {

class context;
template <class T>
class context_var;

namespace detail {

struct context_map;

using context_value = std::shared_ptr<const void>;  // null: none

// A number that no other context, context_var or local of the process ever has.
GREENLET_API std::uint64_t new_key() noexcept;
GREENLET_API context_value find_variable(const context& in, std::uint64_t key) noexcept;
// The same in the context of the running greenlet.
GREENLET_API context_value find_variable(std::uint64_t key) noexcept;
// Sets it there, makes a context if there is none, gives back what it was in `v`. Returns the number
// of that context.
GREENLET_API std::uint64_t exchange_variable(std::uint64_t key, context_value& v);
// The same, if `before` is the number of the context there; else error(wrong_token).
GREENLET_API void restore_variable(std::uint64_t key, std::uint64_t before, context_value& v, const std::string& name);
[[noreturn]] GREENLET_API void throw_no_value(const std::string& name);
[[noreturn]] GREENLET_API void throw_wrong_token(const char* sentence, const std::string& name);

}  // namespace detail

/// A handle to a context: what the variables are, for one greenlet or for several. Copies of the
/// handle refer to the same context, and so do greenlets that were given it: what one sets, the
/// others see. The empty handle stands for the context that a greenlet does not have yet.
///
/// A greenlet keeps its context until it is freed, as any object keeps its members: also when it
/// has finished. (One that is unwound by its thread's exit, and a main greenlet, let go of it then, on
/// their own stack.) So a greenlet with a handle to itself in its own context keeps itself: put
/// a weak_greenlet there, or set_context({}) when done.
///
/// Values are destroyed where the last that holds them lets go of them, with no lock held; their
/// destructors may switch. Thread: a context may be shared by greenlets of several threads; one
/// handle object is not synchronised. "Switches: no" means: unless a destructor of a value does.
class GREENLET_API context {
 public:
  /// Refers to no context.
  context() noexcept = default;
  context(const context& other) noexcept;
  context(context&& other) noexcept : map_(std::exchange(other.map_, nullptr)) {}
  context& operator=(const context& other) noexcept {
    context(other).swap(*this);
    return *this;
  }
  context& operator=(context&& other) noexcept {
    context(std::move(other)).swap(*this);
    return *this;
  }
  ~context();
  void swap(context& other) noexcept { std::swap(map_, other.map_); }

  /// Makes a context in which nothing is set. Switches: no. Thread: any. Throws: std::bad_alloc.
  static context make();
  /// Makes a context in which is set what is set in the running greenlet's now. The values are
  /// shared, not copied. What either sets later is its own.
  /// Switches: no. Thread: any. Throws: std::bad_alloc.
  static context copy_current();
  /// The same of this one. Switches: no. Thread: any. Throws: error(empty_handle), std::bad_alloc.
  context copy() const;

  /// Calls `f()` with this as the running greenlet's context, and afterwards gives it back the one
  /// it had: also when `f` throws or is unwound, and whatever context it has been given meanwhile.
  /// While `f` switches away, the others have their own contexts as ever; but to enter this context
  /// once more, in any greenlet, is an error until `f` is over. Returns what `f` returns.
  ///
  /// Switches: only if `f` does. Thread: any. Throws: error (already_entered, empty_handle), std::bad_alloc and
  /// std::system_error at the thread's first use, all before `f` is called; what `f` throws.
  template <class F>
  std::invoke_result_t<F> run(F&& f) const;

  /// Whether the handle refers to no context.
  bool empty() const noexcept { return map_ == nullptr; }
  /// How many variables are set in it; 0 when empty.
  std::size_t size() const noexcept;
  /// The variable's value in this context; null when it is not set here (whatever its default).
  template <class T>
  std::shared_ptr<const T> get_if(const context_var<T>& variable) const noexcept;

  /// Whether both refer to the same context, not whether the same is set in both.
  friend bool operator==(const context& a, const context& b) noexcept { return a.map_ == b.map_; }
  friend bool operator!=(const context& a, const context& b) noexcept { return a.map_ != b.map_; }

 private:
  friend class greenlet;
  friend class entered_context;
  friend detail::context_value detail::find_variable(const context&, std::uint64_t) noexcept;

  explicit context(detail::context_map* counted) noexcept : map_(counted) {}

  detail::context_map* map_ = nullptr;
};

/// What context::run() does, for a scope: for code that is not one function. Keeps the context.
class GREENLET_API entered_context {
 public:
  /// Switches: no. Thread: any. Throws: as context::run(), before anything has changed.
  explicit entered_context(const context& c);
  entered_context(const entered_context&) = delete;
  entered_context& operator=(const entered_context&) = delete;
  /// Gives the greenlet back the context it had. To be called in the greenlet that made it. Switches: no.
  ~entered_context();

 private:
  context before_;
  context inside_;
  std::uint64_t greenlet_;
};

template <class F>
std::invoke_result_t<F> context::run(F&& f) const {
  const entered_context scope(*this);
  return std::invoke(std::forward<F>(f));
}

/// A variable with a value in each context, usually a static object. It is known by its object: two
/// objects of one name are two variables (so are two copies of a static one in two shared objects).
/// A value that is set when the variable is destroyed stays in its contexts, and is found by nobody.
///
/// T is anything that can be copied into get()'s result; get_if() needs no copy.
/// Thread: any; a context_var never changes.
template <class T>
class context_var {
 public:
  class token;

  /// Without a default. The name is for people.
  explicit context_var(std::string name) : name_(std::move(name)) {}
  /// With the value that it has wherever it is not set.
  template <class U>
  context_var(std::string name, U&& fallback)
      : name_(std::move(name)), fallback_(detail::make_visible<T>(std::forward<U>(fallback))) {}
  context_var(const context_var&) = delete;
  context_var& operator=(const context_var&) = delete;

  /// The value in the running greenlet's context, else the default, copied.
  /// Switches: no. Throws: error(no_value) when there is neither; what copying throws.
  T get() const {
    if (const std::shared_ptr<const T> found = get_if()) return *found;
    detail::throw_no_value(name_);
  }
  /// The value in the running greenlet's context, else `otherwise`, not the default.
  /// Switches: no. Throws: what copying, or making a T of `otherwise`, throws.
  template <class U>
  T get_or(U&& otherwise) const {
    if (const detail::context_value found = detail::find_variable(key_)) return *static_cast<const T*>(found.get());
    return static_cast<T>(std::forward<U>(otherwise));
  }
  /// The same as get(), not copied; null when there is neither. Stays what it is when the variable
  /// is set anew. Switches: no.
  std::shared_ptr<const T> get_if() const noexcept {
    detail::context_value found = detail::find_variable(key_);
    return found ? std::static_pointer_cast<const T>(std::move(found)) : fallback_;
  }

  /// Sets the variable in the running greenlet's context, which is made if there is none. What is
  /// returned holds the former value, and takes the variable back to it in reset(); otherwise it
  /// may be dropped, and the former value goes with it.
  /// Switches: no. Throws: what making the value throws, std::bad_alloc, std::system_error at the thread's first
  /// use; nothing has changed then.
  template <class U = T>
  token set(U&& value) {
    token t(key_, detail::make_visible<T>(std::forward<U>(value)));
    t.context_ = detail::exchange_variable(key_, t.value_);
    return t;
  }

  /// Takes the variable back to what it was before the set() that gave the token, which must have
  /// been in this context, and is used up by this.
  /// Switches: no. Throws: error(wrong_token) when it is used up, of another variable, or of another
  /// context; nothing has changed then.
  void reset(token& t) {
    if (t.context_ == 0) detail::throw_wrong_token("the token has already been used", name_);
    if (t.key_ != key_) detail::throw_wrong_token("the token was made by a different context_var", name_);
    detail::context_value v = t.value_;
    detail::restore_variable(key_, t.context_, v, name_);
    t.context_ = 0;
  }
  void reset(token&& t) { reset(t); }

  const std::string& name() const noexcept { return name_; }

 private:
  friend class context;

  const std::uint64_t key_ = detail::new_key();
  const std::string name_;
  const std::shared_ptr<const T> fallback_;
};

/// What set() returns: the value that was there before, and where.
template <class T>
class context_var<T>::token {
 public:
  token(token&& other) noexcept
      : key_(other.key_), context_(std::exchange(other.context_, 0)), value_(std::move(other.value_)) {}
  token& operator=(token&& other) noexcept {
    if (this == &other) return *this;
    key_ = other.key_;
    context_ = std::exchange(other.context_, 0);
    const detail::context_value old = std::exchange(value_, std::move(other.value_));
    return *this;
  }
  token(const token&) = delete;
  token& operator=(const token&) = delete;

  /// The value before; null when the variable was not set in that context.
  std::shared_ptr<const T> old_value() const noexcept { return std::static_pointer_cast<const T>(value_); }

 private:
  friend class context_var;
  token(std::uint64_t key, detail::context_value v) noexcept : key_(key), value_(std::move(v)) {}

  std::uint64_t key_;
  std::uint64_t context_ = 0;  // 0: used up
  detail::context_value value_;
};

template <class T>
std::shared_ptr<const T> context::get_if(const context_var<T>& variable) const noexcept {
  return std::static_pointer_cast<const T>(detail::find_variable(*this, variable.key_));
}

}  // namespace greenlets

#endif
