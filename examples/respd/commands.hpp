// SPDX-License-Identifier: MIT
// respd: the commands.
#ifndef RESPD_COMMANDS_HPP
#define RESPD_COMMANDS_HPP

#include "protocol.hpp"
#include "store.hpp"

#include <cstddef>
#include <string_view>
#include <unordered_map>

namespace respd {

class session;

/// A request that is being answered. No command waits: the store, which all connections share, is never seen half changed.
struct call {
  store& data;
  const request& words;
  reply& answer;
  session& from;
  std::string_view name = {};  // of the command, in small letters
};

struct command {
  std::string_view name;
  int words;  // with the name; -2: two at least
  void (*run)(call&);
};

/// Commands by name.
class commands {
 public:
  template <std::size_t N>
  void add(const command (&some)[N]) {
    for (const command& each : some) all_.emplace(each.name, &each);
  }
  /// Null when there is none. Capitals do not matter.
  const command* find(std::string_view name) const;
  const std::unordered_map<std::string_view, const command*>& all() const { return all_; }

 private:
  std::unordered_map<std::string_view, const command*> all_;
};

/// Those on keys and values. The others know connections.
void add_data_commands(commands& to);

/// Does what is asked, or answers why not.
void execute(const commands& known, call& c);

/// Whether a name fits a pattern of "*", "?", "[a-z]", "[^a]" and "\".
bool matches(std::string_view pattern, std::string_view text);

/// The number that a word is. Throws: refused.
long long number(std::string_view word);

}  // namespace respd

#endif
