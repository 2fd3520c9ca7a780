# SPDX-License-Identifier: MIT
# Prints the declarations of a manual page's SYNOPSIS, one a line, as a header has them.

function finish() {
  gsub(/[ \t]+/, " ", statement)
  sub(/^ /, "", statement)
  # What a template is of would be followed by what only the compiler reads.
  sub(/^template <[^<>]*(<[^<>]*>[^<>]*)*> /, "", statement)
  sub(/ *[;{]?$/, "", statement)
  if (statement != "" && statement !~ /^[{}]$/) print statement
  statement = ""
}

# What .Fn is given: a name, and the parameters in quotes.
function prototype(line,    result, count, each, i, separator) {
  count = split(line, each, /"/)
  if (count == 1) {
    split(line, each, / /)
    return each[1] "(" each[2] ")"
  }
  result = each[1]
  sub(/ $/, "", result)
  result = result "("
  for (i = 2; i <= count; i += 2) {
    result = result separator each[i]
    separator = ", "
  }
  return result ")"
}

/^\.Sh / { in_synopsis = $2 == "SYNOPSIS"; next }
!in_synopsis { next }
/^\.Bd -literal/ { literal = 1; next }
/^\.Ed/ { finish(); literal = 0; next }
/^\.Ft / { returned = substr($0, 5); next }
/^\.Fn / { print returned " " prototype(substr($0, 5)); next }
!literal { next }
{
  gsub(/\\-/, "-")
  gsub(/\\\(ti/, "~")
  gsub(/\\\(aq/, "'")
  gsub(/\\&/, "")
}
/^#define/ || /^ *$/ { finish(); statement = $0; finish(); next }
{ statement = statement " " $0 }
/[;{}]$/ || /^  [a-zA-Z_]+,?( = .*)?$/ { finish() }
