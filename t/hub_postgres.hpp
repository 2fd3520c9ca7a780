// SPDX-License-Identifier: MIT
// A PostgreSQL server of the test program's own: in a temporary directory, on a Unix domain socket there, without safety
// and as somebody who is not root. Started once, by the first case that asks; it ends with the program.
#ifndef T_HUB_POSTGRES_HPP
#define T_HUB_POSTGRES_HPP

#include "hub_testing.hpp"

#include <greenlet/hub/libpq.hpp>

#include <csignal>
#include <fcntl.h>
#include <fstream>
#include <glob.h>
#include <grp.h>
#include <memory>
#include <pwd.h>
#include <string>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace testing {

class postgres {
 public:
  // Null, and a message, where PostgreSQL is not installed.
  static const postgres* running() {
    static const std::string programs = find();
    static std::unique_ptr<postgres> one;
    if (programs.empty()) {
      MESSAGE("skipped: no initdb and postgres; they are in the Debian package postgresql");
      return nullptr;
    }
    if (!one) {
      one.reset(new postgres(programs));
      one->wait_ready();
    }
    return one.get();
  }
  ~postgres() {
    if (pid_ <= 0) return;
    kill(pid_, SIGCONT);
    kill(pid_, SIGQUIT);
    waitpid(pid_, nullptr, 0);
  }

  std::string conninfo(const std::string& more = "user=test") const {
    return "host=" + where_.path + " port=5432 dbname=postgres " + more;
  }
  hub::libpq::connection connect() const { return hub::libpq::connect(conninfo(), hang_guard()); }
  const std::string& directory_of_socket() const { return where_.path; }
  pid_t pid() const { return pid_; }

  // After a crash it takes a moment.
  void wait_ready() const {
    const auto give_up = hub::clock::now() + seconds(60);
    for (;;) {
      try {
        connect();
        hub::shutdown();
        return;
      } catch (const hub::libpq::connection_error& e) {
        INFO(e.what());
        REQUIRE(hub::clock::now() < give_up);
        hub::sleep_for(milliseconds(5));
      }
    }
  }

 private:
  explicit postgres(const std::string& programs) {
    const passwd* const user = geteuid() == 0 ? unprivileged() : nullptr;
    if (user) REQUIRE(chown(where_.path.c_str(), user->pw_uid, user->pw_gid) == 0);
    const std::string data = where_ / "data";
    int status = -1;
    const pid_t init = start(user, {programs + "/initdb", "--no-sync", "--auth=trust", "--username=test", "--encoding=UTF8",
                                    "--locale=C", "--pgdata=" + data});
    REQUIRE(waitpid(init, &status, 0) == init);
    INFO(log());
    REQUIRE(status == 0);
    std::ofstream(data + "/pg_hba.conf") << "local all secret scram-sha-256\nlocal all all trust\n";
    std::vector<std::string> command{programs + "/postgres", "-D", data, "-k", where_.path};
    for (const char* setting : {"listen_addresses=", "port=5432", "fsync=off", "full_page_writes=off", "autovacuum=off",
                                "jit=off", "shared_buffers=8MB", "max_connections=40", "max_wal_senders=0"})
      command.insert(command.end(), {"-c", setting});
    pid_ = start(user, command);
  }
  postgres(const postgres&) = delete;
  postgres& operator=(const postgres&) = delete;

  static std::string find() {
    const char* const path = std::getenv("PATH");
    std::vector<std::string> places;
    std::string each;
    for (const char c : std::string(path ? path : "") + ":")
      if (c == ':')
        places.push_back(std::exchange(each, {}));
      else
        each += c;
    glob_t found;  // where Debian has them
    if (glob("/usr/lib/postgresql/*/bin", 0, nullptr, &found) == 0)
      places.insert(places.end(), found.gl_pathv, found.gl_pathv + found.gl_pathc);
    globfree(&found);
    for (const std::string& p : places)
      if (access((p + "/initdb").c_str(), X_OK) == 0 && access((p + "/postgres").c_str(), X_OK) == 0) return p;
    return {};
  }
  static const passwd* unprivileged() {
    const passwd* const user = getpwnam("postgres");
    return user ? user : getpwnam("nobody");
  }
  std::string log() const {
    std::ifstream file(where_ / "log");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // It dies with us.
  pid_t start(const passwd* user, const std::vector<std::string>& command) const {
    std::vector<char*> words;
    for (const std::string& w : command) words.push_back(const_cast<char*>(w.c_str()));
    words.push_back(nullptr);
    const std::string to = where_ / "log";
    const pid_t parent = getpid(), pid = fork();
    REQUIRE(pid >= 0);
    if (pid > 0) return pid;
    if (user && (setgroups(0, nullptr) != 0 || setgid(user->pw_gid) != 0 || setuid(user->pw_uid) != 0)) _exit(126);
    prctl(PR_SET_PDEATHSIG, SIGQUIT);
    const int in = open("/dev/null", O_RDONLY), out = open(to.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (getppid() != parent || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0 || chdir("/") != 0) _exit(126);
    execv(words[0], words.data());
    _exit(127);
  }

  directory where_;
  pid_t pid_ = -1;
};

constexpr auto soon = milliseconds(30);

inline int open_descriptors() {
  hub::this_hub();  // has some of its own
  int count = 0;
  for (int fd = 0; fd < 1024; ++fd) count += fcntl(fd, F_GETFD) != -1;
  return count;
}

// Spawns it, lets it wait, and cancels it there.
template <class F>
void cancelled_at_its_wait(F&& f) {
  auto t = hub::spawn(std::forward<F>(f));
  yield_until_waiting(1);
  t.cancel();
  CHECK_THROWS_AS(t.get(), hub::cancelled);
}

// What a statement's ways to end early leave: a connection in order.
inline void check_usable(hub::libpq::connection& c) {
  CHECK(c.is_open());
  CHECK(c.execute("select 42", {}, hang_guard()).get<int>(0, 0) == 42);
  CHECK(PQtransactionStatus(c.native()) == PQTRANS_IDLE);
}

template <class F>
std::string sqlstate_of(F&& f) {
  try {
    f();
  } catch (const hub::libpq::server_error& e) {
    return std::string(e.sqlstate());
  }
  FAIL("the server refused nothing");
  return {};
}

inline std::size_t count(hub::libpq::connection& c, const std::string& from) {
  return c.execute("select count(*) from " + from, {}, hang_guard()).get<std::size_t>(0, 0);
}

// Until that session of the server does something.
inline void until_active(hub::libpq::connection& watcher, int backend) {
  yield_until([&] {
    return watcher.execute("select state = 'active' from pg_stat_activity where pid = $1", {backend}, hang_guard())
        .get<bool>(0, 0);
  });
}

// A server that takes connections and says nothing.
struct silent {
  hub::listener listener{hub::address("127.0.0.1", 0)};
  std::string conninfo() const { return "host=127.0.0.1 user=x port=" + std::to_string(listener.local().port()); }
};

}  // namespace testing

// Opens a case that needs the server.
#define POSTGRES_OR_SKIP(name)                         \
  const postgres* const name##_ = postgres::running(); \
  if (!name##_) return;                                \
  const postgres& name = *name##_;                     \
  const hub_guard end

#endif
