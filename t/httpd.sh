#!/bin/sh
# SPDX-License-Identifier: MIT
# examples/httpd: every feature that its help and its sources claim, asked by curl, by a client that says anything
# (t/httpd_talk.c), and under load by wrk and ab where they are.

set -u
httpd=$builddir/examples/httpd/httpd
[ -x "$httpd" ] || { echo "skipped: built without Boost.Beast (Debian package libboost-dev), or without the hub"; exit 77; }
command -v curl >/dev/null || { echo "skipped: no curl (Debian package curl)"; exit 77; }
work=$PWD/httpd-test.$$
root=$work/root
mkdir -p "$root" || exit 99
processes=
cleanup() {
  for process in $processes; do kill -KILL "$process" 2>/dev/null; done
  rm -rf "$work"
}
trap cleanup EXIT
talk=$work/talk
# shellcheck disable=SC2086
$CC $CFLAGS -Wall -Wextra -Werror -o "$talk" "$srcdir/t/httpd_talk.c" || { echo 'FAILED: its client does not compile'; exit 1; }
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

# until COMMAND...: until it succeeds, ten seconds at most.
until_true() {
  tries=0
  until "$@" >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 500 ] || { fail "it has not come true: $*"; return 1; }
    sleep 0.02
  done
}

# start NAME OPTION...: a daemon of that name; sets $pid and $port.
start() {
  name=$1
  shift
  "$httpd" --port 0 "$@" >"$work/$name.out" 2>"$work/$name.err" </dev/null &
  pid=$!
  processes="$processes $pid"
  until_true grep -q listening "$work/$name.out" || { cat "$work/$name.err"; exit 1; }
  port=$(sed -n 's/^listening on 127\.0\.0\.1:\([0-9]*\)$/\1/p' "$work/$name.out")
}

# stop NAME PID: by SIGTERM, after which it says so and nothing else. AddressSanitizer says once that it knows
# swapcontext only so well.
stop() {
  kill -TERM "$2"
  wait "$2"
  status=$?
  [ $status -eq 0 ] && grep -q '^stopped$' "$work/$1.out" || fail "$1: exit status $status"
  ! grep -v '^==[0-9]*==WARNING: ASan' "$work/$1.err" || fail "$1 complained"
}

# ask STATUS PATH CURL-OPTION...: the answer is in $work/head and $work/body.
ask() {
  expected=$1 path=$2
  shift 2
  rm -f "$work/body"
  status=$(curl -s -g --path-as-is -m 20 -D "$work/head" -o "$work/body" -w '%{http_code}' "$@" "http://127.0.0.1:$port$path")
  [ "$status" = "$expected" ] || fail "$path $*: $status, expected $expected"
}
field() { sed -n "s/^$1: \(.*\)\r$/\1/p" "$work/head"; }
has_field() { [ "$(field "$1")" = "$2" ] || fail "$path: $1 is '$(field "$1")', expected '$2'"; }
has_body() { [ "$(cat "$work/body")" = "$1" ] || fail "$path: the body is '$(head -c 100 "$work/body")', expected '$1'"; }

# say STATUSES TEXT HOW...: the text, with printf's escapes, as a client sends it; the statuses of all that is answered.
say() {
  expected=$1
  text=$2
  shift 2
  # shellcheck disable=SC2059
  printf "$text" | "$talk" "$port" "$@" >"$work/said" || fail "no end after: $text"
  found=$(sed -n 's/^HTTP\/1\.1 \([0-9]*\) .*/\1/p' "$work/said" | tr '\n' ' ')
  [ "$found" = "${expected:+$expected }" ] || fail "'$found', expected '$expected', after: $(echo "$text" | head -c 200)"
}


# -- What there is

head -c 611 /dev/zero | tr '\0' x >"$root/index.html"
echo >>"$root/index.html"
mkdir "$root/dir" "$root/empty" "$root/.well-known"
echo in a directory >"$root/dir/index.html"
echo hidden >"$root/.hidden"
echo known >"$root/.well-known/known.txt"
echo space >"$root/a b.txt"
echo 0123456789 >"$root/digits.txt"
: >"$root/nothing.txt"
echo outside >"$work/secret"
ln -s ../secret "$root/out"
ln -s .. "$root/outdir"
ln -s "$root/digits.txt" "$root/absolute"
ln -s dir/index.html "$root/in"
ln -s loop "$root/loop"
mkfifo "$root/fifo"
head -c 3000000 /dev/urandom >"$root/big.bin"
touch -d '2020-02-29 12:00:00 UTC' "$root/index.html" "$root/dir/index.html" "$root/digits.txt" "$root/big.bin" "$root/nothing.txt"


# -- Time: three that wait meanwhile for what does not come, and one that does not read

truncate -s 100M "$root/sparse.bin"
start slow --request 0.5 --idle 0.5 --progress 0.5 --access-log "$work/slow.log" "$root"
slow_pid=$pid
printf 'GET / HTTP/1.1\r\nHost:' | "$talk" "$port" >"$work/slow.header" &
clients=$!
printf 'GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc' | "$talk" "$port" >"$work/slow.body" &
clients="$clients $!"
"$talk" "$port" </dev/null >"$work/slow.nothing" &
clients="$clients $!"
printf 'GET /dir/ HTTP/1.1\r\nHost: x\r\n\r\n' | "$talk" "$port" >"$work/slow.idle" &
clients="$clients $!"
printf 'GET /sparse.bin HTTP/1.1\r\nHost: x\r\n\r\n' | "$talk" "$port" deaf &
deaf=$!
processes="$processes $clients $deaf"


# -- Options

run() {
  expected=$1
  shift
  "$httpd" "$@" >"$work/out" 2>"$work/err" </dev/null
  status=$?
  [ $status -eq "$expected" ] || fail "httpd $*: exit status $status"
}
run 0 --help
grep -q '^Usage: httpd' "$work/out" || fail 'no help'
for wrong in --nonsense --port '--port x' '--port 65536' '--port 1.5' '--idle -1' '--status none' '--threads 1025' "$root" '--body'; do
  # shellcheck disable=SC2086
  run 2 "$root" $wrong
  grep -q '^Usage: httpd' "$work/err" || fail "no help after $wrong"
done
run 2
run 1 "$work/nowhere"
grep -q 'cannot serve.*nowhere' "$work/err" || fail 'it does not say what it cannot serve'
run 1 --port "$port" "$root"
grep -q bind "$work/err" || fail 'it does not say that the port is in use'
run 1 --port 0 --host localhost "$root"
run 1 --port 0 --access-log "$work/nowhere/log" "$root"


# -- Files

start one --cache 0 --access-log "$work/one.log" "$root"
one_pid=$pid one_port=$port
ask 200 /
cmp -s "$work/body" "$root/index.html" || fail 'not index.html'
has_field Content-Type 'text/html; charset=utf-8'
has_field Content-Length 612
has_field Last-Modified 'Sat, 29 Feb 2020 12:00:00 GMT'
has_field Accept-Ranges bytes
case $(field Date) in ???,\ ??\ ???\ ????\ ??:??:??\ GMT) ;; *) fail "Date is $(field Date)" ;; esac
etag=$(field ETag)
case $etag in \"*\") ;; *) fail "the tag of an old file is $etag" ;; esac
ask 200 /index.html -I
has_field Content-Length 612
has_field ETag "$etag"
ask 200 '/?query#x'
ask 200 /big.bin
cmp -s "$work/body" "$root/big.bin" || fail 'not big.bin'
has_field Content-Type application/octet-stream
ask 200 /nothing.txt
has_field Content-Length 0
ask 200 /dir/
has_body 'in a directory'
ask 301 '/dir?a=b'
has_field Location '/dir/?a=b'
ask 301 //dir
has_field Location /dir/
ask 200 /a%20b.txt
has_body space
ask 200 /%61%20%62%2etxt
ask 200 /dir/.././dir//index.html
ask 200 /in
has_body 'in a directory'
ask 200 /.well-known/known.txt
for path in /none /dir/none /index.html/ /empty/ /.hidden /dir/../.hidden /out /outdir/secret /outdir/root/index.html /absolute /loop \
  "/$(head -c 300 /dev/zero | tr '\0' a)"; do ask 404 "$path"; done
ask 403 /fifo
for path in /.. /../secret /dir/../../secret /%2e%2e/secret /..%2fsecret /dir/..%2F%2e./secret /%00 /index.html%00 /%zz /% /%4; do
  ask 400 "$path"
done
# What changes is seen, at once without a cache; and what changed just now has a weak tag.
echo 9876543210 >"$root/digits.txt"
ask 200 /digits.txt
has_body 9876543210
case $(field ETag) in W/\"*\") ;; *) fail "the tag of a new file is $(field ETag)" ;; esac
echo 0123456789 >"$root/digits.txt"
ask 200 /digits.txt
has_body 0123456789
touch -d '2020-02-29 12:00:00 UTC' "$root/digits.txt"
ask 200 /digits.txt
digits=$(field ETag)

start strict --no-links --status nobody "$root"
for path in /in /out /outdir/secret /absolute /loop /none/none /index.html/ /status; do ask 404 "$path"; done
for path in / /dir/ /dir/index.html /a%20b.txt /big.bin; do ask 200 "$path"; done
cmp -s "$work/body" "$root/big.bin" || fail 'not big.bin, without links'
stop strict "$pid"
port=$one_port


# -- Conditions

tag() { ask "$1" /digits.txt -H "$2"; }
date='Sat, 29 Feb 2020 12:00:00 GMT'
tag 304 "If-None-Match: $digits"
has_field ETag "$digits"
[ ! -s "$work/body" ] || fail '304 has a body'
tag 304 "If-None-Match: W/$digits"
tag 304 "If-None-Match: \"a\", W/\"b\" ,$digits"
tag 304 'If-None-Match: *'
ask 304 /digits.txt -H 'If-None-Match: "a"' -H "If-None-Match: $digits"
tag 200 'If-None-Match: "a"'
tag 200 'If-None-Match: nonsense'
ask 200 /digits.txt -H 'If-None-Match: "a"' -H "If-Modified-Since: $date"
tag 304 "If-Modified-Since: $date"
tag 304 'If-Modified-Since: Saturday, 29-Feb-20 12:00:01 GMT'
tag 304 'If-Modified-Since: Sat Feb 29 12:00:00 2020'
tag 200 'If-Modified-Since: Sat, 29 Feb 2020 11:59:59 GMT'
tag 200 'If-Modified-Since: nonsense'
tag 200 "If-Match: $digits"
tag 412 'If-Match: "a"'
tag 412 "If-Match: W/$digits"
tag 200 'If-Match: *'
tag 200 "If-Unmodified-Since: $date"
tag 412 'If-Unmodified-Since: Sat, 29 Feb 2020 11:59:59 GMT'
ask 400 /digits.txt -H "If-Modified-Since: $date" -H "If-Modified-Since: $date"


# -- Ranges; the last byte of the file is the end of its line

range() {
  tag 206 "Range: $1"
  [ "$(cat "$work/body")" = "$2" ] || fail "$1: $(cat "$work/body")"
  has_field Content-Range "bytes $3"
}
range bytes=0-0 0 0-0/11
range bytes=2-4 234 2-4/11
range bytes=8- 89 8-10/11
range bytes=-3 89 8-10/11
range bytes=-100 0123456789 0-10/11
range bytes=5-99999999999999999999999 56789 5-10/11
tag 416 'Range: bytes=11-'
has_field Content-Range 'bytes */11'
tag 416 'Range: bytes=-0'
for ignored in bytes=0-1,3-4 lines=0-1 bytes= bytes=a-b bytes=3-2 bytes=-; do
  tag 200 "Range: $ignored"
  has_body 0123456789
done
ask 200 /digits.txt -I -H 'Range: bytes=0-1'
for same in "$digits" "$date"; do ask 206 /digits.txt -H 'Range: bytes=0-1' -H "If-Range: $same"; done
for other in '"a"' "W/$digits" 'Sat, 29 Feb 2020 11:59:59 GMT'; do ask 200 /digits.txt -H 'Range: bytes=0-1' -H "If-Range: $other"; done
ask 304 /digits.txt -H 'Range: bytes=0-1' -H "If-None-Match: $digits"
ask 206 /big.bin -H 'Range: bytes=1000000-1999999'
tail -c +1000001 "$root/big.bin" | head -c 1000000 | cmp -s - "$work/body" || fail 'not the middle of big.bin'
ask 200 /nothing.txt -H 'Range: bytes=-5'
ask 416 /nothing.txt -H 'Range: bytes=0-'


# -- Connections

x='Host: x\r\n'
last='Connection: close\r\n\r\n'
say '200 200 404' "GET /dir/ HTTP/1.1\r\n$x\r\nGET / HTTP/1.1\r\n$x\r\nGET /none HTTP/1.1\r\n$x$last"
say '200 200' "\r\n\r\nGET /dir/ HTTP/1.1\r\n$x\r\n\r\nGET / HTTP/1.1\r\n$x$last" slowly
say 200 "GET / HTTP/1.1\r\n$x\r\n" end
say 200 "HEAD / HTTP/1.1\r\n$x\r\n" end
! grep -q xxx "$work/said" || fail 'HEAD has a body'
say '' "GET / HTTP/1.1\r\n$x" end
say 200 'GET /dir/ HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n'
say '200 200' 'GET /dir/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n'
[ "$(grep -c '^Connection: keep-alive' "$work/said")" -eq 1 ] && [ "$(grep -c '^Connection: close' "$work/said")" -eq 1 ] || fail 'HTTP/1.0 is not told'
say 200 "GET http://x/dir/?a HTTP/1.1\r\n$x$last"
say 200 "GET HTTP://x HTTP/1.1\r\n$x$last"
requests=
for _ in 1 2 3 4 5 6 7 8; do requests="$requests$requests"'GET /in HTTP/1.1\r\nHost: x\r\n\r\n'; done
# shellcheck disable=SC2059
printf "$requests" | "$talk" "$port" end >"$work/said"
[ "$(grep -c '^in a directory' "$work/said")" -eq 255 ] || fail "$(grep -c '^HTTP' "$work/said") of 255 requests in a row answered"


# -- What is refused

say 405 "DELETE / HTTP/1.1\r\n$x$last"
grep -q '^Allow: GET, HEAD' "$work/said" || fail 'not said what is allowed'
say 501 "BREW / HTTP/1.1\r\n$x$last"
say 400 "GET / HTTP/1.1\r\n$last"
say 400 "GET / HTTP/1.1\r\n$x$x$last"
say 400 "GET dir/ HTTP/1.1\r\n$x$last"
say 400 "GET * HTTP/1.1\r\n$x$last"
say 400 "GET ftp://x/ HTTP/1.1\r\n$x$last"
say 400 "GET / HTTP/1.1\r\n${x}If-Match: a\r\n b\r\n$last"
say 400 "GET / HTTP/1.1\r\n${x}Name : a\r\n$last"
say 400 "GET / HTTP/1.1\n${x}\n\n"
say 400 'GET /\r\n\r\n'
say 400 '\001\002\003\377\r\n\r\n'
say 400 'nonsense\r\n'
say 505 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
say 505 "GET / HTTP/9.9\r\n$x$last"
say 417 "GET / HTTP/1.1\r\n${x}Expect: miracles\r\n$last"
long=$(head -c 4096 /dev/zero | tr '\0' a)
say 414 "GET /$long HTTP/1.1\r\n$x$last"
say 414 "GET /$long$long$long$long HTTP/1.1\r\n$x$last"
say 431 "GET / HTTP/1.1\r\n${x}Long: $long$long\r\n$last"
say 431 "GET / HTTP/1.1\r\n${x}Long: $long$long$long$long$long$long$long$long\r\n$last"
lines=
for _ in 1 2 3 4 5 6 7 8 9; do lines="$lines$lines"'Many: 123456789\r\n'; done
say 431 "GET / HTTP/1.1\r\n$x$lines$last" slowly
head -c 20000 /dev/urandom | "$talk" "$port" end | head -n 1 | grep -q '^HTTP/1.1 4' || fail 'noise is not refused'


# -- Bodies

next="GET /dir/ HTTP/1.1\r\n$x$last"
chunked="${x}Transfer-Encoding: chunked\r\n\r\n"
say '200 200' "GET / HTTP/1.1\r\n${x}Content-Length: 5\r\n\r\n12345$next"
say '405 200' "POST / HTTP/1.1\r\n${x}Content-Length: 5\r\n\r\n12345$next"
say '405 200' "POST / HTTP/1.1\r\n${chunked}5\r\n12345\r\na;x=y\r\n0123456789\r\n0\r\n$x\r\n$next"
say '405 200' "POST / HTTP/1.1\r\n${chunked}5\r\n12345\r\n0\r\nTrailer: $long\r\n\r\n$next" slowly
say 400 "POST / HTTP/1.1\r\n${chunked}x\r\n"
say 400 "POST / HTTP/1.1\r\n${chunked}1\r\nabc\r\n"
say 400 "POST / HTTP/1.1\r\n${chunked}1;$long$long$long$long$long"
say 413 "POST / HTTP/1.1\r\n${chunked}5\r\n12345\r\n10000\r\n"
say 413 "POST / HTTP/1.1\r\n${x}Content-Length: 65537\r\n\r\n"
say 413 "POST / HTTP/1.1\r\n${chunked}ffffffffffffffff\r\n"
say 400 "POST / HTTP/1.1\r\n${x}Content-Length: 5\r\nContent-Length: 6\r\n\r\n"
say 400 "POST / HTTP/1.1\r\n${x}Content-Length: -1\r\n\r\n"
say 400 "POST / HTTP/1.1\r\n${x}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
say 400 "POST / HTTP/1.1\r\n${x}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
say 400 'POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'
say 501 "POST / HTTP/1.1\r\n${x}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
say 501 "POST / HTTP/1.1\r\n${x}Transfer-Encoding: gzip\r\n\r\n"
say '' "POST / HTTP/1.1\r\n${x}Content-Length: 5\r\n\r\n1" end
ask 200 /dir/ -X GET -d 12345 -H 'Expect: 100-continue' --expect100-timeout 20
grep -q '^HTTP/1.1 100 ' "$work/head" || fail 'who waits to be told to go on is not'
say 200 "GET / HTTP/1.1\r\n${x}Connection: close\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n12345"
say 405 "POST / HTTP/1.1\r\n${x}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
ask 413 / --data-binary "@$root/big.bin" -H 'Expect:'
ask 413 / --data-binary "@$root/big.bin" -H 'Expect:' -H 'Transfer-Encoding: chunked'


# -- The page about itself

curl -s "http://127.0.0.1:$port/dir/" -H 'User-Agent: "quoted"' -e "$(printf 'tab\there')" -o "$work/body"
ask 200 '/status?frames' -H 'Connection: close'
has_field Content-Type application/json
! command -v python3 >/dev/null || python3 -m json.tool <"$work/body" >/dev/null || fail 'the status page is no JSON'
grep -q "^{\"process\":$pid" "$work/body" || grep -q '^{"process":[0-9]' "$work/body" || fail 'no process in the status page'
grep -q '"name":"access log","state":"waiting for lines"' "$work/body" || fail 'the access log is not in the status page'
grep -q '"name":"127.0.0.1:[0-9]*","state":"sending","seconds":[0-9.]*,"request":"/status?frames","requests":1,' "$work/body" ||
  fail 'the greenlet that wrote it is not in the status page'
grep -q '"413' "$work/body" && fail 'a status in the status page'
case $libraries in
  *libgreenlet-backtrace.la*) grep -q '"frames":\[[^]]*httpd::' "$work/body" || fail 'no frames in the status page' ;;
esac
[ "$failures" -eq 0 ] || cat "$work/body"

stop one "$one_pid"
grep -Eq '^127\.0\.0\.1 - - \[[A-Z].* GMT\] "GET / HTTP/1\.1" 200 [0-9]+ "-" "curl/[0-9.]+"$' "$work/one.log" || fail 'no line in the access log'
grep -Fq '"GET /dir/ HTTP/1.1" 200 ' "$work/one.log" || fail 'no second line in the access log'
grep -Fq '"tab\x09here" "\x22quoted\x22"' "$work/one.log" || fail 'quotes in the access log'
grep -q '"-" 400 ' "$work/one.log" || fail 'noise is not in the access log'


# -- The clients that came slowly, by now

until_true grep -q sparse "$work/slow.log"
kill "$deaf"
for client in $clients; do wait "$client" || fail 'a slow client was not let go'; done
grep -q '^HTTP/1.1 408 ' "$work/slow.header" || fail 'half a header is waited for'
grep -q '^HTTP/1.1 408 ' "$work/slow.body" || fail 'half a body is waited for'
[ ! -s "$work/slow.nothing" ] || fail 'who says nothing is answered'
[ "$(grep -c '^HTTP/1.1 200 ' "$work/slow.idle")" -eq 1 ] || fail 'an idle connection got another answer'
sent=$(sed -n 's/.*sparse.bin HTTP.1.1" 200 \([0-9]*\) .*/\1/p' "$work/slow.log")
[ "${sent:-0}" -gt 0 ] && [ "$sent" -lt 104857600 ] || fail "sent to who does not read: ${sent:-nothing}"
stop slow "$slow_pid"


# -- A limit: the second waits for the first to go

start narrow --connections 1 --idle 0.3 "$root"
printf 'GET /dir/ HTTP/1.1\r\nHost: x\r\n\r\n' | "$talk" "$port" >"$work/first" &
client=$!
until_true grep -q directory "$work/first"
ask 200 /status
wait $client || fail 'the first was not answered'
grep -q '"active":1,' "$work/body" || fail 'more connections than there may be'
stop narrow "$pid"


# -- Load, on several threads

start load --threads 2 --pid-file "$work/pid" "$root"
load_pid=$pid
if command -v wrk >/dev/null; then
  wrk -t1 -c20 -d1s "http://127.0.0.1:$port/" >"$work/wrk" 2>&1 || fail 'wrk failed'
  ! grep -E 'Socket errors|Non-2xx' "$work/wrk" || { fail 'errors under load'; cat "$work/wrk"; }
  grep -q 'requests in' "$work/wrk" || fail 'wrk says nothing'
else
  echo 'left out: wrk (Debian package wrk)'
fi
if command -v ab >/dev/null; then
  for how in '-k -n 2000' '-n 300'; do
    # shellcheck disable=SC2086
    ab -q $how -c 10 "http://127.0.0.1:$port/index.html" >"$work/ab" 2>&1 || fail "ab $how failed"
    grep -q 'Failed requests: *0$' "$work/ab" && ! grep -q Non-2xx "$work/ab" || { fail "ab $how has errors"; cat "$work/ab"; }
  done
  ab -q -k -n 500 -c 5 "http://127.0.0.1:$port/index.html" >"$work/ab" 2>&1
  grep -q 'Keep-Alive requests: *500$' "$work/ab" || fail 'HTTP/1.0 connections are not kept'
else
  echo 'left out: ab (Debian package apache2-utils)'
fi
ask 200 /status
grep -q '"thread":0,.*"thread":1,' "$work/body" || fail 'the status page knows one thread only'


# -- SIGHUP: another process goes on, and nobody is refused. SIGTERM: what was asked is answered.

while [ ! -e "$work/enough" ]; do curl -sf -m 20 "http://127.0.0.1:$port/dir/" || echo refused; done >"$work/meanwhile" &
meanwhile=$!
kill -HUP "$load_pid"
wait "$load_pid" || fail 'the old process failed'
: >"$work/enough"
wait $meanwhile
[ "$(sort -u "$work/meanwhile")" = 'in a directory' ] || fail "refused meanwhile: $(grep -c -v 'in a dir' "$work/meanwhile")"
next=$(cat "$work/pid")
processes="$processes $next"
[ "$next" != "$load_pid" ] || fail 'no new process'
ask 200 /status
grep -q "^{\"process\":$next," "$work/body" || fail 'another process answers'

downloads=
for i in 1 2 3; do
  curl -s --limit-rate 6M -o "$work/download$i" "http://127.0.0.1:$port/big.bin" &
  downloads="$downloads $!"
done
printf 'GET /dir/ HTTP/1.1\r\nHost: x\r\n\r\n' | "$talk" "$port" >"$work/first" &
idle=$!
until_true grep -q directory "$work/first"
for i in 1 2 3; do until_true test -s "$work/download$i"; done
kill -TERM "$next"
wait $idle || fail 'an idle connection was not ended'
for each in $downloads; do wait "$each" || fail 'a download was cut'; done
for i in 1 2 3; do cmp -s "$work/download$i" "$root/big.bin" || fail 'a download is not whole'; done
gone() { ! kill -0 "$next"; }
until_true gone
[ ! -e "$work/pid" ] || fail 'the pid file is left'

start short --grace 0 "$root"
printf 'GET /sparse.bin HTTP/1.1\r\nHost: x\r\n\r\n' | "$talk" "$port" deaf &
deaf=$!
processes="$processes $deaf"
sending() { curl -s "http://127.0.0.1:$port/status" | grep -q sparse; }
until_true sending
stop short "$pid"
kill "$deaf"

[ "$failures" -eq 0 ]
