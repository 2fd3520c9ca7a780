// SPDX-License-Identifier: MIT
// What a process that reexec() has started says on the socket that it got: one byte, when it is ready. Before it has
// become the new program, another one and the error that kept it from that.
#ifndef LIB_HUB_READY_HPP
#define LIB_HUB_READY_HPP

namespace greenlets::hub::detail {

// "fd:pid"; of that process only, since what it starts may inherit the variable and not the descriptor.
constexpr const char* ready_variable = "GREENLET_READY";
constexpr char ready_byte = 'R', failed_byte = 'E';

}  // namespace greenlets::hub::detail

#endif
