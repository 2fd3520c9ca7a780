// SPDX-License-Identifier: MIT
// tree: a thread's greenlets by their parents, those that do the same folded into one.
#ifndef LIB_BACKTRACE_TREE_HPP
#define LIB_BACKTRACE_TREE_HPP

#include <greenlet/snapshot.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace greenlets::detail {

// Greenlets that differ in their numbers, names and amounts only, and so do their children.
struct fold {
  std::vector<const greenlet_snapshot*> members;  // by id
  std::vector<std::size_t> children;              // in the tree
  std::size_t depth = 0;
  std::size_t parent = 0;                         // in the tree; that of a root is itself
};

// The folds of a thread, each parent before its children and directly followed by all that are below it.
std::vector<fold> folded(const thread_snapshot& t);

// What of a text tells one kind of waiting from another: without numbers.
std::string kind_of_wait(const std::string& waits_for);

// For people: `greenlet 7 "client 3"`; `250 greenlets (7, 8, 9, ...)`.
std::string who_of(const fold& f);
// What is left of it after its state: what it waits for, ages, switches, stacks.
std::vector<std::string> facts_of(const fold& f);

}  // namespace greenlets::detail

#endif
