// SPDX-License-Identifier: MIT
// Step 4: limits.
//
// What belongs together ends together; what takes too long is thrown out, wherever it waits, and its destructors run;
// what blocks or computes goes to another thread.
#include <greenlet/hub.hpp>

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <stdexcept>
#include <vector>

namespace hub = greenlets::hub;
using std::chrono::milliseconds;
using std::chrono::seconds;

struct order {
  const char* dish;
  ~order() { std::printf("%s: off the table\n", dish); }
};

int main() {
  // A timeout of all that happens in a scope.
  const bool in_time = hub::with_timeout(milliseconds(10), [] {
    const order soup{"soup"};
    hub::sleep_for(seconds(60));
  });
  std::printf("in time: %d\n", in_time);

  // A group: the first failure cancels the others, and is thrown by wait().
  try {
    hub::group dinner;
    dinner.spawn([] {
      const order fish{"fish"};
      hub::sleep_for(seconds(60));
    });
    dinner.spawn([] {
      hub::sleep_for(milliseconds(1));
      throw std::runtime_error("the kitchen is on fire");
    });
    dinner.wait();
  } catch (const std::runtime_error& e) {
    std::printf("%s\n", e.what());
  }

  // At most two at once.
  hub::pool cooks(2);
  int at_work = 0, most = 0;
  for (int n = 0; n < 6; ++n)
    cooks.spawn([&] {
      most = std::max(most, ++at_work);
      hub::sleep_for(milliseconds(1));
      --at_work;
    });
  cooks.join();
  std::printf("at most %d cooks\n", most);

  // On another thread, while this one's greenlets go on.
  const long sum = hub::offload([] {
    std::vector<long> all(1000000);
    std::iota(all.begin(), all.end(), 1);
    return std::accumulate(all.begin(), all.end(), 0L);
  });
  std::printf("%ld\n", sum);
}
