// SPDX-License-Identifier: MIT
// What looks at frames opens descriptors at its first call, and keeps them: opened here, before any case begins.
#ifndef T_WARM_FRAMES_HPP
#define T_WARM_FRAMES_HPP

#include "suspension.hpp"

#include <greenlet/backtrace.hpp>
#ifdef T_HUB
#include <greenlet/hub.hpp>
#endif

#include <cstddef>
#include <link.h>

namespace testing {

// The descriptors that the first call opens and that stay are none that a case has left behind; nor are those of files of
// debugging information that belong to objects in which a stack that changes while it is read may seem to be.
inline const bool warm_frames = [] {
  greenlets::frames(greenlets::current());
  dl_iterate_phdr(
      [](dl_phdr_info* object, std::size_t, void*) {
        for (int i = 0; i < object->dlpi_phnum; ++i) {
          const auto& part = object->dlpi_phdr[i];
          void* const inside = reinterpret_cast<char*>(object->dlpi_addr) + part.p_vaddr + 1;
          if (part.p_type == PT_LOAD && part.p_flags & PF_X) greenlets::detail::frames_source()->describe(&inside, 1);
        }
        return 0;
      },
      nullptr);
  return true;
}();
#ifdef T_HUB
inline const bool warm_hub = (greenlets::hub::this_hub(), greenlets::hub::shutdown(), true);
#endif

}  // namespace testing

#endif
