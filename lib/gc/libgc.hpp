// SPDX-License-Identifier: MIT
// Boehm GC's headers, as this library includes them everywhere: with threads, and without its own pthread_create.
#ifndef LIB_GC_LIBGC_HPP
#define LIB_GC_LIBGC_HPP

#ifndef GC_THREADS
#define GC_THREADS 1
#endif
#define GC_NO_THREAD_REDIRECTS 1
#include <gc/gc.h>
#include <gc/gc_mark.h>

namespace greenlets::gc::detail {

// Calls `f` while no collection can begin and no other thread is in here.
template <class F>
void with_lock(F&& f) noexcept {
  GC_call_with_alloc_lock(
      [](void* data) -> void* {
        (*static_cast<F*>(data))();
        return nullptr;
      },
      &f);
}

}  // namespace greenlets::gc::detail

#endif
