# SPDX-License-Identifier: MIT
# Prints what a public header declares for its users, one a line: kind, owner, name.
#
#   type - task            of namespace greenlets, of its part hub or gc (then that), or of C (then "c")
#   function task join     a member of class task; "hub.task" if in that part, "hub::redis.task" in a part of that
#   constant errc no_run   an enumerator; a macro is a constant of "c"
#   private value find     a member function that is not for users
#
# It relies on how the headers are laid out: one declaration begins on a line of its own, two columns
# further in than what it is in; detail, operators and constructors are left out.

function emit(kind, name) {
  print kind, (depth ? (part == "-" ? "" : part ".") owner[depth] : part), name
}

function open_scope(name, is_enum, is_public) {
  ++depth
  owner[depth] = depth > 1 ? owner[depth - 1] : name
  self[depth] = name
  enumeration[depth] = is_enum
  visible[depth] = is_public
}

# The identifier that stands last in `text`.
function last_word(text) {
  sub(/[^A-Za-z0-9_]+$/, "", text)
  sub(/^.*[^A-Za-z0-9_]/, "", text)
  return text
}

# A namespace is closed by a line that says which: else all that follows would be taken for hidden.
function end_of_file() {
  if (part != "" && part != "c") print "error", file, "does-not-close-its-namespace"
}

FNR == 1 { end_of_file(); file = FILENAME }
END { end_of_file() }
FNR == 1 { part = FILENAME ~ /\.h$/ ? "c" : ""; depth = 0; hidden = 0 }

/^#define GREENLET_/ {
  if ($2 !~ /_(H|HPP)$/) { name = $2; sub(/\(.*/, "", name); print "constant c", name }
  next
}
/^ *(\/\/|#|$)/ { next }
/^namespace greenlets \{/ { part = "-"; next }
/^namespace greenlets::(hub|gc) \{/ { part = $0 ~ /hub/ ? "hub" : "gc"; next }
/^namespace greenlets::hub::[a-z]+ \{/ && !/::detail/ { part = $2; sub(/^greenlets::/, "", part); next }
/^namespace (detail|greenlets::detail) \{/ { hidden = 1; next }
/^}  \/\/ namespace/ { if (hidden) hidden = 0; else part = ""; next }
hidden || part == "" || /extern "C"/ { next }

{
  sub(/ *\/\/.*/, "")
  gsub(/GREENLET_API /, "")
  gsub(/\[\[[a-z]*\]\] /, "")
  match($0, /^ */)
  indent = RLENGTH
  text = substr($0, indent + 1)
}

# The end of a class or of an enumeration.
depth && indent == 2 * (depth - 1) && text ~ /^}/ {
  --depth
  if (text ~ /^} [a-z]/) emit("type", last_word(text))
  next
}
depth && indent == 2 * depth - 1 { visible[depth] = text == "public:"; next }
depth && indent == 2 * depth && !visible[depth] && text ~ /\(/ {
  # Libraries export these, too.
  sub(/\(.*/, "", text)
  emit("private", last_word(text))
  next
}
indent != 2 * depth || (depth && !visible[depth]) { next }

depth && enumeration[depth] {
  sub(/[ ,=].*/, "", text)
  emit("constant", text)
  next
}
text ~ /^(friend|template|static_assert|extern|}|:)/ || text ~ /operator/ { next }

text ~ /^(typedef )?(class|struct|enum|enum class)( [A-Za-z_:<>]+)?( : [^;]*)? \{/ {
  name = text
  sub(/ *( : .*)?\{.*/, "", name)
  was_enum = text ~ /^(typedef )?enum/
  was_typedef = text ~ /^typedef/
  of = name
  sub(/^.* /, "", of)
  if (of == "enum") of = "-"
  nested = of ~ /::/
  if (!nested && !was_typedef && of != "-" && !(text ~ /};$/ && !was_enum)) emit("type", of)
  if (text ~ /}/) {
    # All on one line.
    list = text
    sub(/^[^{]*\{ */, "", list)
    sub(/ *}.*/, "", list)
    count = split(list, each, / *, */)
    open_scope(of, was_enum, 1)
    for (i = 1; was_enum && i <= count; ++i) emit("constant", each[i])
    --depth
  } else {
    # A member class that is defined outside belongs to its class.
    if (nested) { sub(/::.*/, "", of); sub(/<.*/, "", of) }
    open_scope(of, was_enum, was_enum || text ~ /struct/)
    if (nested) { self[depth] = name; sub(/^.*::/, "", self[depth]) }
  }
  next
}
text ~ /^(class|struct|enum class) [a-z_]+;/ { if (depth) emit("type", last_word(text)); next }
text ~ /^typedef [^(]*;/ { emit("type", last_word(text)); next }
text ~ /^using / { if (!depth) emit("type", $2); next }

depth && match(text, /^[^(]*\(\*[a-z_]+\)\(/) {
  sub(/^[^(]*\(\*/, "", text)
  sub(/\).*/, "", text)
  emit("member", text)
  next
}
text ~ /\(/ {
  name = substr(text, 1, index(text, "(") - 1)
  if (name ~ /::[a-z_]+$/ && name !~ / [a-z_]+$/) next  # a definition outside its class
  name = last_word(name)
  if (depth && (name == self[depth] || text ~ /^(explicit |constexpr |virtual )*~/)) next
  emit("function", name)
  next
}
depth && text ~ /;$/ {
  sub(/( = .*)?;$/, "", text)
  name = last_word(text)
  if (name !~ /_$/) emit("member", name)
}
