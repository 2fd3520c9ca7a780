#!/bin/sh
# SPDX-License-Identifier: MIT
# The manual is complete and true: every public name has its page, every declaration in a SYNOPSIS is
# in a header word for word, every reference leads somewhere, and mandoc finds nothing to say.

set -u
status=0
work=manual-test.$$
mkdir "$work"
trap 'rm -rf "$work"' EXIT

complain() {
  echo "$*"
  status=1
}

test -n "$manuals" || { echo "no manual pages were given"; exit 1; }
for page in $manuals; do
  test -f "$srcdir/$page" || { complain "$page is missing"; continue; }
  base=${page##*/}
  # Which page has which name, and what stands in it.
  $AWK -f "$srcdir/doc/man/names.awk" "$srcdir/$page" | sed "s,\$, $page," >"$work/names"
  read -r first _ <"$work/names"
  test "$first" = "${base%.*}" || complain "$page begins with another name: $first"
  cat "$work/names" >>"$work/all"
  $AWK -f "$srcdir/t/synopsis.awk" "$srcdir/$page" >"$work/$base.synopsis"
done
cut -d' ' -f1 "$work/all" | sort | uniq -d >"$work/twice"
test ! -s "$work/twice" || complain "names with two pages: $(tr '\n' ' ' <"$work/twice")"


# -- Every name has its place ----------------------------------------------------------------------

for header in $headers; do
  case $header in
    */detail/*) continue ;;
    *.hpp | *.h) ;;
  esac
  file=$srcdir/$header
  test -f "$file" || file=$builddir/$header
  $AWK -f "$srcdir/t/names.awk" "$file"
done | sort -u >"$work/declared"

# page_of NAME: the page that has it.
page_of() { $AWK -v name="$1" '$1 == name { print $2; exit }' "$work/all"; }

# link SCOPE NAME: under which name a page has it.
link() {
  case $1.$2 in
    *.greenlet* | *.GREENLET*) echo "$2" ;;
    hub::*) echo "greenlet_hub_${1#hub::}_$2" ;;
    hub*) echo "greenlet_hub_$2" ;;
    gc*) echo "greenlet_gc_$2" ;;
    *) echo "greenlet_$2" ;;
  esac
}

has_word() { grep -qw -e "$1" "$2"; }

seen=0
while read -r kind scope name; do
  seen=$((seen + 1))
  case $kind:$scope in
    error:*) complain "$scope: $name"; continue ;;
    private:*) continue ;;
    constant:c*)
      # A number of C's is anywhere.
      found=
      for page in $manuals; do
        ! has_word "$name" "$srcdir/$page" || { found=$page; break; }
      done
      test -n "$found" || complain "$name is in no page"
      continue ;;
    *:- | *:c | *:hub | *:gc) of=$name in=$scope ;;
    *:hub::*.*) of=${scope#*.} in=${scope%%.*} ;;
    *:hub::*) of=$name in=$scope ;;
    function:greenlet) of=$name in=- ;;
    *:hub.*) of=${scope#hub.} in=hub ;;
    *:gc.*) of=${scope#gc.} in=gc ;;
    *:c.*) of=${scope#c.} in=c; case $of in *_t) ;; *) of=${of}_t ;; esac ;;
    *) of=$scope in=- ;;
  esac
  wanted=$(link "$in" "$of")
  page=$(page_of "$wanted")
  if [ -z "$page" ]; then
    complain "$kind $scope $name: no page has $wanted in its NAME section"
  elif [ "$kind" = constant ] || [ "$kind" = type ] && [ "$scope" != - ] && [ "$scope" != c ]; then
    has_word "$name" "$srcdir/$page" || complain "$kind $scope $name: $page does not say what it is"
  else
    has_word "$name" "$work/${page##*/}.synopsis" || complain "$kind $scope $name: not in the SYNOPSIS of $page"
  fi
done <"$work/declared"
test "$seen" -gt 50 || complain "only $seen names were found in the headers"

# What the libraries export was declared by a header; so t/names.awk has seen it.
if command -v nm >/dev/null && command -v c++filt >/dev/null; then
  for la in $libraries; do
    so=$builddir/lib/.libs/$(basename "$la" .la).so
    test -f "$so" || continue
    nm -D --defined-only "$so" | $AWK '$2 == "T" || $2 == "W" { print $3 }' | sed 's/@.*//' | c++filt |
      sed -e '/::detail::/d' -e '/operator/d' -e 's/(.*//' -e 's/\[abi:[^]]*\]//' -e 's/^.* //' |
      $AWK -F:: '{ name = $NF } name ~ /^~/ || (NF > 2 && name == $(NF - 1)) { next } { print name }' | sort -u
  done >"$work/exported"
  while read -r name; do
    $AWK -v name="$name" '$3 == name { found = 1 } END { exit !found }' "$work/declared" ||
      complain "$name is exported, and declared in no public header that t/names.awk can read"
  done <"$work/exported"
fi


# -- Every declaration is a header's -----------------------------------------------------------------

for header in $headers; do
  case $header in */detail/*) continue ;; esac
  file=$srcdir/$header
  test -f "$file" || file=$builddir/$header
  cat "$file"
done | sed -e 's,//.*,,' -e 's/GREENLET_API //g' | tr '\n' ' ' | tr -s ' ' >"$work/headers"

for page in $manuals; do
  while IFS= read -r declaration; do
    case $declaration in
      'bool operator'[!=]=*) declaration="friend $declaration" ;;
    esac
    case $declaration in
      '#define '* | [A-Za-z_]*,) grep -qF -e " $declaration " "$work/headers" ;;
      *) grep -qF -e " $declaration;" -e " $declaration {" -e " $declaration :" -e " $declaration =" \
        -e " $declaration }" "$work/headers" ;;
    esac || complain "$page: no header has: $declaration"
  done <"$work/${page##*/}.synopsis"
done


# -- References and form -------------------------------------------------------------------------------

for page in $manuals; do
  for name in $(sed -n 's/^\.[XI][rt] \(Xr \)\{0,1\}\([a-z_-]*greenlet[a-z_-]*\) [37].*/\2/p' "$srcdir/$page"); do
    grep -q "^$name " "$work/all" || case $name in
      *_hub_hiredis*) case $manuals in *_hub_hiredis*) complain "$page refers to $name, which is no page" ;; esac ;;
      *_hub_libpq*) case $manuals in *_hub_libpq*) complain "$page refers to $name, which is no page" ;; esac ;;
      *greenlet[_-]hub*) case $manuals in *hub*) complain "$page refers to $name, which is no page" ;; esac ;;
      *greenlet-backtrace* | greenlet_snapshot* | greenlet_dump* | greenlet_monitor*) case $manuals in *backtrace*) complain "$page refers to $name, which is no page" ;; esac ;;
      *greenlet[_-]gc*) case $manuals in *greenlet-gc*) complain "$page refers to $name, which is no page" ;; esac ;;
      *) complain "$page refers to $name, which is no page" ;;
    esac
  done
  # In code, what a terminal would show as something else: hyphens, quotes, accents.
  $AWK -v page="$page" '
    /^\.Bd -literal/ { code = 1; next }
    /^\.Ed/ { code = 0 }
    code {
      line = $0
      gsub(/\\[-e&]|\\\((aq|ga|ha|ti)/, "", line)
      if (line ~ /[-\\`^~'\'']/) { print page ":" FNR ": write \\- \\(aq \\(ga \\(ha \\(ti \\e in code: " $0; bad = 1 }
    }
    END { exit bad }' "$srcdir/$page" || status=1
done

test $status -eq 0 || exit 1
command -v mandoc >/dev/null || { echo "skipped in part: no mandoc"; exit 77; }
for page in $manuals; do
  # Whether a page of the system is installed here is no matter.
  mandoc -Tlint -Wstyle "$srcdir/$page" 2>&1 | grep -v -e 'referenced manual not found' -e 'outdated mandoc.db' >"$work/lint" && {
    cat "$work/lint"
    status=1
  }
done
exit $status
