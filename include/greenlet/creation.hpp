// SPDX-License-Identifier: MIT
// creation: having it recorded when and where greenlets are made.
#ifndef GREENLET_CREATION_HPP
#define GREENLET_CREATION_HPP

#include <greenlet/detail/api.hpp>

#include <cstddef>

namespace greenlets {

/// From now on, or no longer, when and where each greenlet is made is recorded, for snapshots (<greenlet/snapshot.hpp>):
/// its age, and the functions that made it, the innermost `most_frames` of them, at most 128; 0: only when. That costs a
/// clock, some memory and, with frames, some microseconds a greenlet; nothing while off. The calling thread begins at once;
/// others follow after at most 256 greenlets that they make. For which there is no memory it stays unknown.
///
/// With a collector (<greenlet/gc.hpp>) the age is always known, this has no effect, and gc::options::note_creation says
/// whether the functions are.
/// Switches: no. Thread: any. Throws: nothing.
GREENLET_API void record_creation(bool on, std::size_t most_frames = 16) noexcept;

}  // namespace greenlets

#endif
