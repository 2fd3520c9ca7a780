// SPDX-License-Identifier: MIT
// Reading debugging information with libdw (elfutils).
#include "dwarf_frames.hpp"

#include "../describe.hpp"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <new>
#include <string>
#include <utility>

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

// libdw's own ends the process. Nothing of its is half done where it calls this.
__attribute__((noreturn)) void without_memory() { throw std::bad_alloc(); }  // of its type, which the standard one is not

// The file's, and the one that several share (dwz).
void throw_without_memory(Dwfl_Module* module) {
  Dwarf_Addr bias = 0;
  Dwarf* const d = dwfl_module_getdwarf(module, &bias);
  if (!d) return;
  dwarf_new_oom_handler(d, without_memory);
  if (Dwarf* const shared = dwarf_getalt(d)) dwarf_new_oom_handler(shared, without_memory);
}

void name(frame& f, Dwfl_Module* module, Dwarf_Addr address) {
  const char* path = nullptr;
  GElf_Off offset = 0;
  GElf_Sym symbol;
  if (const char* const s = dwfl_module_addrinfo(module, address, &offset, &symbol, nullptr, nullptr, nullptr)) {
    f.function = demangled(s);
    f.offset = static_cast<std::size_t>(offset + (reinterpret_cast<Dwarf_Addr>(f.address) - address));
  }
  Dwarf_Addr start = 0;
  dwfl_module_info(module, nullptr, &start, nullptr, nullptr, nullptr, &path, nullptr);
  // Of a program that is linked statically the dynamic linker knows nothing.
  if (f.function.empty() && f.object.empty()) f.offset = static_cast<std::size_t>(reinterpret_cast<Dwarf_Addr>(f.address) - start);
  if (path) f.object = path;
}

void line(frame& f, Dwfl_Module* module, Dwarf_Addr address) {
  int number = 0;
  Dwfl_Line* const line = dwfl_module_getsrc(module, address);
  const char* const file = line ? dwfl_lineinfo(line, nullptr, &number, nullptr, nullptr, nullptr) : nullptr;
  if (!file) return;
  f.file = file;
  f.line = number > 0 ? static_cast<unsigned>(number) : 0;
}

// The line that was found is that of the innermost; each tells where it was called from.
void inlined(std::vector<frame>& to, frame& outermost, Dwfl_Module* module, Dwarf_Addr address) {
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

}  // namespace

std::vector<frame> look_up(Dwfl* loaded, const frame& known, Dwarf_Addr inside) {
  Dwfl_Module* const module = dwfl_addrmodule(loaded, inside);
  if (!module) return {};
  throw_without_memory(module);
  frame f = known;
  name(f, module, inside);
  line(f, module, inside);
  std::vector<frame> all;
  inlined(all, f, module, inside);
  return all;
}

}  // namespace greenlets::detail::debug_information
