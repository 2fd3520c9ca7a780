// SPDX-License-Identifier: MIT
// The status page: each thread says what it does, in its own hub, and the one that was asked puts it together.
#include "service.hpp"

#ifdef WITH_FRAMES
#include <greenlet/backtrace.hpp>

#include <sstream>
#include <string>
#endif
#include <greenlet/counts.hpp>

#include <cstdio>
#include <cstring>
#include <unistd.h>
#include <utility>

namespace httpd {

namespace {

// Writes JSON, a member or an element after the other: commas come by themselves.
class json {
 public:
  json& open(char bracket) {
    comma();
    text_ += bracket;
    return *this;
  }
  json& close(char bracket) {
    text_ += bracket;
    return *this;
  }
  json& name(std::string_view n) {
    string(n);
    text_ += ':';
    return *this;
  }
  json& number(std::uint64_t n) {
    comma();
    text_ += std::to_string(n);
    return *this;
  }
  json& number(hub::clock::duration d) {
    char seconds_text[32];
    std::snprintf(seconds_text, sizeof seconds_text, "%.3f", std::chrono::duration<double>(d).count());
    comma();
    text_ += seconds_text;
    return *this;
  }
  json& string(std::string_view s) {
    comma();
    text_ += '"';
    for (const char c : s) {
      // What is not ASCII may be anything, and is shown byte for byte.
      char escaped[8] = {'\\', c};
      if (c < ' ' || c > '~') std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(c) & 0xff);
      if (c >= ' ' && c <= '~' && c != '"' && c != '\\')
        text_ += c;
      else
        text_ += escaped;
    }
    text_ += '"';
    return *this;
  }
  json& raw(std::string_view s) {
    comma();
    text_ += s;
    return *this;
  }
  std::string text() && { return std::move(text_) + "\n"; }
  const std::string& text() const& { return text_; }

 private:
  void comma() {
    if (!text_.empty() && std::strchr("[{:", text_.back()) == nullptr) text_ += ',';
  }
  std::string text_;
};

constexpr std::size_t most_with_frames = 100;

// What a greenlet waits in, innermost first. Reads the program's debugging information: on the hub's pool. Another greenlet
// waits for that, so that this one is suspended by then as well, and is shown.
[[maybe_unused]] void write_where(json& out, const greenlets::greenlet& g) {
#ifdef WITH_FRAMES
  std::ostringstream all;
  hub::run([&] { hub::offload([&] { greenlets::write_frames(all, greenlets::frames(g)); }); });
  out.name("frames").open('[');
  std::istringstream lines(all.str());
  for (std::string address, line; lines >> address && std::getline(lines >> std::ws, line);) out.string(line);
  out.close(']');
#else
  static_cast<void>(out);
  static_cast<void>(g);
#endif
}

}  // namespace

// What one thread says.
struct part {
  std::uint64_t active = 0, accepted = 0;
  counters count;
  std::string text;

  static part of_this_thread(bool frames);
  static void write_greenlet(json& out, const activity& a, const greenlets::greenlet& g, hub::clock::time_point now);
};

void part::write_greenlet(json& out, const activity& a, const greenlets::greenlet& g, hub::clock::time_point now) {
  out.name("id").number(g.id()).name("name").string(a.name).name("state").string(a.state);
  out.name("seconds").number(now - a.since).name("request").string(a.request);
  out.name("requests").number(a.requests).name("bytes").number(a.bytes).name("stack_used").number(g.stack().used);
}

part part::of_this_thread(bool frames) {
  part p;
  service* const s = service::here();
  if (!s) return p;  // it is just ending
  const hub::server_statistics served = s->server_.statistics();
  const hub::hub_statistics turned = hub::statistics();
  p.active = served.active;
  p.accepted = served.accepted;
  p.count = s->count;

  json out;
  out.open('{').name("thread").number(s->index);
  out.name("connections").open('{').name("active").number(served.active).name("accepted").number(served.accepted);
  out.name("failed").number(served.failed).name("limited").number(served.limited);
  out.name("shortages").number(served.shortages).close('}');
  out.name("hub").open('{').name("switches").number(turned.switches).name("turns").number(turned.turns);
  out.name("waiting").number(turned.waiting).close('}');
  // First all as they are now; then the frames, for which others run meanwhile.
  const auto now = hub::clock::now();
  std::vector<std::pair<std::string, greenlets::greenlet>> all;
  for (const activity& each : s->activities_) {
    json one;
    const greenlets::greenlet g = each.who.lock();
    write_greenlet(one.open('{'), each, g, now);
    all.emplace_back(one.text(), frames && all.size() < most_with_frames ? g : greenlets::greenlet());
  }
  out.name("greenlets").open('[');
  for (const auto& [text, g] : all) {
    json one;
    one.raw(text);
    if (!g.empty()) write_where(one, g);
    out.raw(one.close('}').text());
  }
  p.text = std::move(out.close(']').close('}')).text();
  p.text.pop_back();  // the end of the line
  return p;
}

namespace {

// The answers of the threads, as the one that asks collects them.
struct gathering {
  explicit gathering(std::size_t n) : parts(n), missing(n) {}
  std::vector<part> parts;
  std::size_t missing;
  hub::event complete;

  void take(std::size_t i, part&& p) {
    parts[i] = std::move(p);
    if (--missing == 0) complete.set();
  }
};

void ask_others(service& s, bool frames, const std::shared_ptr<gathering>& all) {
  const std::weak_ptr<gathering> weak = all;  // whoever asked may have gone when they answer
  const std::lock_guard locked(s.common.lock);
  for (std::size_t i = 0; i < s.common.threads.size(); ++i) {
    if (i == s.index) continue;
    const bool asked = s.common.threads[i].post([weak, frames, i, back = hub::this_hub()] {
      back.post([weak, i, p = part::of_this_thread(frames)]() mutable {
        if (const auto mine = weak.lock()) mine->take(i, std::move(p));
      });
    });
    if (!asked) all->take(i, {});
  }
}

void write_process(json& out) {
  const greenlets::process_counts counts = greenlets::counts();
  const greenlets::process_stacks stacks = greenlets::stack_statistics();
  out.name("library").open('{').name("greenlets").number(counts.greenlets);
  out.name("main_greenlets").number(counts.main_greenlets).name("threads").number(counts.threads);
  out.name("stacks_in_use").number(stacks.in_use);
  out.name("stacks_pooled").number(stacks.pooled).name("stacks_high_water").number(stacks.high_water).close('}');
}

}  // namespace

std::string status_page(service& s, bool frames) {
  const auto all = std::make_shared<gathering>(s.common.threads.size());
  ask_others(s, frames, all);
  all->take(s.index, part::of_this_thread(frames));
  all->complete.wait(seconds(1));

  part sum;
  for (const part& each : all->parts) {
    sum.active += each.active;
    sum.accepted += each.accepted;
    sum.count.bytes += each.count.bytes;
    sum.count.lost_lines += each.count.lost_lines;
    for (std::size_t i = 0; i < each.count.answers.size(); ++i) sum.count.answers[i] += each.count.answers[i];
  }
  std::uint64_t requests = 0;
  for (const std::uint64_t n : sum.count.answers) requests += n;

  json out;
  out.open('{').name("process").number(static_cast<std::uint64_t>(getpid()));
  out.name("uptime_seconds").number(hub::clock::now() - s.common.started);
  out.name("connections").open('{').name("active").number(sum.active).name("accepted").number(sum.accepted).close('}');
  out.name("requests").number(requests).name("answers").open('{');
  for (std::size_t digit = 2; digit <= 5; ++digit) out.name(std::to_string(digit) + "xx").number(sum.count.answers[digit]);
  out.close('}').name("bytes_sent").number(sum.count.bytes).name("log_lines_lost").number(sum.count.lost_lines);
  write_process(out);
  out.name("threads").open('[');
  for (const part& each : all->parts)
    if (!each.text.empty()) out.raw(each.text);
  return std::move(out.close(']').close('}')).text();
}

}  // namespace httpd
