// SPDX-License-Identifier: MIT
// Reading a core file, which may be cut short or be something else altogether: nothing in it is believed.
#include "core.hpp"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/procfs.h>
#include <sys/stat.h>

namespace greenlets::outside {

core::core(const std::string& file) : file_(file) {
  map();
  read_headers();
  std::sort(segments_.begin(), segments_.end(), [](const segment& a, const segment& b) { return a.start < b.start; });
  if (threads_.empty()) damaged("has no threads");
  if (!pid_) pid_ = threads_.front().tid;
}

core::~core() {
  if (bytes_) munmap(const_cast<char*>(bytes_), size_);
}

void core::damaged(const std::string& how) const { throw failure(status::unreadable, file_ + ' ' + how); }

void core::map() {
  const descriptor fd(::open(file_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // not to wait for who writes to a FIFO
  struct stat s;
  if (!fd || fstat(fd.get(), &s) != 0)
    throw failure(errno == EACCES || errno == EPERM ? status::refused : status::unreadable, with_reason("cannot open " + file_));
  if (!S_ISREG(s.st_mode)) damaged("is not a file");
  if (static_cast<std::size_t>(s.st_size) < sizeof(Elf64_Ehdr)) damaged("is not a core file");
  size_ = static_cast<std::size_t>(s.st_size);
  void* const all = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (all == MAP_FAILED) throw failure(status::failed, with_reason("mmap"));
  bytes_ = static_cast<const char*>(all);
}

const char* core::at(std::uint64_t offset, std::uint64_t size) const {
  if (offset > size_ || size > size_ - offset) damaged("is cut short");
  return bytes_ + offset;
}

void core::read_headers() {
  Elf64_Ehdr header;
  std::memcpy(&header, at(0, sizeof header), sizeof header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_type != ET_CORE) damaged("is not a core file");
  check_machine(header.e_ident, header.e_machine, file_);
  // More segments than fit into the number there: ELF's gABI, "Program header".
  std::uint64_t n = header.e_phnum;
  if (n == PN_XNUM) {
    Elf64_Shdr first;
    std::memcpy(&first, at(header.e_shoff, sizeof first), sizeof first);
    n = first.sh_info;
  }
  if (header.e_phentsize != sizeof(Elf64_Phdr)) damaged("is damaged: the size of its program headers");
  for (std::uint64_t i = 0; i < n; ++i) {
    Elf64_Phdr s;
    std::memcpy(&s, at(header.e_phoff + i * sizeof s, sizeof s), sizeof s);
    if (s.p_type == PT_NOTE) read_notes(at(s.p_offset, s.p_filesz), s.p_filesz);
    if (s.p_type != PT_LOAD || s.p_filesz == 0) continue;
    const std::uint64_t there = s.p_offset < size_ ? std::min<std::uint64_t>(s.p_filesz, size_ - s.p_offset) : 0;
    truncated_ = truncated_ || there < s.p_filesz;
    if (there) segments_.push_back({s.p_vaddr, there, bytes_ + s.p_offset});
  }
}

void core::read_notes(const char* notes, std::size_t size) {
  const auto rounded = [](std::size_t n) { return (n + 3) & ~std::size_t{3}; };
  for (std::size_t at = 0; size - at >= sizeof(Elf64_Nhdr);) {
    Elf64_Nhdr n;
    std::memcpy(&n, notes + at, sizeof n);
    at += sizeof n;
    if (rounded(n.n_namesz) > size - at) damaged("is damaged: its notes");
    at += rounded(n.n_namesz);
    if (n.n_descsz > size - at) damaged("is damaged: its notes");
    read_note(n.n_type, notes + at, n.n_descsz);
    at += std::min(rounded(n.n_descsz), size - at);
  }
}

void core::read_note(unsigned type, const char* data, std::size_t size) {
  if (type == NT_PRSTATUS && size >= sizeof(elf_prstatus)) {
    elf_prstatus s;
    std::memcpy(&s, data, sizeof s);
    user_regs_struct registers;
    static_assert(sizeof s.pr_reg == sizeof registers);
    std::memcpy(&registers, &s.pr_reg, sizeof registers);
    thread_state t;
    t.tid = t.own = s.pr_pid;
    t.has_registers = true;
    set(t.at, registers);
    threads_.push_back(t);
  } else if (type == NT_PRPSINFO && size >= sizeof(elf_prpsinfo)) {
    elf_prpsinfo p;
    std::memcpy(&p, data, sizeof p);
    pid_ = p.pr_pid;
  } else if (type == NT_AUXV) {
    auxiliary_.resize(size / sizeof(Elf64_auxv_t));
    std::memcpy(auxiliary_.data(), data, auxiliary_.size() * sizeof(Elf64_auxv_t));
  } else if (type == NT_FILE) {
    read_files(data, size);
  }
}

// A number of files, the size of the unit of offsets; for each start, end, offset; and then their names.
void core::read_files(const char* data, std::size_t size) {
  const auto word = [&](std::size_t i) {
    std::uint64_t w = 0;
    if (i >= size / sizeof w) damaged("is damaged: its list of files");
    std::memcpy(&w, data + i * sizeof w, sizeof w);
    return w;
  };
  const std::uint64_t n = word(0);
  const std::uint64_t unit = word(1);
  if (n > size / 24) damaged("is damaged: its list of files");
  std::size_t name = (2 + 3 * n) * sizeof(std::uint64_t);
  for (std::uint64_t i = 0; i < n && name < size; ++i) {
    const char* const text = data + name;
    const std::size_t length = strnlen(text, size - name);
    mappings_.push_back({word(2 + 3 * i), word(3 + 3 * i), word(4 + 3 * i) * unit, std::string(text, length)});
    name += length + 1;
  }
}

// What has this name now may be something else, a FIFO say.
descriptor core::open(const mapping& first, unsigned attempt) const {
  return descriptor(attempt == 0 ? ::open(first.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1);
}

std::uintptr_t core::auxiliary(unsigned long type) const {
  const auto found = std::find_if(auxiliary_.begin(), auxiliary_.end(), [=](const Elf64_auxv_t& a) { return a.a_type == type; });
  return found == auxiliary_.end() ? 0 : found->a_un.a_val;
}

std::size_t core::read_segment(std::uintptr_t from, char* to, std::size_t size) const {
  auto s = std::upper_bound(segments_.begin(), segments_.end(), from, [](std::uintptr_t a, const segment& b) { return a < b.start; });
  if (s == segments_.begin()) return 0;
  --s;
  const std::uintptr_t within = from - s->start;
  if (within >= s->size) return 0;
  const std::size_t n = std::min(size, s->size - within);
  std::memcpy(to, s->data + within, n);
  return n;
}

void core::read(part* parts, std::size_t n) noexcept {
  for (part* p = parts; p != parts + n; ++p) {
    p->done = 0;
    while (p->done < p->bytes) {
      char* const to = static_cast<char*>(p->to) + p->done;
      std::size_t got = read_segment(p->from + p->done, to, p->bytes - p->done);
      if (got == 0 && files_) got = files_->read_file(p->from + p->done, to, p->bytes - p->done);
      if (got == 0) break;
      p->done += got;
    }
  }
}

}  // namespace greenlets::outside
