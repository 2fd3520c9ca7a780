// SPDX-License-Identifier: MIT
// reader, writer: what stays between two system calls.
#include <greenlet/hub/buffer.hpp>

#include <algorithm>
#include <cstring>
#include <utility>

namespace greenlets::hub {

// Half of the buffer at least, behind what is there: by moving that to the front, and by a larger buffer.
void reader::make_room() {
  const std::size_t there = end_ - begin_;
  if (begin_ > 0 && there > 0) std::memmove(data_.get(), data_.get() + begin_, there);
  begin_ = 0;
  end_ = there;
  if (capacity_ == most_ || (capacity_ > 0 && there <= capacity_ / 2)) return;
  const std::size_t larger = std::min(most_, std::max<std::size_t>(2 * capacity_, 4096));
  std::unique_ptr<char[]> data(new char[larger]);
  if (there > 0) std::memcpy(data.get(), data_.get(), there);
  data_ = std::move(data);
  capacity_ = larger;
}

io_result reader::flush_first(deadline until) {
  if (!before_ || !before_->buffered()) return io_result::done(0);
  const io_result r = before_->flush(until);
  return r ? io_result::done(0) : io_result::failed(r.error.value());
}

io_result reader::fill(deadline until) {
  if (end_ - begin_ >= most_) return io_result::failed(std::errc::message_size);
  if (const io_result r = flush_first(until); !r) return r;
  if (begin_ == end_ || end_ > capacity_ / 2) make_room();
  const io_result r = from_->read_some(data_.get() + end_, capacity_ - end_, until);
  end_ += r.bytes;
  return r;
}

io_result reader::read_until(std::string_view delimiter, std::string_view& found, deadline until) {
  for (std::size_t looked = 0;;) {
    const std::string_view there = buffered();
    if (const std::size_t at = there.find(delimiter, looked); at != there.npos) {
      found = there.substr(0, at);
      consume(at + delimiter.size());
      return io_result::done(at + delimiter.size());
    }
    // Its first bytes may be there.
    looked = there.size() - std::min(there.size(), delimiter.size() - 1);
    if (io_result r = fill(until); !r) {
      r.bytes = 0;
      return r;
    }
  }
}

io_result reader::read_line(std::string_view& line, deadline until) {
  const io_result r = read_until("\n", line, until);
  if (r && !line.empty() && line.back() == '\r') line.remove_suffix(1);
  return r;
}

io_result reader::read(std::size_t size, std::string_view& found, deadline until) {
  if (size > most_) return io_result::failed(std::errc::message_size);
  while (end_ - begin_ < size)
    if (io_result r = fill(until); !r) {
      r.bytes = 0;
      return r;
    }
  found = buffered().substr(0, size);
  consume(size);
  return io_result::done(size);
}

io_result reader::read_some(void* data, std::size_t size, deadline until) {
  if (size == 0) return io_result::done(0);
  if (begin_ == end_) {
    if (size >= std::min<std::size_t>(most_, 4096)) {
      const io_result r = flush_first(until);
      return r ? from_->read_some(data, size, until) : r;
    }
    if (io_result r = fill(until); !r) return r;
  }
  const std::size_t n = std::min(size, end_ - begin_);
  std::memcpy(data, data_.get() + begin_, n);
  consume(n);
  return io_result::done(n);
}

io_result reader::read_exactly(void* data, std::size_t size, deadline until) {
  if (size <= most_) {
    std::string_view found;
    const io_result r = read(size, found, until);
    if (r && size > 0) std::memcpy(data, found.data(), size);
    return r;
  }
  if (const io_result r = flush_first(until); !r) return r;
  const std::size_t ours = end_ - begin_;
  if (ours > 0) std::memcpy(data, data_.get() + begin_, ours);
  begin_ = end_ = 0;
  io_result r = from_->read_exactly(static_cast<char*>(data) + ours, size - ours, until);
  r.bytes += ours;
  return r;
}

io_result writer::write(std::string_view data, deadline until) {
  std::size_t taken = 0;
  for (;;) {
    const std::size_t left = data.size() - taken;
    if (left <= capacity_ - end_) {
      if (!data_) data_.reset(new char[capacity_]);
      if (left > 0) std::memcpy(data_.get() + end_, data.data() + taken, left);
      end_ += left;
      return io_result::done(data.size());
    }
    const iovec both[] = {{data_.get() + begin_, buffered()}, {const_cast<char*>(data.data()) + taken, left}};
    const io_result r = buffered() ? to_->try_write_pieces(both, 2) : to_->try_write(both[1].iov_base, left);
    if (!r) return io_result::failed(r.error.value(), taken);
    const std::size_t of_ours = std::min(r.bytes, buffered());
    begin_ += of_ours;
    taken += r.bytes - of_ours;
    if (begin_ == end_) begin_ = end_ = 0;
    if (taken == data.size()) return io_result::done(taken);
    if (const io_result w = to_->wait(direction::writable, until); !w) return io_result::failed(w.error.value(), taken);
  }
}

io_result writer::flush(deadline until) {
  for (std::size_t moved = 0;;) {
    const io_result r = to_->try_write(data_.get() + begin_, buffered());
    if (!r) return io_result::failed(r.error.value(), moved);
    moved += r.bytes;
    begin_ += r.bytes;
    if (begin_ == end_) {
      begin_ = end_ = 0;
      return io_result::done(moved);
    }
    if (const io_result w = to_->wait(direction::writable, until); !w) return io_result::failed(w.error.value(), moved);
  }
}

}  // namespace greenlets::hub
