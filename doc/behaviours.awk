# SPDX-License-Identifier: MIT
# Writes doc/behaviours.md: awk -f behaviours.awk behaviours.in TEST... (sources whose titles name rows).
# Says on standard error, and by its exit status, which rows and titles do not fit together.
#
# A title is TEST_CASE("ROW, ROW...: TEXT"), in C and in scripts inside a comment, on one line.

FNR == 1 { source = FILENAME; sub(/^.*\/t\//, "t/", source) }

FILENAME == ARGV[1] {
  sub(/[ \t]+$/, "")
  if (/^#( |$)/ || /^$/) next
  if (/^## /) {
    headings++
    heading[headings] = substr($0, 4)
    field = ""
  } else if (/^([0-9]+ [DA]|B[0-9]+) /) {
    row = $1
    if (row in statement) wrong("row " row " is given twice")
    kind[row] = row ~ /^B/ ? "B" : $2
    sub(kind[row] == "B" ? "^[^ ]+ " : "^[^ ]+ [DA] ", "")
    statement[row] = $0
    order[++rows] = row
    under[row] = headings
    field = "statement"
  } else if (/^(instead|cannot|open): /) {
    field = $1
    sub(/:$/, "", field)
    sub(/^[a-z]+: /, "")
    if (field == "instead") instead[row] = $0
    if (field == "cannot") cannot[row] = $0
    if (field == "open") open[row] = $0
  } else if (/^ / && field != "") {
    sub(/^ +/, " ")
    if (field == "statement") statement[row] = statement[row] $0
    if (field == "instead") instead[row] = instead[row] $0
    if (field == "cannot") cannot[row] = cannot[row] $0
    if (field == "open") open[row] = open[row] $0
  } else {
    wrong("line " FNR " is none of these: " $0)
  }
  next
}

/TEST_CASE(_TEMPLATE)?\("/ {
  title = $0
  sub(/^.*TEST_CASE(_TEMPLATE)?\("/, "", title)
  # To the quote that ends it, over those that are escaped.
  if (!match(title, /^([^"\\]|\\.)*"/)) { wrong(source ": no end: " title); next }
  title = substr(title, 1, RLENGTH - 1)
  gsub(/\\"/, "\"", title)
  if (!match(title, /^B?[0-9]+(, B?[0-9]+)*: /)) next
  named = substr(title, 1, RLENGTH - 2)
  text = substr(title, RLENGTH + 1)
  count = split(named, names, /, /)
  for (i = 1; i <= count; i++) {
    if (!(names[i] in statement)) wrong(source ": there is no row " names[i] ": " title)
    tests[names[i]] = tests[names[i]] "<br>" (last[names[i]] == source ? "" : "`" source "`<br>") "· " cell(text)
    last[names[i]] = source
  }
  next
}

# A title that goes on on the next line would be missed.
/TEST_CASE(_TEMPLATE)?\($/ { wrong(source ": the title is not on the line of its TEST_CASE") }

function wrong(what) {
  print "behaviours: " what | "cat >&2"
  failed = 1
}

function cell(text) {
  gsub(/\|/, "\\|", text)
  gsub(/</, "\\&lt;", text)
  return text
}

# In code, between backquotes, entities would be seen as they are written.
function marked(text,    parts, n, k, result) {
  n = split(text, parts, /`/)
  for (k = 1; k <= n; k++) {
    if (k % 2) result = result cell(parts[k])
    else {
      gsub(/\|/, "\\|", parts[k])
      result = result "`" parts[k] "`"
    }
  }
  return result
}

function notes(row,    text) {
  if (row in instead) text = marked(instead[row])
  if (row in cannot) text = text (text == "" ? "" : "<br>") "No test: " marked(cannot[row])
  if (row in open) text = text (text == "" ? "" : "<br>") "*Open: " marked(open[row]) "*"
  return text
}

function table(first_column, third_column, bugs,    i, row, at) {
  for (i = 1; i <= rows; i++) {
    row = order[i]
    if ((kind[row] == "B") != bugs) continue
    if (under[row] != at) {
      at = under[row]
      if (!bugs) print "\n### " heading[at]
      print "\n| " first_column " | what holds | " third_column " | tests |\n|---|---|---|---|"
    }
    sub(/^<br>/, "", tests[row])
    print "| " row (bugs ? "" : " " kind[row]) " | " marked(statement[row]) " | " notes(row) " | " tests[row] " |"
  }
}

END {
  for (i = 1; i <= rows; i++) {
    row = order[i]
    if (row in tests) {
      tested++
      if (row in cannot) wrong("row " row " has a test, and says why it cannot have one")
      if (row in open) wrong("row " row " has a test, and says that it waits for one: " open[row])
    } else if (row in cannot) {
      impossible++
    } else if (row in open) {
      waiting++
    } else {
      wrong("row " row " has no test: " statement[row])
    }
  }
  print "<!-- Made by `make behaviours` from doc/behaviours.in and the titles of the tests: do not edit. -->"
  print "# Behaviours\n"
  print "What libgreenlet does, and the tests that show it. Rows marked D are as in the Python package greenlet, those"
  print "marked A are what C++ has in place of something that only Python has; the third column says where we differ on"
  print "purpose. The numbers are for ever, and have gaps. A test case begins with the numbers of the rows that it"
  print "shows: `t/finish -tc='*62*'` runs those of row 62.\n"
  print rows " rows: " tested + 0 " with tests, " impossible + 0 " that cannot have one, " waiting + 0 " open.\n"
  print "## Rows"
  table("row", "instead of Python's way", 0)
  print "\n## Errors of others\n"
  print "What went wrong in other implementations once, and would be caught here."
  table("error", "notes", 1)
  close("cat >&2")
  exit failed
}
