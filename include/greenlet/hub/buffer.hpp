// SPDX-License-Identifier: MIT
// reader, writer: a buffer before and behind a descriptor, for protocols of lines and small pieces.
//
//   hub::reader in(connection);
//   hub::writer out(connection);
//   in.flushes(out);                          // before it reads: one write for as many lines as came at once
//   for (std::string_view line; in.read_line(line); ) {
//     out.write(line);
//     out.write("\n");
//   }
#ifndef GREENLET_HUB_BUFFER_HPP
#define GREENLET_HUB_BUFFER_HPP

#include <greenlet/hub/io.hpp>

#include <cstddef>
#include <memory>
#include <string_view>

namespace greenlets::hub {

class writer;

/// Reads ahead. What has been read and not taken stays here whatever ends a wait: after a deadline, or something thrown in,
/// the same call goes on where it was. Refers to the descriptor, which has to live as long. The buffer is made at the
/// first use, of 4 KiB, and doubled when something larger has to be in it whole. Thread: as the descriptor.
class GREENLET_API reader {
 public:
  /// `most`: how many bytes the buffer may grow to, and so the longest line.
  explicit reader(descriptor& from, std::size_t most = 64 * 1024) noexcept : from_(&from), most_(most) {}
  reader(const reader&) = delete;
  reader& operator=(const reader&) = delete;

  /// From now on `out` is flushed, with the same deadline, before anything is read from the descriptor: nobody then waits
  /// for an answer to what stands in the buffer. When that fails its error is the result. Refers to it.
  void flushes(writer& out) noexcept { before_ = &out; }

  /// What is there, read and not taken; valid until the next call of something that is not const.
  std::string_view buffered() const noexcept { return {data_.get() + begin_, end_ - begin_}; }
  /// Takes `n` bytes of it, which have to be there.
  void consume(std::size_t n) noexcept { begin_ += n; }
  /// Reads more of it: at least a byte. message_size when there are `most` already.
  /// Switches, throws: as descriptor::read_some(), and std::bad_alloc; nothing is lost.
  io_result fill(deadline until = {});

  /// Reads up to the delimiter, which is taken as well, and is no part of `found`. `found` is valid until the next call.
  /// `bytes` are those taken. At the end of the stream, when something is left without a delimiter, it stays in buffered().
  /// message_size: there are `most` bytes without one. Switches, throws: as fill().
  io_result read_until(std::string_view delimiter, std::string_view& found, deadline until = {});
  /// Up to "\n"; a "\r" before it is not part of the line either.
  io_result read_line(std::string_view& line, deadline until = {});
  /// `size` bytes, in `found`, valid until the next call. message_size: more than `most`.
  io_result read(std::size_t size, std::string_view& found, deadline until = {});
  /// As descriptor's, of what is buffered first. Large pieces do not go through the buffer.
  io_result read_some(void* data, std::size_t size, deadline until = {});
  /// As descriptor's. Unless it came whole nothing is taken, up to `most` bytes; of more what came is in `data`.
  io_result read_exactly(void* data, std::size_t size, deadline until = {});

 private:
  void make_room();
  io_result flush_first(deadline until);

  descriptor* from_;
  writer* before_ = nullptr;
  std::size_t most_;
  std::unique_ptr<char[]> data_;
  std::size_t capacity_ = 0, begin_ = 0, end_ = 0;
};

/// Gathers small pieces. What has not been written stays here whatever ends a wait, and is written first by the next call;
/// nothing is written twice. It does not flush when it goes: that could wait. Refers to the descriptor, which has to
/// live as long. Thread: as the descriptor.
class GREENLET_API writer {
 public:
  /// `size`: of the buffer, which is made at the first use.
  explicit writer(descriptor& to, std::size_t size = 16 * 1024) noexcept : to_(&to), capacity_(size) {}
  writer(const writer&) = delete;
  writer& operator=(const writer&) = delete;

  /// Puts it into the buffer; when that is full all of both is written, in one system call when the other side keeps up.
  /// `bytes`: of `data`, taken over, also when an error or the deadline came. Switches: to the hub, when it has to wait.
  /// Throws: as descriptor::write_all(), and std::bad_alloc.
  io_result write(std::string_view data, deadline until = {});
  /// Writes what is in the buffer; `bytes`: how many of these.
  io_result flush(deadline until = {});
  std::size_t buffered() const noexcept { return end_ - begin_; }

 private:
  descriptor* to_;
  std::size_t capacity_;
  std::unique_ptr<char[]> data_;
  std::size_t begin_ = 0, end_ = 0;
};

}  // namespace greenlets::hub

#endif
