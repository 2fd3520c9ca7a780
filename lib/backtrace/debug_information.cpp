// SPDX-License-Identifier: MIT
// ELF and DWARF by libdw (elfutils), of the program's own files and of separate ones in the usual places; never over
// the network.
#include "debug_information.hpp"

#include "../describe.hpp"
#include "../immortal.hpp"

#include <cstring>
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <link.h>
#include <mutex>
#include <unistd.h>
#include <unordered_map>

namespace greenlets::detail::debug_information {
namespace {

// Of DW_AT_call_file and its like: DWARF 5, 2.14.
unsigned number(Dwarf_Die* die, unsigned attribute) noexcept {
  Dwarf_Attribute a;
  Dwarf_Word word = 0;
  return dwarf_formudata(dwarf_attr(die, attribute, &a), &word) == 0 ? static_cast<unsigned>(word) : 0;
}

std::string name_of(Dwarf_Die* function) {
  Dwarf_Attribute a;
  const char* const linkage = dwarf_formstring(dwarf_attr_integrate(function, DW_AT_linkage_name, &a));
  if (linkage) return demangled(linkage);
  const char* const plain = dwarf_diename(function);
  return plain ? plain : "";
}

std::string file_of_call(Dwarf_Die* unit, Dwarf_Die* inlined) {
  Dwarf_Files* files = nullptr;
  std::size_t count = 0;
  if (dwarf_getsrcfiles(unit, &files, &count) != 0) return "";
  const char* const name = dwarf_filesrc(files, number(inlined, DW_AT_call_file), nullptr, nullptr);
  return name ? name : "";
}

// The functions around an address, innermost first: those that were inlined there, and the one that they are in.
// libdw's own dwarf_getscopes() looks only where the scope around it contains the address, too; that of a lambda is the
// function in which it was written.
class functions {
 public:
  functions(Dwarf_Die* unit, Dwarf_Addr address) : address_(address) { find(unit); }
  std::vector<Dwarf_Die>::iterator begin() noexcept { return found_.begin(); }
  std::vector<Dwarf_Die>::iterator end() noexcept { return found_.end(); }

 private:
  bool is_around(Dwarf_Die* die) const noexcept { return dwarf_haspc(die, address_) == 1; }

  bool find(Dwarf_Die* around) {
    Dwarf_Die die;
    for (int end = dwarf_child(around, &die); end == 0; end = dwarf_siblingof(&die, &die)) {
      if (dwarf_tag(&die) == DW_TAG_subprogram && is_around(&die)) {
        find_inlined(&die);
        found_.push_back(die);
        return true;
      }
      if (dwarf_haschildren(&die) && find(&die)) return true;
    }
    return false;
  }

  void find_inlined(Dwarf_Die* around) {
    Dwarf_Die die;
    for (int end = dwarf_child(around, &die); end == 0; end = dwarf_siblingof(&die, &die)) {
      const int tag = dwarf_tag(&die);
      if ((tag != DW_TAG_lexical_block && tag != DW_TAG_inlined_subroutine) || !is_around(&die)) continue;
      find_inlined(&die);
      if (tag == DW_TAG_inlined_subroutine) found_.push_back(die);
      return;
    }
  }

  Dwarf_Addr address_;
  std::vector<Dwarf_Die> found_;
};

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
      place = found_.emplace(inside, look_up(known, reinterpret_cast<Dwarf_Addr>(inside))).first;
    }
    to.insert(to.end(), place->second.begin(), place->second.end());
    return !place->second.empty();
  }

 private:
  // Many greenlets wait in the same places.
  static constexpr std::size_t most_found = 4096;

  std::vector<frame> look_up(const frame& known, Dwarf_Addr address) {
    Dwfl_Module* const module = dwfl_addrmodule(all_, address);
    if (!module) return {};
    frame f = known;
    name(f, module, address);
    line(f, module, address);
    std::vector<frame> all;
    inlined(all, f, module, address);
    return all;
  }

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

  static void name(frame& f, Dwfl_Module* module, Dwarf_Addr address) {
    const char* path = nullptr;
    GElf_Off offset = 0;
    GElf_Sym symbol;
    if (const char* const s = dwfl_module_addrinfo(module, address, &offset, &symbol, nullptr, nullptr, nullptr)) {
      f.function = demangled(s);
      f.offset = static_cast<std::size_t>(offset + (reinterpret_cast<Dwarf_Addr>(f.address) - address));
    }
    dwfl_module_info(module, nullptr, nullptr, nullptr, nullptr, nullptr, &path, nullptr);
    if (path) f.object = path;
  }

  static void line(frame& f, Dwfl_Module* module, Dwarf_Addr address) {
    int number = 0;
    Dwfl_Line* const line = dwfl_module_getsrc(module, address);
    const char* const file = line ? dwfl_lineinfo(line, nullptr, &number, nullptr, nullptr, nullptr) : nullptr;
    if (!file) return;
    f.file = file;
    f.line = number > 0 ? static_cast<unsigned>(number) : 0;
  }

  // The line that was found is that of the innermost; each tells where it was called from.
  static void inlined(std::vector<frame>& to, frame& outermost, Dwfl_Module* module, Dwarf_Addr address) {
    Dwarf_Addr bias = 0;
    Dwarf_Die* const unit = dwfl_module_addrdie(module, address, &bias);
    frame f = outermost;
    if (unit) {
      for (Dwarf_Die& die : functions(unit, address - bias)) {
        if (dwarf_tag(&die) != DW_TAG_inlined_subroutine) continue;
        f.function = name_of(&die);
        f.inlined = true;
        to.push_back(f);
        f.file = file_of_call(unit, &die);
        f.line = number(&die, DW_AT_call_line);
      }
    }
    f.function = outermost.function;
    f.inlined = false;
    to.push_back(std::move(f));
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
