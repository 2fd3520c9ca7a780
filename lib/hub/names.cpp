// SPDX-License-Identifier: MIT
// Names: libuv's look-ups, which may be left behind.
#include <greenlet/hub/names.hpp>

#include "loop.hpp"
#include "pool.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <netdb.h>
#include <new>

namespace greenlets::hub {
namespace {

using detail::loop;
using detail::loop_ref;

class names final : public std::error_category {
 public:
  const char* name() const noexcept override { return "getaddrinfo"; }
  std::string message(int code) const override { return gai_strerror(code); }
};

// libuv has numbers of its own for them.
constexpr struct {
  int uv, eai;
} codes[] = {{UV_EAI_ADDRFAMILY, EAI_ADDRFAMILY}, {UV_EAI_AGAIN, EAI_AGAIN},     {UV_EAI_BADFLAGS, EAI_BADFLAGS},
             {UV_EAI_CANCELED, EAI_CANCELED},     {UV_EAI_FAIL, EAI_FAIL},       {UV_EAI_FAMILY, EAI_FAMILY},
             {UV_EAI_MEMORY, EAI_MEMORY},         {UV_EAI_NODATA, EAI_NODATA},   {UV_EAI_NONAME, EAI_NONAME},
             {UV_EAI_OVERFLOW, EAI_OVERFLOW},     {UV_EAI_SERVICE, EAI_SERVICE}, {UV_EAI_SOCKTYPE, EAI_SOCKTYPE}};

std::error_code error_of(int status) noexcept {
  for (const auto& c : codes)
    if (c.uv == status) return {c.eai, name_category()};
  return {-status, std::generic_category()};
}

resolution failed(std::errc e) { return {{}, std::make_error_code(e)}; }

bool same(const address& a, const address& b) noexcept {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

resolution found(const addrinfo* list) {
  resolution r;
  for (; list; list = list->ai_next) {
    const address a(list->ai_addr, list->ai_addrlen);
    if (std::none_of(r.addresses.begin(), r.addresses.end(), [&](const address& b) { return same(a, b); }))
      r.addresses.push_back(a);
  }
  return r;
}

struct addresses_freed {
  void operator()(addrinfo* list) const noexcept { freeaddrinfo(list); }
};
using addresses = std::unique_ptr<addrinfo, addresses_freed>;

addrinfo hints(int flags) noexcept {
  addrinfo h{};
  h.ai_flags = flags;
  h.ai_socktype = SOCK_STREAM;
  return h;
}

// A look-up. The greenlet's until it has left, and libuv's until its end: who comes last deletes it. It refers to
// nothing of the greenlet's.
class lookup {
 public:
  // Begins it, and is the caller's no more; except when libuv refuses: then nothing has begun.
  static int begin(std::unique_ptr<lookup>& l, loop& home, const char* host, const char* service, int flags) {
    const addrinfo h = hints(flags);
    l->request_.data = l.get();
    detail::pool_is_used();
    return uv_getaddrinfo(home.uv(), &l->request_, ended, host, service, &h);
  }

  // False when the deadline came first, or the hub has ended.
  bool wait(const loop& home, deadline until) {
    while (!over_)
      if (home.closed() || !waiting_.wait(until, true)) return over_;
    return true;
  }
  resolution result() const { return status_ == 0 ? found(found_.get()) : resolution{{}, error_of(status_)}; }

  void leave() noexcept {
    if (over_) {
      delete this;
      return;
    }
    left_ = true;
    uv_cancel(reinterpret_cast<uv_req_t*>(&request_));  // one that has begun ends by itself
  }

 private:
  static void ended(uv_getaddrinfo_t* request, int status, addrinfo* list) {
    auto* const self = static_cast<lookup*>(request->data);
    self->over_ = true;
    self->status_ = status;
    self->found_.reset(list);
    self->waiting_.wake_all();
    if (self->left_) delete self;
  }

  uv_getaddrinfo_t request_;
  detail::wait_list waiting_{"name lookup", nullptr};
  addresses found_;
  int status_ = 0;
  bool over_ = false, left_ = false;
};

resolution look_up(const std::string& host, const std::string& service, int flags, deadline until) {
  // A C string would end there; and libuv calls no name at all an invalid argument.
  if (host.empty() || (host + service).find('\0') != std::string::npos) return {{}, {EAI_NONAME, name_category()}};
  const addrinfo numeric = hints(AI_NUMERICHOST | AI_NUMERICSERV);
  addrinfo* list = nullptr;
  if (getaddrinfo(host.c_str(), service.c_str(), &numeric, &list) == 0) return found(addresses(list).get());

  const loop_ref home(loop::mine());
  auto made = std::make_unique<lookup>();
  if (const int code = lookup::begin(made, *home, host.c_str(), service.c_str(), flags); code != 0)
    return {{}, error_of(code)};
  struct leaver {
    lookup& l;
    ~leaver() { l.leave(); }
  } const at_any_exit{*made.release()};
  if (at_any_exit.l.wait(*home, until)) return at_any_exit.l.result();
  return failed(home->closed() ? std::errc::operation_canceled : std::errc::timed_out);
}

}  // namespace

const std::error_category& name_category() noexcept {
  static const names the;
  return the;
}

resolution resolve(const std::string& host, const std::string& service, deadline until) {
  return look_up(host, service, 0, until);
}

resolution resolve(const std::string& host, std::uint16_t port, deadline until) {
  return look_up(host, std::to_string(port), AI_NUMERICSERV, until);
}

io_result connect(connection& to, const std::string& host, std::uint16_t port, deadline until) {
  const resolution r = resolve(host, port, until);
  io_result last;
  last.error = r.error;
  for (const address& a : r.addresses) {
    try {
      last = connect(to, a, until);
    } catch (const std::system_error& e) {
      // A system without IPv6, say, where names may have such addresses all the same.
      if (e.code() != std::errc::address_family_not_supported) throw;
      last = io_result::failed(EAFNOSUPPORT);
    }
    if (last || last.timed_out()) break;
  }
  return last;
}

}  // namespace greenlets::hub
