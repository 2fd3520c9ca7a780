// SPDX-License-Identifier: MIT
// Every place at which a greenlet waits in the hub, for t/hub_walk, which walks them all.
#ifndef T_HUB_POINTS_HPP
#define T_HUB_POINTS_HPP

#include <functional>
#include <string>
#include <vector>

namespace testing {

// Something to wait for. What both functions refer to lives as long as one of them does.
struct scene {
  std::function<bool()> wait;     // the call; whether it got what it was for
  std::function<void()> satisfy;  // the others' part, in the main greenlet: one who waits, or comes next, gets it
  std::function<bool()> begun = [] { return true; };  // whether what another thread has to begin has been
};

enum traits : unsigned {
  none = 0,
  alone = 1,    // for a second greenlet the call is an error(already_waiting)
  held = 2,     // what is thrown in comes out when the call is satisfied
  unsatisfied = 4,  // the first call never is; those after it are
};

struct point {
  std::string function;  // as the headers have it: "class.function", or "hub.function"
  std::string how;       // told from others of the same function
  unsigned traits;
  std::function<scene()> make;  // called in a main greenlet
};

const std::vector<point>& points_of_objects();  // between greenlets
const std::vector<point>& points_of_system();   // descriptors, files, programs, threads

}  // namespace testing

#endif
