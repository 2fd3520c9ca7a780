// SPDX-License-Identifier: MIT
// Folding.
#include "tree.hpp"

#include "people.hpp"

#include <algorithm>
#include <cctype>
#include <map>
#include <tuple>
#include <unordered_map>
#include <utility>

namespace greenlets::detail {
namespace {

using index = std::size_t;
constexpr index nobody = SIZE_MAX;

// A thread's greenlets, by their places in it. What was read of different moments may say that somebody is his own
// ancestor: that is cut.
class forest {
 public:
  explicit forest(const thread_snapshot& t) : all_(t.greenlets), children_(all_.size()), parent_(all_.size(), nobody) {
    std::unordered_map<std::uint64_t, index> by_id;
    for (index i = 0; i < all_.size(); ++i) by_id[all_[i].id] = i;
    for (index i = 0; i < all_.size(); ++i) {
      const auto p = by_id.find(all_[i].parent);
      if (p != by_id.end() && p->second != i) parent_[i] = p->second;
    }
    for (index i = 0; i < all_.size(); ++i)
      if (parent_[i] != nobody) children_[parent_[i]].push_back(i);
    std::vector<bool> seen(all_.size(), false);
    for (index i = 0; i < all_.size(); ++i)
      if (parent_[i] == nobody) take(i, seen);
    for (index i = 0; i < all_.size(); ++i)
      if (!seen[i]) {
        auto& others = children_[parent_[i]];
        others.erase(std::remove(others.begin(), others.end(), i), others.end());
        take(i, seen);
      }
    classify();
  }

  const std::vector<index>& roots() const noexcept { return roots_; }
  const std::vector<index>& children(index i) const noexcept { return children_[i]; }
  std::size_t class_of(index i) const noexcept { return class_[i]; }
  const greenlet_snapshot& operator[](index i) const noexcept { return all_[i]; }

 private:
  void take(index root, std::vector<bool>& seen) {
    roots_.push_back(root);
    seen[root] = true;
    order_.push_back(root);
    for (index next = order_.size() - 1; next < order_.size(); ++next)
      for (const index child : children_[order_[next]])
        if (!seen[child]) {
          seen[child] = true;
          order_.push_back(child);
        }
  }

  // Children before their parents.
  void classify() {
    using stack = std::vector<void*>;
    std::map<std::pair<stack, stack>, std::size_t> stacks;
    std::map<std::string, std::size_t> waits;
    std::map<std::tuple<greenlet_state, bool, bool, std::size_t, std::size_t, std::vector<std::size_t>>, std::size_t> classes;
    const auto number = [](auto& map, auto&& key) { return map.emplace(std::forward<decltype(key)>(key), map.size()).first->second; };
    class_.resize(all_.size());
    for (auto i = order_.rbegin(); i != order_.rend(); ++i) {
      const greenlet_snapshot& g = all_[*i];
      std::vector<std::size_t> below;
      for (const index child : children_[*i]) below.push_back(class_[child]);
      std::sort(below.begin(), below.end());
      class_[*i] = number(classes, std::make_tuple(g.state, g.is_main, g.is_hub, number(waits, kind_of_wait(g.waits_for)),
                                                   number(stacks, std::make_pair(g.addresses, g.created_at)), std::move(below)));
    }
  }

  const std::vector<greenlet_snapshot>& all_;
  std::vector<std::vector<index>> children_;
  std::vector<index> parent_;
  std::vector<index> roots_;
  std::vector<index> order_;
  std::vector<std::size_t> class_;
};

// Of one parent, or of several that are one.
std::vector<std::vector<index>> by_class(const forest& f, std::vector<index> siblings) {
  std::sort(siblings.begin(), siblings.end());
  std::vector<std::vector<index>> groups;
  std::unordered_map<std::size_t, std::size_t> known;
  for (const index i : siblings) {
    const auto [place, fresh] = known.emplace(f.class_of(i), groups.size());
    if (fresh) groups.emplace_back();
    groups[place->second].push_back(i);
  }
  return groups;
}

template <class F>
std::string from_to(const fold& f, F&& amount, std::string (*text)(decltype(amount(*f.members[0])))) {
  auto least = amount(*f.members[0]);
  auto most = least;
  for (const greenlet_snapshot* g : f.members) {
    least = std::min(least, amount(*g));
    most = std::max(most, amount(*g));
  }
  const std::string low = text(least);
  const std::string high = text(most);
  return low == high ? low : low + " to " + high;
}

template <class F>
bool all_of(const fold& f, F&& has) {
  return std::all_of(f.members.begin(), f.members.end(), [&](const greenlet_snapshot* g) { return has(*g); });
}

}  // namespace

std::vector<fold> folded(const thread_snapshot& t) {
  const forest all(t);
  struct entry {
    std::vector<index> members;
    std::size_t parent;
    std::size_t depth;
  };
  std::vector<fold> found;
  std::vector<entry> waiting;
  const auto push = [&](std::vector<index> siblings, std::size_t parent, std::size_t depth) {
    auto groups = by_class(all, std::move(siblings));
    for (auto g = groups.rbegin(); g != groups.rend(); ++g) waiting.push_back({std::move(*g), parent, depth});
  };
  push(all.roots(), nobody, 0);
  while (!waiting.empty()) {
    const entry e = std::move(waiting.back());
    waiting.pop_back();
    const std::size_t here = found.size();
    fold f;
    f.depth = e.depth;
    f.parent = e.parent == nobody ? here : e.parent;
    std::vector<index> below;
    for (const index i : e.members) {
      f.members.push_back(&all[i]);
      below.insert(below.end(), all.children(i).begin(), all.children(i).end());
    }
    if (e.parent != nobody) found[e.parent].children.push_back(here);
    found.push_back(std::move(f));
    push(std::move(below), here, e.depth + 1);
  }
  return found;
}

std::string kind_of_wait(const std::string& waits_for) {
  std::string kind;
  for (std::size_t i = 0; i < waits_for.size(); ++i) {
    if (!std::isdigit(static_cast<unsigned char>(waits_for[i]))) {
      kind += waits_for[i];
      continue;
    }
    kind += '#';
    while (i + 1 < waits_for.size() && (std::isxdigit(static_cast<unsigned char>(waits_for[i + 1])) || waits_for[i + 1] == 'x' ||
                                        waits_for[i + 1] == '.'))
      ++i;
  }
  return kind;
}

std::string who_of(const fold& f) {
  const greenlet_snapshot& first = *f.members[0];
  const std::string name = first.name.empty() ? "" : " " + quoted(first.name);
  const char* const role = first.is_main ? " (main)" : first.is_hub ? " (hub)" : "";
  if (f.members.size() == 1) return "greenlet " + std::to_string(first.id) + name + role;
  constexpr std::size_t most = 3;
  std::string text = std::to_string(f.members.size()) + " greenlets (";
  for (std::size_t i = 0; i < std::min(most, f.members.size()); ++i) {
    if (i) text += ", ";
    text += std::to_string(f.members[i]->id);
    if (!f.members[i]->name.empty()) text += " " + quoted(f.members[i]->name);
  }
  return text + (f.members.size() > most ? ", ...)" : ")") + role;
}

std::vector<std::string> facts_of(const fold& f) {
  std::vector<std::string> facts;
  const greenlet_snapshot& first = *f.members[0];
  const bool same_wait = all_of(f, [&](const greenlet_snapshot& g) { return g.waits_for == first.waits_for; });
  if (!first.waits_for.empty()) facts.push_back("waits for " + first.waits_for + (same_wait ? "" : ", and others like it"));
  if (all_of(f, [](const greenlet_snapshot& g) { return g.age.has_value(); }))
    facts.push_back("age " + from_to(f, [](const greenlet_snapshot& g) { return *g.age; },
                                     [](std::chrono::nanoseconds t) { return text_of(t); }));
  if (all_of(f, [](const greenlet_snapshot& g) { return g.switches.has_value(); }))
    facts.push_back("gone to " + from_to(f, [](const greenlet_snapshot& g) { return *g.switches; },
                                         [](std::uint64_t n) { return std::to_string(n); }) + " times");
  const auto bytes = [&](const char* before, auto&& amount, const char* after) {
    if (all_of(f, [&](const greenlet_snapshot& g) { return amount(g) != 0; }))
      facts.push_back(before + from_to(f, amount, [](std::size_t n) { return text_of_bytes(n); }) + after);
  };
  bytes("stack ", [](const greenlet_snapshot& g) { return g.stack.used; }, "");
  bytes("", [](const greenlet_snapshot& g) { return g.stack.committed; }, " in memory");
  bytes("at most ", [](const greenlet_snapshot& g) { return g.high_water; }, "");
  return facts;
}

}  // namespace greenlets::detail
