// SPDX-License-Identifier: MIT
// Where PostgreSQL is: libpq's settings, with the names looked up by the hub and not by libpq, which would block. Not for
// users.
#ifndef GREENLET_DETAIL_LIBPQ_SETTINGS_HPP
#define GREENLET_DETAIL_LIBPQ_SETTINGS_HPP

#include <greenlet/hub/libpq_result.hpp>
#include <greenlet/hub/names.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <netdb.h>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace greenlets::hub::libpq::detail {

inline std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> all(1);
  for (const char c : list)
    if (c == ',')
      all.emplace_back();
    else
      all.back() += c;
  return all;
}

inline std::string number_of(const address& a) {
  char text[NI_MAXHOST];
  return getnameinfo(a.data(), a.size(), text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0 ? text : "";
}

// What PQconnectStart() is given: the string's settings, with addresses beside the hosts.
class settings {
 public:
  explicit settings(const std::string& conninfo) {
    check_text(conninfo);
    char* why = nullptr;
    const owned<PQconninfoOption> given(PQconninfoParse(conninfo.c_str(), &why));
    const owned<char> message(why);
    if (!given) throw std::invalid_argument("libpq: " + line_of(why));
    for (const PQconninfoOption* o = given.get(); o->keyword; ++o)
      if (o->val) all_[o->keyword] = o->val;
    if (all_.count("service")) return;  // which is the default for all else
    const owned<PQconninfoOption> otherwise(PQconndefaults());  // the environment's
    for (const PQconninfoOption* o = otherwise.get(); o && o->keyword; ++o)
      if (const std::string k = o->keyword; k == "host" || k == "hostaddr" || k == "port")
        if (o->val) all_.emplace(k, o->val);
  }

  void resolve_names(deadline until) {
    if (all_.count("service")) return;
    const auto hosts = split(all_["host"]), numbers = split(all_["hostaddr"]), ports = split(all_["port"]);
    const std::size_t count = std::max(hosts.size(), numbers.size());
    // What does not fit together libpq will say.
    if ((numbers.size() != 1 && hosts.size() != 1 && numbers.size() != hosts.size()) ||
        (ports.size() != 1 && ports.size() != count) || (numbers.size() == 1 && !numbers[0].empty() && count > 1))
      return;
    std::string host, number, port, why;
    const auto add = [&](const std::string& h, const std::string& n, const std::string& p) {
      const char* const comma = empty_ ? "" : ",";
      host += comma + h, number += comma + n, port += comma + p;
      empty_ = false;
    };
    for (std::size_t n = 0; n < count; ++n) {
      const std::string h = n < hosts.size() ? hosts[n] : "", a = n < numbers.size() ? numbers[n] : "";
      const std::string& p = ports[ports.size() == 1 ? 0 : n];
      if (!a.empty() || h.empty() || h[0] == '/' || h[0] == '@') {
        add(h, a, p);
        continue;
      }
      const resolution r = resolve(h, std::uint16_t{0}, until);
      if (r.timed_out()) throw timed_out("libpq: the deadline has passed while \"" + h + "\" was looked up");
      for (const address& found : r.addresses) add(h, number_of(found), p);
      if (!r) why += "libpq: host \"" + h + "\": " + r.error.message();
    }
    if (empty_) throw connection_error(why);
    all_["host"] = host, all_["hostaddr"] = number, all_["port"] = port;
  }

  owned<PGconn> start() const {
    std::vector<const char*> keywords, values;
    for (const auto& [k, v] : all_)
      if (!v.empty()) keywords.push_back(k.c_str()), values.push_back(v.c_str());
    keywords.push_back(nullptr), values.push_back(nullptr);
    owned<PGconn> c(PQconnectStartParams(keywords.data(), values.data(), 0));
    if (!c) throw std::bad_alloc();
    return c;
  }

 private:
  std::map<std::string, std::string> all_;
  bool empty_ = true;
};

}  // namespace greenlets::hub::libpq::detail

#endif
