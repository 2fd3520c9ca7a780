// SPDX-License-Identifier: MIT
// A Redis server of the test program's own, which ends with it.
#ifndef T_HUB_REDIS_SERVER_HPP
#define T_HUB_REDIS_SERVER_HPP

#include "hub_testing.hpp"

#include <arpa/inet.h>
#include <csignal>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/wait.h>

namespace testing {

class redis_server {
 public:
  // Null, with a message, where there is no such program.
  static redis_server* here() {
    static redis_server only;
    if (only.pid_ > 0) return &only;
    MESSAGE("skipped: no redis-server (Debian package redis-server or redis-tools)");
    return nullptr;
  }

  unsigned short port() const { return port_; }
  std::string socket() const { return dir_.path + "/s"; }

 private:
  redis_server() {
    for (int tries = 0; tries < 10 && pid_ <= 0 && port_ != 1; ++tries) start();
  }
  ~redis_server() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  // One that is free now; when somebody else takes it meanwhile, the server ends, and another is tried.
  static unsigned short free_port() {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof a;
    bind(fd, reinterpret_cast<sockaddr*>(&a), size);
    getsockname(fd, reinterpret_cast<sockaddr*>(&a), &size);
    close(fd);
    return ntohs(a.sin_port);
  }

  void start() {
    port_ = free_port();
    const std::string port = std::to_string(port_), at = socket();
    int out[2];
    if (pipe2(out, O_CLOEXEC) != 0) return;
    const pid_t parent = getpid();
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(127);
      dup2(out[1], 1);
      const char* const arguments[] = {"redis-server", "--port",       port.c_str(), "--bind",
                                       "127.0.0.1",    "--unixsocket", at.c_str(),   "--save",
                                       "",             "--appendonly", "no",         "--dir",
                                       dir_.path.c_str(), nullptr};
      // The same program under its other name, of the package redis-tools.
      for (const char* const program : {"redis-server", "redis-check-rdb"}) execvp(program, const_cast<char**>(arguments));
      _exit(127);
    }
    close(out[1]);
    std::string said;
    char buffer[4096];
    while (said.find("Ready to accept connections") == std::string::npos) {
      const ssize_t n = read(out[0], buffer, sizeof buffer);
      if (n <= 0) break;
      said.append(buffer, static_cast<std::size_t>(n));
    }
    close(out[0]);  // it goes on without
    if (said.find("Ready to accept connections") != std::string::npos) return;
    kill(pid_, SIGKILL);
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) port_ = 1;  // there is none
  }

  directory dir_;
  pid_t pid_ = 0;
  unsigned short port_ = 0;
};

}  // namespace testing

#endif
