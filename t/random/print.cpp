// SPDX-License-Identifier: MIT
// Printing: the model runs the program once, and what each call of a function did becomes its text.
#include "print.hpp"

#include "model.hpp"
#include "prelude.hpp"

#include <map>
#include <utility>
#include <vector>

namespace programs {
namespace {

class printer {
 public:
  printer(const program& p, int failed);
  std::string whole();

 private:
  const step& of(int number) const { return steps_[static_cast<std::size_t>(number) - 1]; }
  const call_record& call(int n) const { return calls_[static_cast<std::size_t>(n)]; }
  std::string who(int call) const { return "\"g" + std::to_string(this->call(call).who) + "\""; }

  void line(int depth, const std::string& text) { text_ += std::string(static_cast<std::size_t>(depth) * 2, ' ') + text + "\n"; }
  void operations(int call, int depth);
  void operation(const step& s, int call, int depth);
  void nested(const step& s, int call, int depth);
  std::string act(const op& o, int number, int call) const;
  std::string guard(int number) const;
  std::string runner(const op& o, int number) const;
  std::string payload(const op& o, int number) const;
  void functions();
  void threads();
  void list_functions();
  void expectations();
  void main_function();

  int failed_;
  bool turns_ = false;               // more than one thread
  std::vector<step> steps_;
  std::vector<event> last_events_;
  std::vector<std::string> looks_;   // after the step that failed
  std::vector<call_record> calls_;
  std::map<int, std::vector<int>> taken_;             // by call: the steps
  std::map<std::pair<int, int>, int> found_;          // call, handler or destructor, by kind and number
  std::vector<int> started_;                          // greenlets, in their order
  std::string text_;
};

std::string number(int n) { return std::to_string(n); }
std::string slot(int n) { return "slot[" + number(n) + "]"; }

printer::printer(const program& p, int failed) : failed_(failed) {
  model m(p);
  while (!m.over()) {
    const step& s = m.next();
    steps_.push_back(s);
    taken_[s.in].push_back(s.number);
    turns_ = turns_ || s.o.thread != steps_.front().o.thread;
    for (const event& e : s.events)
      if (e.what == event::starts) started_.push_back(e.who);
    if (s.number == failed)
      for (int g = 1; g <= m.made(); ++g) looks_.push_back("g" + number(g) + " is " + to_string(m.at(g)));
  }
  last_events_ = m.finish().events;
  calls_ = m.calls();
  for (int n = 0; n < static_cast<int>(calls_.size()); ++n)
    if (call(n).what != call_record::main_first) found_[{call(n).what, call(n).number}] = n;
}

std::string printer::guard(int n) const {
  const bool acts = found_.count({call_record::destructor, n});
  return "guard(" + number(n) + (acts ? ", last_of_" + number(n) : "") + ")";
}

std::string printer::runner(const op& o, int n) const {
  return "runner(" + guard(n) + (o.with ? ", " + slot(o.c) : "") + ")";
}

std::string printer::payload(const op& o, int n) const {
  switch (o.kind) {
    case sends_one: return "payload(" + number(n) + ")";
    case sends_two: return "payload(" + number(n) + "), std::string(\"2\")";
    case sends_handle: return "payload(" + number(n) + ", " + slot(o.c) + ")";
    default: return "";
  }
}

std::string thrown_object(const op& o, int n) {
  if (o.kind == throws_exit) return "greenlet_exit()";
  return (o.kind == throws_own_exit ? "own_exit(" : "custom(") + number(n) + ")";
}

// One that may fail.
std::string printer::act(const op& o, int n, int in) const {
  const std::string gets = "gets(" + who(in) + ", ";
  switch (o.what) {
    case verb::create: return slot(o.a) + " = made(greenlet(" + runner(o, n) + (o.given ? ", " + slot(o.b) : "") + "));";
    case verb::create_without_run: return slot(o.a) + " = made(greenlet(attributes()));";
    case verb::switch_to: return gets + slot(o.a) + ".switch_to(" + payload(o, n) + "));";
    case verb::switch_to_parent: return gets + "switch_to_parent(" + payload(o, n) + "));";
    case verb::throw_in: return gets + slot(o.a) + ".throw_in(" + thrown_object(o, n) + "));";
    case verb::keep_current: return slot(o.a) + " = current();";
    case verb::take_parent: return slot(o.a) + " = " + slot(o.b) + ".parent();";
    case verb::set_parent: return slot(o.a) + ".set_parent(" + slot(o.b) + ");";
    case verb::set_run: return slot(o.a) + ".set_run(" + runner(o, n) + ");";
    case verb::reset_run: return slot(o.a) + ".reset_run();";
    case verb::enter: return "current();";
    case verb::drop: return slot(o.a) + " = greenlet();";
    case verb::copy: return slot(o.a) + " = " + slot(o.b) + ";";
    case verb::move: return slot(o.a) + " = std::move(" + slot(o.b) + ");";
    case verb::make_weak: return "weak[" + number(o.a) + "] = " + slot(o.b) + ";";
    case verb::lock_weak: return slot(o.a) + " = weak[" + number(o.b) + "].lock();";
    default: return "";
  }
}

void printer::operation(const step& s, int in, int depth) {
  if (turns_ && !s.begins_thread) line(depth, "step(" + number(s.number) + ");");
  if (s.number == failed_ + 1 && failed_ > 0) line(depth, "look_at_all();");
  switch (s.o.what) {
    case verb::call: return nested(s, in, depth);
    case verb::leave:
      if (call(in).what == call_record::first && s.o.kind != sends_nothing)
        line(depth, s.o.kind == sends_two ? "return std::make_tuple(" + payload(s.o, s.number) + ");"
                                          : "return " + payload(s.o, s.number) + ";");
      return;
    case verb::end_thread: return;
    case verb::raise: return line(depth, "throw " + thrown_object(s.o, s.number) + ";");
    case verb::rethrow: return line(depth, "throw;");
    case verb::drop:
    case verb::copy:
    case verb::move:
    case verb::make_weak:
    case verb::lock_weak: return line(depth, act(s.o, s.number, in));
    default: return line(depth, "attempt(" + who(in) + ", [] { " + act(s.o, s.number, in) + " });");
  }
}

void printer::nested(const step& s, int in, int depth) {
  constexpr const char* caught[] = {"", "const custom&", "const greenlet_exit&", "..."};
  const bool catches = s.o.kind != catches_nothing;
  line(depth, catches ? "try {" : "{");
  if (s.o.with) line(depth + 1, "const greenlet kept = " + slot(s.o.c) + ";");
  line(depth + 1, "const guard last = " + guard(s.number) + ";");
  operations(found_.at({call_record::call, s.number}), depth + 1);
  if (catches) {
    line(depth, std::string("} catch (") + caught[s.o.kind] + ") {");
    if (const auto it = found_.find({call_record::handler, s.number}); it != found_.end()) {
      line(depth + 1, "note(std::string(" + who(in) + ") + \" catches \" + words());");
      operations(it->second, depth + 1);
    } else {
      line(depth + 1, "note(\"not reached\");");
    }
  }
  line(depth, "}");
}

void printer::operations(int in, int depth) {
  if (const auto it = taken_.find(in); it != taken_.end())
    for (int n : it->second) operation(of(n), in, depth);
}

void printer::functions() {
  for (const call_record& each : calls_)
    if (each.what == call_record::destructor) line(0, "void last_of_" + number(each.number) + "();");
  for (int n = 0; n < static_cast<int>(calls_.size()); ++n) {
    const std::string g = "g" + number(call(n).who);
    if (call(n).what == call_record::first) {
      line(0, "\nvalue " + g + "(value first) {");
      line(1, "note(\"" + g + " starts with \" + words(first));");
      line(1, "first.reset();");
      line(1, "const guard last = " + guard(10000 + call(n).who) + ";");
      operations(n, 1);
      line(1, "return {};");
      line(0, "}");
    } else if (call(n).what == call_record::destructor) {
      line(0, "\nvoid last_of_" + number(call(n).number) + "() try {");
      operations(n, 1);
      line(0, "} catch (...) {");
      line(1, "note(\"" + g + " swallows \" + words() + \" in a destructor\");");
      line(0, "}");
    }
  }
}

// A main greenlet catches everything and goes on.
void printer::threads() {
  for (int n = 0; n < static_cast<int>(calls_.size()); ++n) {
    const int main = call(n).who;
    if (call(n).what != call_record::main_first) continue;
    bool first = true;
    for (int m = 0; m < n; ++m) first = first && (call(m).what != call_record::main_first || call(m).who != main);
    if (!first) continue;
    const std::string g = "g" + number(main);
    line(0, "\nvoid thread_of_" + g + "() {");
    if (turns_) line(1, "step(" + number(of(taken_.at(n).front()).number) + ");");
    line(1, "all.emplace_back(current());");
    line(1, "note(\"" + g + " begins, a thread's main greenlet\");");
    for (int m = n; m < static_cast<int>(calls_.size()); ++m) {
      if (call(m).what != call_record::main_first || call(m).who != main) continue;
      line(1, "try {");
      operations(m, 2);
      line(1, "} catch (...) {");
      line(2, "note(\"" + g + ", a main greenlet, catches \" + words());");
      line(1, "}");
    }
    line(1, "note(\"" + g + " ends its thread\");");
    line(0, "}");
  }
}

void printer::list_functions() {
  std::string list;
  for (int g : started_) list += "g" + number(g) + ", ";
  line(0, "\nvalue (*const functions[])(value) = {" + list + "nullptr};\n");
}

void printer::expectations() {
  line(0, "const char* const expected[] = {");
  const auto add = [this](const event& e) {
    if (e.what != event::takes) line(1, "\"" + to_string(e) + "\",");
  };
  for (const step& s : steps_) {
    for (const event& e : s.events) add(e);
    if (s.number == failed_ && failed_ < static_cast<int>(steps_.size()))
      for (const std::string& each : looks_) line(1, "\"" + each + "\",");
  }
  for (const event& e : last_events_) add(e);
  line(1, "nullptr};\n");
}

void printer::main_function() {
  line(0, "int main() {");
  line(1, "set_unraisable_handler([](const greenlet& g, std::exception_ptr e) { note(\"unraisable in \" + name(g) + \": \" + words(e)); });");
  std::map<int, std::string> running;
  for (const step& s : steps_) {
    if (s.begins_thread) {
      running[s.o.thread] = "g" + number(s.events.front().who);
      if (turns_) line(1, "wait_for(" + number(s.number - 1) + ");");
      line(1, "std::thread of_" + running[s.o.thread] + "(thread_of_" + running[s.o.thread] + ");");
    }
    if (s.ends_thread) {
      // It may be reached before the thread does so, and other threads may take turns meanwhile.
      line(1, "of_" + running[s.o.thread] + ".join();");
      if (turns_) line(1, "end(" + number(s.number) + ");");
    }
  }
  text_ += postlude;
}

std::string printer::whole() {
  text_ = prelude;
  functions();
  threads();
  list_functions();
  expectations();
  main_function();
  return std::move(text_);
}

}  // namespace

std::string as_cpp(const program& p, int failed) { return printer(p, failed).whole(); }

}  // namespace programs
