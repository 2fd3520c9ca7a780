// SPDX-License-Identifier: MIT
// json: a reader of JSON that says whether it is.
#ifndef T_JSON_HPP
#define T_JSON_HPP

#include <cctype>
#include <cstddef>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace testing {

// RFC 8259, to the letter; keeps the strings, and how often each name is one of an object's.
class json {
 public:
  explicit json(const std::string& text) : text_(text) {
    valid_ = value() && (space(), at_ == text_.size());
  }
  bool valid() const { return valid_; }
  const std::vector<std::string>& strings() const { return strings_; }
  std::map<std::string, std::size_t> names;

 private:
  void space() {
    while (at_ < text_.size() && std::string(" \t\n\r").find(text_[at_]) != std::string::npos) ++at_;
  }
  bool take(char c) {
    space();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool word(const char* w) {
    const std::size_t n = std::strlen(w);
    if (text_.compare(at_, n, w) != 0) return false;
    at_ += n;
    return true;
  }
  bool digits() {
    const std::size_t from = at_;
    while (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_]))) ++at_;
    return at_ > from;
  }
  bool number() {
    if (text_[at_] == '-') ++at_;
    if (text_[at_] == '0')
      ++at_;
    else if (!digits())
      return false;
    if (text_[at_] == '.') return ++at_, digits();
    return true;
  }
  bool string(std::string& to) {
    if (!take('"')) return false;
    while (at_ < text_.size() && text_[at_] != '"') {
      const auto c = static_cast<unsigned char>(text_[at_]);
      if (c < 0x20) return false;
      if (c == '\\') {
        ++at_;
        if (text_[at_] == 'u') {
          for (int i = 0; i < 4; ++i)
            if (!std::isxdigit(static_cast<unsigned char>(text_[++at_]))) return false;
          const int code = std::stoi(text_.substr(at_ - 3, 4), nullptr, 16);
          to += code < 0x80 ? std::string(1, static_cast<char>(code)) : "?";
          ++at_;
          continue;
        }
        if (std::string("\"\\/bfnrt").find(text_[at_]) == std::string::npos) return false;
      } else if (c >= 0x80 && !character()) {
        return false;
      }
      to += text_[at_++];
    }
    return take('"');
  }
  // The rest of a sequence of UTF-8 is there; `at_` stays.
  bool character() const {
    const auto byte = [this](std::size_t i) { return static_cast<unsigned char>(at_ + i < text_.size() ? text_[at_ + i] : 0); };
    if (byte(0) < 0xc0) return at_ > 0 && static_cast<unsigned char>(text_[at_ - 1]) >= 0x80;
    const std::size_t n = byte(0) >= 0xf0 ? 3 : byte(0) >= 0xe0 ? 2 : 1;
    for (std::size_t i = 1; i <= n; ++i)
      if ((byte(i) & 0xc0) != 0x80) return false;
    return true;
  }
  bool value() {
    space();
    if (at_ == text_.size()) return false;
    switch (text_[at_]) {
      case '{':
        ++at_;
        if (take('}')) return true;
        do {
          std::string name;
          if (space(), !string(name) || !take(':') || !value()) return false;
          ++names[name];
        } while (take(','));
        return take('}');
      case '[':
        ++at_;
        if (take(']')) return true;
        do {
          if (!value()) return false;
        } while (take(','));
        return take(']');
      case '"': {
        std::string s;
        if (!string(s)) return false;
        strings_.push_back(s);
        return true;
      }
      case 't': return word("true");
      case 'f': return word("false");
      case 'n': return word("null");
      default: return number();
    }
  }

  const std::string& text_;
  std::size_t at_ = 0;
  bool valid_ = false;
  std::vector<std::string> strings_;
};

}  // namespace testing

#endif
