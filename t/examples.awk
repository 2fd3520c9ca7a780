# SPDX-License-Identifier: MIT
# Takes the programs out of README, a manual page or a public header.
#
#   awk -v to=PREFIX -f t/examples.awk FILE
#
# A program is a block that begins with #include; what it prints is the block after "prints". A block is
# indented by four columns (README), between .Bd -literal and .Ed (manual), or a comment's, indented by
# two columns more (headers). Writes PREFIX1.cpp and PREFIX1.expected, and so on; a program that
# includes <greenlet/greenlet.h> and nothing else of ours is C. A header need not
# say what its program prints.

function finish() {
  blank = 0
  if (text ~ /^#include/) {
    if (waiting) complain()
    ++number
    language = text ~ /#include <greenlet\/greenlet\.h>/ && text !~ /#include <greenlet\/[a-z\/]*\.hpp>/ ? "c" : "cpp"
    out = to number "." language
    printf "%s", text >out
    close(out)
    waiting = 1
  } else if (prints && waiting) {
    out = to number ".expected"
    printf "%s", text >out
    close(out)
    waiting = 0
  }
  prints = 0
}

function complain() {
  if (kind != "header") print FILENAME ": does not say what program " number " prints"
}

BEGIN {
  kind = "README"
  number = 0
}
FNR == 1 && /SPDX/ { kind = /^\.\\"/ ? "manual" : "header" }

{ line = $0; block = 0 }
kind == "README" { block = sub(/^    /, "", line) || (inside && line == "") }
kind == "header" {
  if (line !~ /^\/\//) exit  # only the comment that it opens with
  block = sub(/^\/\/   /, "", line) || (inside && line == "//")
  sub(/^\/\/ ?/, "", line)
}
kind == "manual" && /^\.Bd -literal/ { in_literal = 1; next }
kind == "manual" && /^\.Ed/ { in_literal = 0 }
kind == "manual" && in_literal {
  block = 1
  gsub(/\\-/, "-", line)
  gsub(/\\\(aq/, "'", line)
  gsub(/\\\(ga/, "`", line)
  gsub(/\\\(ha/, "^", line)
  gsub(/\\\(ti/, "~", line)
  gsub(/\\&/, "", line)
  gsub(/\\e/, "\\", line)
}
kind == "manual" && !in_literal && /^\.(Pp|Ed)/ { line = "" }

# Blank lines belong to a block if more of it follows.
block && line == "" { ++blank; next }
block && !inside {
  inside = 1
  blank = 0
  text = ""
}
block {
  for (; blank > 0; --blank) text = text "\n"
  text = text line "\n"
  next
}
inside { inside = 0; finish() }
line != "" { prints = line ~ /^prints$/ }

END {
  if (inside) finish()
  if (waiting) complain()
}
