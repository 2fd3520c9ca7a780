// SPDX-License-Identifier: MIT
// ELF and DWARF by libdw (elfutils), of the program's own files and of separate ones in the usual places; never over
// the network.
#include "debug_information.hpp"

#include "dwarf_frames.hpp"

#include "../immortal.hpp"

#include <cstring>
#include <fcntl.h>
#include <link.h>
#include <mutex>
#include <unistd.h>
#include <unordered_map>

namespace greenlets::detail::debug_information {
namespace {

// Those loaded and unloaded until now.
struct generation {
  unsigned long long loaded = 0;
  unsigned long long unloaded = 0;
  bool operator!=(const generation& other) const noexcept { return loaded != other.loaded || unloaded != other.unloaded; }
};

generation now() noexcept {
  generation g;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* to) {
        *static_cast<generation*>(to) = {info->dlpi_adds, info->dlpi_subs};
        return 1;
      },
      &g);
  return g;
}

// Maps a file and keeps no descriptor: a daemon counts its own, and its children get none. One that has been replaced
// meanwhile has another name, under which there is none.
int open_file(Dwfl_Module* module, void** data, const char* name, Dwarf_Addr base, char** path, Elf** elf) {
  if (name[0] != '/') return dwfl_linux_proc_find_elf(module, data, name, base, path, elf);
  const int fd = open(name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  *elf = elf_begin(fd, ELF_C_READ_MMAP, nullptr);
  if (*elf) elf_cntl(*elf, ELF_C_FDREAD);
  close(fd);
  if (*elf) *path = strdup(name);  // libdwfl's to free
  return -1;
}

int open_debug_file(Dwfl_Module* module, void** data, const char* name, Dwarf_Addr base, const char* file, const char* link,
                    GElf_Word checksum, char** path) {
  const int fd = dwfl_build_id_find_debuginfo(module, data, name, base, file, link, checksum, path);
  if (fd >= 0) fcntl(fd, F_SETFD, FD_CLOEXEC);
  return fd;
}

class files {
 public:
  bool describe(std::vector<frame>& to, const frame& known, const void* inside) {
    const generation g = now();
    if (!all_ || g != as_of_) report(g);
    if (!all_) return false;
    auto place = found_.find(inside);
    if (place == found_.end()) {
      if (found_.size() >= most_found) found_.clear();
      place = found_.emplace(inside, look_up(all_, known, reinterpret_cast<Dwarf_Addr>(inside))).first;
    }
    to.insert(to.end(), place->second.begin(), place->second.end());
    return !place->second.empty();
  }

 private:
  // Many greenlets wait in the same places.
  static constexpr std::size_t most_found = 4096;

  void report(const generation& g) noexcept {
    static char* nowhere = nullptr;
    static const Dwfl_Callbacks callbacks = {open_file, open_debug_file, nullptr, &nowhere};
    found_.clear();
    // What has been unloaded is forgotten only with the rest: another may lie at its address.
    if (all_ && g.unloaded != as_of_.unloaded) {
      dwfl_end(all_);
      all_ = nullptr;
    }
    if (!all_) all_ = dwfl_begin(&callbacks);
    if (!all_) return;
    dwfl_report_begin(all_);
    dwfl_linux_proc_report(all_, getpid());
    dwfl_report_end(all_, nullptr, nullptr);
    as_of_ = g;
  }

  Dwfl* all_ = nullptr;
  generation as_of_;
  std::unordered_map<const void*, std::vector<frame>> found_;
};

struct shared {
  std::mutex lock;  // libdw has none
  files* f = nullptr;
};
immortal<shared> program;

}  // namespace

bool describe(std::vector<frame>& to, const frame& known, const void* inside) {
  const std::lock_guard guard(program.value.lock);
  if (!program.value.f) program.value.f = new files;  // for ever
  return program.value.f->describe(to, known, inside);
}

}  // namespace greenlets::detail::debug_information
