// SPDX-License-Identifier: MIT
// respd: the commands on keys and values. What cannot be done throws its error reply.
#include "commands.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <limits>
#include <new>
#include <string>
#include <utility>
#include <variant>

namespace respd {
namespace {

using std::chrono::milliseconds;
using std::string_view;

constexpr std::size_t longest_string = 512 * 1024 * 1024;
constexpr milliseconds longest_life = std::chrono::hours(24 * 366 * 100);

[[noreturn]] void syntax_error() { throw refused{"ERR syntax error"}; }

// A time from now on, in a unit of so many milliseconds.
clock::time_point from_now(call& c, long long count, long long unit) {
  if (count > longest_life.count() / unit)
    throw refused{"ERR invalid expire time in '" + std::string(c.name) + "' command"};
  return clock::now() + milliseconds(count * unit);
}


// -- Strings -------------------------------------------------------------------------------------

void get(call& c) { c.answer.bulk_or_nil(c.data.get<std::string>(c.words[1])); }

struct set_options {
  bool only_new = false, only_old = false, get = false, keep_end = false;
  clock::time_point end = clock::time_point::max();
};

set_options parse_set(call& c) {
  set_options o;
  bool timed = false;
  for (std::size_t n = 3; n < c.words.size(); ++n) {
    const string_view word = c.words[n];
    const bool seconds = same_word(word, "ex");
    if (seconds || same_word(word, "px")) {
      if (std::exchange(timed, true) || ++n == c.words.size()) syntax_error();
      const long long count = number(c.words[n]);
      if (count <= 0) throw refused{"ERR invalid expire time in 'set' command"};
      o.end = from_now(c, count, seconds ? 1000 : 1);
    } else if (same_word(word, "nx")) {
      o.only_new = true;
    } else if (same_word(word, "xx")) {
      o.only_old = true;
    } else if (same_word(word, "get")) {
      o.get = true;
    } else if (same_word(word, "keepttl")) {
      o.keep_end = true;
    } else {
      syntax_error();
    }
  }
  if ((o.only_new && o.only_old) || (o.keep_end && timed)) syntax_error();
  return o;
}

void put(store& data, string_view key, string_view value, clock::time_point end = clock::time_point::max()) {
  entry& e = data.find_or_make(key);
  data.assign(e, value);
  data.end_at(e, end);
}

void set(call& c) {
  if (c.words.size() == 3) {
    put(c.data, c.words[1], c.words[2]);
    return c.answer.status("OK");
  }
  const set_options o = parse_set(c);
  entry* e = c.data.find(c.words[1]);
  const bool stays = e ? o.only_new : o.only_old;
  if (o.get)
    c.answer.bulk_or_nil(e ? &store::as<std::string>(*e) : nullptr);
  else if (stays)
    c.answer.nil();
  else
    c.answer.status("OK");
  if (!stays) put(c.data, c.words[1], c.words[2], o.keep_end && e ? e->end : o.end);
}

void setnx(call& c) {
  const bool made = !c.data.find(c.words[1]);
  if (made) put(c.data, c.words[1], c.words[2]);
  c.answer.integer(made);
}

void getset(call& c) {
  get(c);
  put(c.data, c.words[1], c.words[2]);
}

void getdel(call& c) {
  get(c);
  c.data.erase(c.words[1]);
}

void append(call& c) {
  std::string& s = c.data.make<std::string>(c.words[1]);
  if (c.words[2].size() > longest_string - s.size()) throw refused{"ERR string exceeds maximum allowed size (512 MiB)"};
  s.append(c.words[2]);
  c.answer.integer(static_cast<long long>(s.size()));
}

void strlen(call& c) {
  const std::string* const s = c.data.get<std::string>(c.words[1]);
  c.answer.integer(s ? static_cast<long long>(s->size()) : 0);
}

void mget(call& c) {
  c.answer.array(c.words.size() - 1);
  for (std::size_t n = 1; n < c.words.size(); ++n) {
    entry* const e = c.data.find(c.words[n]);
    c.answer.bulk_or_nil(e ? std::get_if<std::string>(&e->value) : nullptr);
  }
}

void mset(call& c) {
  if (c.words.size() % 2 == 0) throw refused{"ERR wrong number of arguments for 'mset' command"};
  for (std::size_t n = 1; n < c.words.size(); n += 2) put(c.data, c.words[n], c.words[n + 1]);
  c.answer.status("OK");
}

void add(call& c, long long difference) {
  const std::string* const old = c.data.get<std::string>(c.words[1]);
  long long n = old ? number(*old) : 0;
  if (__builtin_add_overflow(n, difference, &n)) throw refused{"ERR increment or decrement would overflow"};
  char digits[24];
  char* const end = std::to_chars(digits, digits + sizeof digits, n).ptr;
  store::assign(c.data.find_or_make(c.words[1]), {digits, static_cast<std::size_t>(end - digits)});
  c.answer.integer(n);
}

void incr(call& c) { add(c, 1); }
void decr(call& c) { add(c, -1); }
void incrby(call& c) { add(c, number(c.words[2])); }
void decrby(call& c) {
  const long long n = number(c.words[2]);
  if (n == std::numeric_limits<long long>::min()) throw refused{"ERR decrement would overflow"};
  add(c, -n);
}


// -- Keys ----------------------------------------------------------------------------------------

template <class F>
void count_keys(call& c, F f) {
  long long count = 0;
  for (std::size_t n = 1; n < c.words.size(); ++n) count += f(c.words[n]);
  c.answer.integer(count);
}

void del(call& c) {
  count_keys(c, [&](string_view key) { return c.data.erase(key); });
}
void exists(call& c) {
  count_keys(c, [&](string_view key) { return c.data.find(key) != nullptr; });
}

void expire_in(call& c, long long unit) {
  if (c.words.size() > 3) throw refused{"ERR Unsupported option " + std::string(c.words[3])};
  const long long count = number(c.words[2]);
  const clock::time_point end = from_now(c, std::max(count, 0LL), unit);
  entry* const e = c.data.find(c.words[1]);
  if (e && count <= 0)
    c.data.erase(*e);
  else if (e)
    c.data.end_at(*e, end);
  c.answer.integer(e != nullptr);
}
void expire(call& c) { expire_in(c, 1000); }
void pexpire(call& c) { expire_in(c, 1); }

void time_left(call& c, long long unit) {
  entry* const e = c.data.find(c.words[1]);
  if (!e) return c.answer.integer(-2);
  if (e->end == clock::time_point::max()) return c.answer.integer(-1);
  const long long left = std::chrono::ceil<milliseconds>(e->end - clock::now()).count();
  c.answer.integer((left + unit / 2) / unit);
}
void ttl(call& c) { time_left(c, 1000); }
void pttl(call& c) { time_left(c, 1); }

void persist(call& c) {
  entry* const e = c.data.find(c.words[1]);
  c.answer.integer(e && c.data.persist(*e));
}

template <class F>
void list_keys(call& c, string_view pattern, F wanted) {
  const auto now = clock::now();
  std::vector<string_view> found;
  c.data.all().for_each([&](const entry& each) {
    if (each.end > now && matches(pattern, each.key()) && wanted(each)) found.push_back(each.key());
  });
  c.answer.array(found.size());
  for (const string_view key : found) c.answer.bulk(key);
}

void keys(call& c) {
  list_keys(c, c.words[1], [](const entry&) { return true; });
}

constexpr string_view type_names[] = {"string", "list", "set"};

void type(call& c) {
  entry* const e = c.data.find(c.words[1]);
  c.answer.status(e ? type_names[e->value.index()] : "none");
}

// All at once, which is what the promises of SCAN allow: COUNT is a hint, and a cursor of 0 the end.
void scan(call& c) {
  if (number(c.words[1]) != 0) throw refused{"ERR invalid cursor"};
  string_view pattern = "*", type;
  for (std::size_t n = 2; n < c.words.size(); n += 2) {
    if (n + 1 == c.words.size()) syntax_error();
    if (same_word(c.words[n], "match"))
      pattern = c.words[n + 1];
    else if (same_word(c.words[n], "type"))
      type = c.words[n + 1];
    else if (!same_word(c.words[n], "count") || number(c.words[n + 1]) < 1)
      syntax_error();
  }
  c.answer.array(2);
  c.answer.bulk("0");
  list_keys(c, pattern, [type](const entry& e) { return type.empty() || same_word(type, type_names[e.value.index()]); });
}

void dbsize(call& c) { c.answer.integer(static_cast<long long>(c.data.all().size())); }

void flush(call& c) {
  if (c.words.size() > 2 || (c.words.size() == 2 && !same_word(c.words[1], "sync") && !same_word(c.words[1], "async")))
    syntax_error();
  c.data.clear();
  c.answer.status("OK");
}


// -- Lists ---------------------------------------------------------------------------------------

template <bool left>
void push(call& c) {
  list& l = c.data.make<list>(c.words[1]);
  for (std::size_t n = 2; n < c.words.size(); ++n)
    if constexpr (left)
      l.emplace_front(c.words[n]);
    else
      l.emplace_back(c.words[n]);
  c.answer.integer(static_cast<long long>(l.size()));
}

// How many LPOP and its like are to take: not said, one, which is not in an array.
std::size_t how_many(call& c) {
  if (c.words.size() < 3) return 1;
  const long long n = number(c.words[2]);
  if (c.words.size() > 3) syntax_error();
  if (n < 0) throw refused{"ERR value is out of range, must be positive"};
  return static_cast<std::size_t>(n);
}

template <bool left>
void pop(call& c) {
  std::size_t count = how_many(c);
  const bool one = c.words.size() == 2;
  list* const l = c.data.get<list>(c.words[1]);
  if (!l || l->empty()) return one ? c.answer.nil() : c.answer.nil_array();
  count = std::min(count, l->size());
  if (!one) c.answer.array(count);
  for (std::size_t n = 0; n < count; ++n) c.answer.bulk(left ? (*l)[n] : (*l)[l->size() - 1 - n]);
  // All have been answered, and nothing has been refused.
  if (count == l->size())
    c.data.erase(c.words[1]);
  else if (left)
    l->erase(l->begin(), l->begin() + static_cast<std::ptrdiff_t>(count));
  else
    l->erase(l->end() - static_cast<std::ptrdiff_t>(count), l->end());
}

void llen(call& c) {
  const list* const l = c.data.get<list>(c.words[1]);
  c.answer.integer(l ? static_cast<long long>(l->size()) : 0);
}

void lrange(call& c) {
  long long from = number(c.words[2]), to = number(c.words[3]);
  const list* const l = c.data.get<list>(c.words[1]);
  const long long size = l ? static_cast<long long>(l->size()) : 0;
  if (from < 0) from = std::max(from + size, 0LL);
  to = to < 0 ? to + size : std::min(to, size - 1);
  if (from > to) return c.answer.array(0);
  c.answer.array(static_cast<std::size_t>(to - from + 1));
  for (auto at = l->begin() + from; from <= to; ++from) c.answer.bulk(*at++);
}


// -- Sets ----------------------------------------------------------------------------------------

void sadd(call& c) {
  respd::set& s = c.data.make<respd::set>(c.words[1]);
  long long added = 0;
  for (std::size_t n = 2; n < c.words.size(); ++n) added += s.emplace(c.words[n]).second;
  c.answer.integer(added);
}

void srem(call& c) {
  respd::set* const s = c.data.get<respd::set>(c.words[1]);
  long long removed = 0;
  for (std::size_t n = 2; s && n < c.words.size(); ++n) removed += static_cast<long long>(s->erase(std::string(c.words[n])));
  if (s && s->empty()) c.data.erase(c.words[1]);
  c.answer.integer(removed);
}

// Any of them: in which order they stand nobody outside can know.
void spop(call& c) {
  std::size_t count = how_many(c);
  const bool one = c.words.size() == 2;
  respd::set* const s = c.data.get<respd::set>(c.words[1]);
  if (!s || s->empty()) return one ? c.answer.nil() : c.answer.array(0);
  count = std::min(count, s->size());
  if (!one) c.answer.array(count);
  auto end = s->begin();
  for (std::size_t n = 0; n < count; ++n) c.answer.bulk(*end++);
  s->erase(s->begin(), end);
  if (s->empty()) c.data.erase(c.words[1]);
}

void scard(call& c) {
  const respd::set* const s = c.data.get<respd::set>(c.words[1]);
  c.answer.integer(s ? static_cast<long long>(s->size()) : 0);
}

void sismember(call& c) {
  const respd::set* const s = c.data.get<respd::set>(c.words[1]);
  c.answer.integer(s && s->count(std::string(c.words[2])));
}

void smembers(call& c) {
  const respd::set* const s = c.data.get<respd::set>(c.words[1]);
  c.answer.array(s ? s->size() : 0);
  if (!s) return;
  for (const std::string& each : *s) c.answer.bulk(each);
}

constexpr command data_commands[] = {
    {"append", 3, append},
    {"dbsize", 1, dbsize},
    {"decr", 2, decr},
    {"decrby", 3, decrby},
    {"del", -2, del},
    {"exists", -2, exists},
    {"expire", -3, expire},
    {"flushall", -1, flush},
    {"flushdb", -1, flush},
    {"get", 2, get},
    {"getdel", 2, getdel},
    {"getset", 3, getset},
    {"incr", 2, incr},
    {"incrby", 3, incrby},
    {"keys", 2, keys},
    {"llen", 2, llen},
    {"lpop", -2, pop<true>},
    {"lpush", -3, push<true>},
    {"lrange", 4, lrange},
    {"mget", -2, mget},
    {"mset", -3, mset},
    {"persist", 2, persist},
    {"pexpire", -3, pexpire},
    {"pttl", 2, pttl},
    {"rpop", -2, pop<false>},
    {"rpush", -3, push<false>},
    {"sadd", -3, sadd},
    {"scan", -2, scan},
    {"scard", 2, scard},
    {"set", -3, set},
    {"setnx", 3, setnx},
    {"sismember", 3, sismember},
    {"smembers", 2, smembers},
    {"spop", -2, spop},
    {"srem", -3, srem},
    {"strlen", 2, strlen},
    {"ttl", 2, ttl},
    {"type", 2, type},
    {"unlink", -2, del},
};

// -- Finding and running them ----------------------------------------------------------------------

std::string unknown(const request& words) {
  std::string text = "ERR unknown command '" + std::string(words[0].substr(0, 128)) + "', with args beginning with: ";
  const std::size_t begin = text.size();
  for (std::size_t n = 1; n < words.size() && text.size() - begin < 128; ++n)
    text.append("'").append(words[n].substr(0, 128 - (text.size() - begin))).append("' ");
  return text;
}

// Whether a character fits what stands at `p`; then `p` is behind that.
bool fits(string_view pattern, std::size_t& p, char c) {
  if (p >= pattern.size()) return false;
  std::size_t at = p;
  bool good = false;
  if (pattern[at] == '[') {
    const bool others = pattern.substr(at + 1, 1) == "^";
    for (at += 1 + others; at < pattern.size() && pattern[at] != ']'; ++at) {
      if (pattern[at] == '\\' && at + 1 < pattern.size()) ++at;
      char from = pattern[at], to = from;
      if (at + 2 < pattern.size() && pattern[at + 1] == '-') to = pattern[at += 2];
      if (from > to) std::swap(from, to);
      good = good || (from <= c && c <= to);
    }
    good = good != others;
  } else if (pattern[at] == '?') {
    good = true;
  } else {
    if (pattern[at] == '\\' && at + 1 < pattern.size()) ++at;
    good = pattern[at] == c;
  }
  if (good) p = std::min(at + 1, pattern.size());
  return good;
}

}  // namespace

void add_data_commands(commands& to) { to.add(data_commands); }

const command* commands::find(string_view name) const {
  char small[32];
  if (name.size() > sizeof small) return nullptr;
  std::transform(name.begin(), name.end(), small, lower);
  const auto at = all_.find({small, name.size()});
  return at == all_.end() ? nullptr : at->second;
}

long long number(string_view word) {
  long long n = 0;
  if (!parse_number(word, n)) throw refused{"ERR value is not an integer or out of range"};
  return n;
}

bool matches(string_view pattern, string_view text) {
  // Where to go on when what follows the last "*" does not fit: that then takes one character more.
  std::size_t star = pattern.npos, taken = 0;
  for (std::size_t p = 0, t = 0; p < pattern.size() || t < text.size();) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = ++p;
      taken = t;
    } else if (t < text.size() && fits(pattern, p, text[t])) {
      ++t;
    } else if (star != pattern.npos && taken < text.size()) {
      p = star;
      t = ++taken;
    } else {
      return false;
    }
  }
  return true;
}

void execute(const commands& known, call& c) {
  const command* const which = known.find(c.words[0]);
  if (!which) return c.answer.error(unknown(c.words));
  const int words = static_cast<int>(c.words.size());
  if (which->words >= 0 ? words != which->words : words < -which->words)
    return c.answer.error("ERR wrong number of arguments for '" + std::string(which->name) + "' command");
  c.name = which->name;
  const std::size_t begin = c.answer.mark();
  try {
    which->run(c);
  } catch (const refused& e) {
    c.answer.back_to(begin);
    c.answer.error(e.why);
  } catch (const std::bad_alloc&) {
    c.answer.back_to(begin);
    c.answer.error("ERR out of memory");
  }
}

}  // namespace respd
