// SPDX-License-Identifier: MIT
// Loaded files by libdwfl (elfutils), which is told where each is, and given the file only when it is the one that was
// loaded; else what of it is in the process's memory.
#include "image.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <gelf.h>
#include <unistd.h>

namespace greenlets::outside {
namespace {

constexpr std::size_t most_of_a_file = std::size_t{1} << 32;

// -- Identity ------------------------------------------------------------------------------------------

// The identity in a note, GNU's of type 3; empty: there is none.
std::string build_id_in(const char* notes, std::size_t size) {
  std::size_t at = 0;
  while (at + sizeof(Elf64_Nhdr) <= size) {
    Elf64_Nhdr n;
    std::memcpy(&n, notes + at, sizeof n);
    const std::size_t name = at + sizeof n;
    const std::size_t text = name + ((std::size_t{n.n_namesz} + 3) & ~std::size_t{3});
    if (text > size || n.n_descsz > size - text) break;
    if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 && std::memcmp(notes + name, "GNU", 4) == 0)
      return {notes + text, n.n_descsz};
    at = text + ((std::size_t{n.n_descsz} + 3) & ~std::size_t{3});
  }
  return "";
}

// What was loaded at an address, as its own headers there tell.
struct loaded_headers {
  Elf64_Ehdr file = {};
  std::vector<Elf64_Phdr> segments;
  std::uintptr_t bias = 0;

  bool read(detail::memory& of, std::uintptr_t base) {
    if (of.read(base, &file, sizeof file) < sizeof file || std::memcmp(file.e_ident, ELFMAG, SELFMAG) != 0 ||
        file.e_ident[EI_CLASS] != ELFCLASS64 || file.e_phentsize != sizeof(Elf64_Phdr) || file.e_phnum > 256)
      return false;
    segments.resize(file.e_phnum);
    const std::size_t size = segments.size() * sizeof(Elf64_Phdr);
    if (of.read(base + file.e_phoff, segments.data(), size) < size) return false;
    for (const Elf64_Phdr& s : segments) {
      if (s.p_type != PT_LOAD) continue;
      bias = base - (s.p_vaddr - s.p_offset);
      return true;
    }
    return false;
  }

  // And not only mapped to be read, as libdw does it: then what is to be written to is not in a mapping of its own.
  bool is_loaded(const mapping& first, const std::vector<mapping>& all) const {
    const auto s = std::find_if(segments.begin(), segments.end(), [](const Elf64_Phdr& p) { return p.p_type == PT_LOAD && p.p_flags & PF_W; });
    if (s == segments.end() || s->p_filesz == 0) return true;
    const std::uintptr_t at = bias + s->p_vaddr;
    return std::any_of(all.begin(), all.end(), [&](const mapping& m) {
      return m.start <= at && at < m.end && m.start != first.start && m.path == first.path && m.offset + (at - m.start) == s->p_offset;
    });
  }

  // Nothing: it cannot be read; empty: there is none.
  std::optional<std::string> build_id(detail::memory& of) const {
    bool whole = true;
    for (const Elf64_Phdr& s : segments) {
      if (s.p_type != PT_NOTE || s.p_memsz > 65536) continue;
      std::string notes(s.p_memsz, '\0');
      notes.resize(of.read(bias + s.p_vaddr, notes.data(), notes.size()));
      whole = whole && notes.size() == s.p_memsz;
      const std::string found = build_id_in(notes.data(), notes.size());
      if (!found.empty()) return found;
    }
    return whole ? std::make_optional<std::string>() : std::nullopt;
  }
};

std::string build_id_of(Elf* elf) {
  std::size_t n = 0;
  if (elf_getphdrnum(elf, &n) != 0) return "";
  for (std::size_t i = 0; i < n; ++i) {
    GElf_Phdr s;
    if (!gelf_getphdr(elf, static_cast<int>(i), &s) || s.p_type != PT_NOTE) continue;
    const Elf_Data* const notes = elf_getdata_rawchunk(elf, static_cast<off_t>(s.p_offset), s.p_filesz, ELF_T_BYTE);
    const std::string found = notes ? build_id_in(static_cast<const char*>(notes->d_buf), notes->d_size) : "";
    if (!found.empty()) return found;
  }
  return "";
}

}  // namespace

// -- Descriptors ---------------------------------------------------------------------------------------

descriptor::~descriptor() {
  if (fd_ >= 0) close(fd_);
}

// -- Modules -------------------------------------------------------------------------------------------

image::image(detail::memory& of, file_source files) : of_(of), files_(std::move(files)) {
  static char* nowhere = nullptr;
  static const Dwfl_Callbacks callbacks = {find_elf, find_debug_file, nullptr, &nowhere};
  elf_version(EV_CURRENT);
  dwfl_ = dwfl_begin(&callbacks);
  if (!dwfl_) throw std::bad_alloc();
}

image::~image() { dwfl_end(dwfl_); }

void image::report(const std::vector<mapping>& all, std::uintptr_t vdso) {
  loaded_.clear();
  std::vector<std::uintptr_t> ends;
  for (const mapping& m : all) {
    if (!loaded_.empty() && loaded_.back().path == m.path && m.offset != 0) {
      ends.back() = m.end;
      continue;
    }
    loaded_headers there;
    if (m.offset != 0 || !there.read(of_, m.start) || !there.is_loaded(m, all)) continue;
    loaded_.push_back(m);
    ends.push_back(m.end);
  }
  if (vdso) {
    loaded_.push_back({vdso, vdso, 0, ""});
    ends.push_back(vdso + 2 * 4096);
  }
  dwfl_report_begin(dwfl_);
  for (std::size_t i = 0; i < loaded_.size(); ++i) {
    const mapping& m = loaded_[i];
    Dwfl_Module* const module = dwfl_report_module(dwfl_, m.path.empty() ? "[vdso]" : m.path.c_str(), m.start, ends[i]);
    void** self = nullptr;
    if (module && dwfl_module_info(module, &self, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr)) *self = this;
  }
  dwfl_report_end(dwfl_, nullptr, nullptr);
}

int image::find_elf(Dwfl_Module*, void** self, const char* name, Dwarf_Addr base, char** path, Elf** elf) {
  auto* const i = static_cast<image*>(*self);
  const auto m = std::find_if(i->loaded_.begin(), i->loaded_.end(), [=](const mapping& l) { return l.start == base; });
  if (m == i->loaded_.end()) return -1;
  *elf = m->path.empty() ? nullptr : i->open(*m);
  if (!*elf) {
    if (!m->path.empty()) i->missing_.push_back(m->path);
    *elf = i->from_memory(base);
  }
  if (*elf) *path = strdup(name);  // libdwfl's to free
  return -1;
}

// Never over the network.
int image::find_debug_file(Dwfl_Module* module, void** self, const char* name, Dwarf_Addr base, const char* file,
                           const char* link, GElf_Word checksum, char** path) {
  return dwfl_build_id_find_debuginfo(module, self, name, base, file, link, checksum, path);
}

// Nothing: that is not known.
std::optional<std::string> image::loaded_id(const mapping& first) {
  loaded_headers there;
  std::optional<std::string> id;
  opening_ = true;  // its memory is not to be looked for in files: that would be this one
  if (there.read(of_, first.start)) id = there.build_id(of_);
  opening_ = false;
  return id;
}

// The file, if it is what was loaded: it may have been replaced since, or be another machine's.
Elf* image::open(const mapping& first) {
  const auto id = loaded_id(first);
  for (unsigned attempt = 0;; ++attempt) {
    const descriptor file = files_(first, attempt);
    if (!file) return nullptr;
    Elf* const elf = elf_begin(file.get(), ELF_C_READ_MMAP, nullptr);
    if (!elf) continue;
    elf_cntl(elf, ELF_C_FDREAD);
    if (elf_kind(elf) == ELF_K_ELF && (!id || build_id_of(elf) == *id)) return elf;
    elf_end(elf);
  }
}

bool image::is_loaded(const descriptor& file, const mapping& first) {
  const auto id = loaded_id(first);
  Elf* const elf = elf_begin(file.get(), ELF_C_READ_MMAP, nullptr);
  const bool is = elf && elf_kind(elf) == ELF_K_ELF && (!id || build_id_of(elf) == *id);
  elf_end(elf);
  return is;
}

// Of what has no file, what is loaded of it: that is enough to undo frames, and has the exported names.
Elf* image::from_memory(std::uintptr_t base) {
  opening_ = true;
  Elf* const elf = copy_from_memory(base);
  opening_ = false;
  return elf;
}

Elf* image::copy_from_memory(std::uintptr_t base) {
  loaded_headers there;
  if (!there.read(of_, base)) return nullptr;
  std::size_t size = sizeof there.file;
  for (const Elf64_Phdr& s : there.segments)
    if (s.p_type == PT_LOAD && s.p_offset < most_of_a_file && s.p_filesz < most_of_a_file)
      size = std::max<std::size_t>(size, s.p_offset + s.p_filesz);
  // What a damaged header tells of is never touched, and takes no memory.
  std::unique_ptr<char, void (*)(void*)> copy(static_cast<char*>(std::calloc(size, 1)), std::free);
  if (!copy) return nullptr;
  for (const Elf64_Phdr& s : there.segments) {
    if (s.p_type != PT_LOAD || s.p_offset + s.p_filesz > size) continue;
    const std::size_t n = of_.read(there.bias + s.p_vaddr, copy.get() + s.p_offset, s.p_filesz);
    if (n < s.p_filesz && !(s.p_flags & PF_W)) return nullptr;  // a core file that has not all
  }
  there.file.e_shoff = 0;  // sections are not loaded
  there.file.e_shnum = 0;
  there.file.e_shstrndx = 0;
  std::memcpy(copy.get(), &there.file, sizeof there.file);
  Elf* const elf = elf_memory(copy.get(), size);
  copies_.push_back(std::move(copy));
  return elf;
}

// -- Questions -----------------------------------------------------------------------------------------

bool image::find_in(Dwfl_Module* module, const std::string& prefix, symbol& found) const {
  const int n = dwfl_module_getsymtab(module);
  for (int i = 0; i < n; ++i) {
    GElf_Sym s;
    GElf_Addr address = 0;
    const char* const name = dwfl_module_getsym_info(module, i, &s, &address, nullptr, nullptr, nullptr);
    if (!name || s.st_shndx == SHN_UNDEF || std::strncmp(name, prefix.c_str(), prefix.size()) != 0) continue;
    const char* const object = dwfl_module_info(module, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr);
    found = {name, address, object ? object : ""};
    return true;
  }
  return false;
}

bool image::find_symbol(const std::string& prefix, symbol& found) const {
  std::vector<Dwfl_Module*> likely, others;
  for (const mapping& m : loaded_) {
    Dwfl_Module* const module = dwfl_addrmodule(dwfl_, m.start);
    if (module) (m.path.find("/libgreenlet.so") != std::string::npos ? likely : others).push_back(module);
  }
  likely.insert(likely.end(), others.begin(), others.end());
  return std::any_of(likely.begin(), likely.end(), [&](Dwfl_Module* m) { return find_in(m, prefix, found); });
}

const mapping* image::file_at(std::uintptr_t address) const noexcept {
  Dwarf_Addr begin = 0;
  Dwfl_Module* const module = dwfl_addrmodule(dwfl_, address);
  if (!module || !dwfl_module_info(module, nullptr, &begin, nullptr, nullptr, nullptr, nullptr, nullptr)) return nullptr;
  const auto found = std::find_if(loaded_.begin(), loaded_.end(), [=](const mapping& m) { return m.start == begin; });
  return found == loaded_.end() ? nullptr : &*found;
}

std::string image::find_object(const std::string& part_of_name) const {
  const auto found = std::find_if(loaded_.begin(), loaded_.end(),
                                  [&](const mapping& m) { return m.path.find(part_of_name) != std::string::npos; });
  return found == loaded_.end() ? "" : found->path;
}

std::size_t image::count_objects(const std::string& part_of_name) const {
  return static_cast<std::size_t>(std::count_if(loaded_.begin(), loaded_.end(),
                                                [&](const mapping& m) { return m.path.find(part_of_name) != std::string::npos; }));
}

std::vector<writable_part> image::writable() const {
  std::vector<writable_part> all;
  for (const mapping& m : loaded_) {
    loaded_headers there;
    if (!there.read(of_, m.start)) continue;
    for (const Elf64_Phdr& s : there.segments)
      if (s.p_type == PT_LOAD && s.p_flags & PF_W) all.push_back({(there.bias + s.p_vaddr + 7) & ~std::uintptr_t{7}, s.p_filesz, m.path});
  }
  return all;
}

std::size_t image::read_file(std::uintptr_t from, void* to, std::size_t size) const {
  if (opening_) return 0;
  Dwfl_Module* const module = dwfl_addrmodule(dwfl_, from);
  GElf_Addr bias = 0;
  Elf* const elf = module ? dwfl_module_getelf(module, &bias) : nullptr;
  std::size_t n = 0;
  if (!elf || elf_getphdrnum(elf, &n) != 0) return 0;
  for (std::size_t i = 0; i < n; ++i) {
    GElf_Phdr s;
    if (!gelf_getphdr(elf, static_cast<int>(i), &s) || s.p_type != PT_LOAD || s.p_flags & PF_W) continue;
    const std::uintptr_t at = from - bias;
    if (at < s.p_vaddr || at - s.p_vaddr >= s.p_filesz) continue;
    const std::size_t there = std::min<std::size_t>(size, s.p_filesz - (at - s.p_vaddr));
    std::size_t raw = 0;
    const char* const file = elf_rawfile(elf, &raw);
    const std::size_t offset = s.p_offset + (at - s.p_vaddr);
    if (!file || offset > raw || there > raw - offset) return 0;
    std::memcpy(to, file + offset, there);
    return there;
  }
  return 0;
}

}  // namespace greenlets::outside
