#!/bin/sh
# SPDX-License-Identifier: MIT
# respd, driven by redis-cli, redis-benchmark and raw bytes: every command answers as redis-server does, what is not the
# protocol is answered and ends, who does not read gets no more, and nothing is lost at the end.

set -u
case $libraries in
  *libgreenlet-hub.la*) ;;
  *) echo "skipped: built without the hub"; exit 77 ;;
esac
respd=$builddir/examples/respd/respd
talk=$builddir/t/talk
[ -x "$respd" ] || { echo "skipped: built without hiredis"; exit 77; }
for program in redis-cli redis-benchmark; do
  command -v $program >/dev/null || { echo "skipped: no $program (Debian package redis-tools)"; exit 77; }
done
under=${GREENLET_TEST_RUN_UNDER-}
work=respd-test.$$
mkdir "$work" || exit 99
daemon=
others=
cleanup() {
  for process in $daemon $others; do kill -KILL "$process" 2>/dev/null; done
  rm -rf "$work"
}
trap cleanup EXIT
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
give_up() { echo "FAILED: $*"; exit 1; }

# until_true COMMAND...: waits for something that is to come.
until_true() {
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || give_up "never: $*"
    sleep 0.02
  done
}
has_line() { grep -q -e "$1" "$2"; }

# start OPTIONS...: sets $daemon and $port.
start() {
  : >"$work/daemon"
  $under "$respd" --port 0 "$@" >"$work/daemon" 2>"$work/daemon.err" </dev/null &
  daemon=$!
  until_true listening
  port=$(sed -n 's/^listening on 127\.0\.0\.1:\([0-9]*\)$/\1/p' "$work/daemon")
}
listening() {
  kill -0 "$daemon" 2>/dev/null || { cat "$work/daemon.err"; give_up "respd did not start"; }
  has_line '^listening on 127' "$work/daemon"
}
# stopped: ends the daemon, which is to have nothing to complain of; $connections and $commands are what it served.
stopped() {
  kill -TERM "$daemon"
  wait "$daemon"
  status=$?
  daemon=
  [ $status -eq 0 ] || fail "respd: exit status $status"
  connections=$(sed -n 's/^served \([0-9]*\) connections, [0-9]* commands$/\1/p' "$work/daemon")
  commands=$(sed -n 's/^served [0-9]* connections, \([0-9]*\) commands$/\1/p' "$work/daemon")
  [ -n "$commands" ] || fail "last line: $(tail -n 1 "$work/daemon")"
  # AddressSanitizer says once that it knows swapcontext only so well.
  ! grep -v '^==[0-9]*==WARNING: ASan' "$work/daemon.err" || fail 'respd complained'
}
cli() { redis-cli -p "$port" "$@"; }
raw() { $under "$talk" "$port"; }


# -- Options

run() {
  expected=$1
  shift
  $under "$respd" "$@" >"$work/out" 2>"$work/err" </dev/null
  status=$?
  [ $status -eq "$expected" ] || { fail "respd $*: exit status $status, expected $expected"; cat "$work/out" "$work/err"; }
}
run 0 --help
has_line '^Usage: respd' "$work/out" || fail 'no usage'
run 2 --nonsense
run 2 --host
for bad in -1 65536 1x '' 007; do
  run 2 --port "$bad"
  has_line '^respd: --port takes a number from 0 to 65535$' "$work/err" || fail "--port $bad"
done
run 1 --host localhost
has_line 'not a numeric IPv4 or IPv6 address' "$work/err" || fail 'a name for an address'


# -- Every command: a transcript, which redis-server gives as well where it is installed.

cat >"$work/transcript" <<'END'
> PING
PONG
> PING hello
"hello"
> ECHO "a b"
"a b"
> ECHO
(error) ERR wrong number of arguments for 'echo' command
> PING a b
(error) ERR wrong number of arguments for 'ping' command
> NONSENSE
(error) ERR unknown command 'NONSENSE', with args beginning with: 
> Nonsense a "b c"
(error) ERR unknown command 'Nonsense', with args beginning with: 'a' 'b c' 
> SELECT 0
OK
> SELECT 99
(error) ERR DB index is out of range
> SET s one
OK
> GET s
"one"
> get none
(nil)
> GET
(error) ERR wrong number of arguments for 'get' command
> SET s two NX
(nil)
> SET none two XX
(nil)
> SET s two XX GET
"one"
> SET new x NX GET
(nil)
> GETDEL new
"x"
> SET s x NX XX
(error) ERR syntax error
> SET s x EX
(error) ERR syntax error
> SET s x EX 1 PX 1
(error) ERR syntax error
> SET s x EX ten
(error) ERR value is not an integer or out of range
> SET s x EX 0
(error) ERR invalid expire time in 'set' command
> SET s x EX 9223372036854775807
(error) ERR invalid expire time in 'set' command
> SET s x PX 9223372036854775807
(error) ERR invalid expire time in 'set' command
> SET s x WHAT
(error) ERR syntax error
> SETNX s three
(integer) 0
> SETNX n 3
(integer) 1
> GETSET s three
"two"
> STRLEN s
(integer) 5
> STRLEN none
(integer) 0
> APPEND s !
(integer) 6
> APPEND a new
(integer) 3
> MSET x 1 y 2
OK
> MSET x 1 y
(error) ERR wrong number of arguments for 'mset' command
> MGET x none y
1) "1"
2) (nil)
3) "2"
> EXISTS x none y x
(integer) 3
> DEL x none
(integer) 1
> INCR y
(integer) 3
> INCRBY y -5
(integer) -2
> DECR y
(integer) -3
> DECRBY y -9
(integer) 6
> INCR counter
(integer) 1
> INCRBY y x
(error) ERR value is not an integer or out of range
> INCR s
(error) ERR value is not an integer or out of range
> SET y 9223372036854775807
OK
> INCR y
(error) ERR increment or decrement would overflow
> DECRBY y -9223372036854775808
(error) ERR decrement would overflow
> SET y 01
OK
> INCR y
(error) ERR value is not an integer or out of range
> TTL s
(integer) -1
> TTL none
(integer) -2
> PTTL none
(integer) -2
> EXPIRE s 100
(integer) 1
> TTL s
(integer) 100
> SET s four KEEPTTL
OK
> TTL s
(integer) 100
> PERSIST s
(integer) 1
> PERSIST s
(integer) 0
> PEXPIRE s 100000
(integer) 1
> TTL s
(integer) 100
> SET s five
OK
> TTL s
(integer) -1
> SET s six EX 50
OK
> TTL s
(integer) 50
> EXPIRE none 5
(integer) 0
> EXPIRE s x
(error) ERR value is not an integer or out of range
> EXPIRE s 5 WHEN
(error) ERR Unsupported option WHEN
> EXPIRE s 9223372036854775807
(error) ERR invalid expire time in 'expire' command
> EXPIRE s -1
(integer) 1
> EXISTS s
(integer) 0
> RPUSH l 1 2 3
(integer) 3
> LPUSH l 0 -1
(integer) 5
> LRANGE l 0 -1
1) "-1"
2) "0"
3) "1"
4) "2"
5) "3"
> LRANGE l -2 100
1) "2"
2) "3"
> LRANGE l -100 0
1) "-1"
> LRANGE l 4 2
(empty array)
> LRANGE none 0 -1
(empty array)
> LRANGE l a b
(error) ERR value is not an integer or out of range
> LLEN l
(integer) 5
> LLEN none
(integer) 0
> LPOP l
"-1"
> RPOP l
"3"
> LPOP l 0
(empty array)
> RPOP l 2
1) "2"
2) "1"
> LPOP none
(nil)
> LPOP none 2
(nil)
> LPOP l -1
(error) ERR value is out of range, must be positive
> GET l
(error) WRONGTYPE Operation against a key holding the wrong kind of value
> SET l x GET
(error) WRONGTYPE Operation against a key holding the wrong kind of value
> GETSET l x
(error) WRONGTYPE Operation against a key holding the wrong kind of value
> INCR l
(error) WRONGTYPE Operation against a key holding the wrong kind of value
> APPEND l x
(error) WRONGTYPE Operation against a key holding the wrong kind of value
> LPUSH n x
(error) WRONGTYPE Operation against a key holding the wrong kind of value
> SADD l x
(error) WRONGTYPE Operation against a key holding the wrong kind of value
> MGET l n
1) (nil)
2) "3"
> TYPE l
list
> LPOP l 9
1) "0"
> TYPE l
none
> TYPE n
string
> SADD set a
(integer) 1
> SADD set a b
(integer) 1
> TYPE set
set
> SCARD set
(integer) 2
> SISMEMBER set b
(integer) 1
> SISMEMBER set c
(integer) 0
> SREM set b c
(integer) 1
> SMEMBERS set
1) "a"
> SPOP set
"a"
> SPOP set
(nil)
> SPOP set 2
(empty array)
> EXISTS set
(integer) 0
> FLUSHALL
OK
> DBSIZE
(integer) 0
> KEYS *
(empty array)
> MSET abc 1 aXc 2 a[c 3 zz 4
OK
> KEYS a[bB]c
1) "abc"
> KEYS a[^b-z\[]c
1) "aXc"
> KEYS a[c-b]?
1) "abc"
> KEYS a\[c
1) "a[c"
> KEYS ??
1) "zz"
> KEYS *z*
1) "zz"
> KEYS *b
(empty array)
> DBSIZE
(integer) 4
> SCAN 0 MATCH z* COUNT 100
1) "0"
2) 1) "zz"
> SCAN 0 MATCH
(error) ERR syntax error
> FLUSHDB what
(error) ERR syntax error
> FLUSHDB ASYNC
OK
> CONFIG GET appendonly
1) "appendonly"
2) "no"
> CONFIG GET save
1) "save"
2) ""
> CONFIG GET nonsense
(empty array)
> CONFIG WHAT
(error) ERR unknown subcommand 'WHAT'. Try CONFIG HELP.
> CONFIG
(error) ERR wrong number of arguments for 'config' command
> CLIENT GETNAME
(nil)
> CLIENT SETNAME "a b"
(error) ERR Client names cannot contain spaces, newlines or special characters.
> CLIENT SETNAME me
OK
> CLIENT GETNAME
"me"
> CLIENT SETNAME
(error) ERR wrong number of arguments for 'client|setname' command
> CLIENT
(error) ERR wrong number of arguments for 'client' command
> CLIENT WHAT
(error) ERR unknown subcommand 'WHAT'. Try CLIENT HELP.
> HELLO 4
(error) NOPROTO unsupported protocol version
> HELLO x
(error) ERR Protocol version is not an integer or out of range
END
# transcript PORT FILE
transcript() { sed -n 's/^> //p' "$work/transcript" | redis-cli --no-raw -p "$1" >"$2"; }
sed '/^> /d' "$work/transcript" >"$work/expected"

start
transcript "$port" "$work/answers"
diff -u "$work/expected" "$work/answers" || fail 'respd answered otherwise'

# The program is in Debian's redis-tools too, by another name.
server=$(command -v redis-server || command -v redis-check-rdb)
if [ -n "$server" ]; then
  ln -s "$server" "$work/redis-server"
  "$work/redis-server" --port 0 --unixsocket "$PWD/$work/redis.sock" --save '' --appendonly no >"$work/redis" &
  others=$!
  until_true [ -S "$work/redis.sock" ]
  sed -n 's/^> //p' "$work/transcript" | redis-cli --no-raw -s "$work/redis.sock" >"$work/theirs"
  diff -u "$work/expected" "$work/theirs" || fail 'redis-server answers otherwise'
  kill "$others"
  wait "$others"
  others=
fi

hello='server respd version 0.1.0 proto 2 id N mode standalone role master modules  '
[ "$(cli HELLO 2 SETNAME x | tr '\n' ' ' | sed 's/id [0-9]*/id N/')" = "$hello" ] ||
  fail "HELLO: $(cli HELLO 2)"
cli CLIENT LIST |
  grep -Eq "^id=[0-9]+ addr=127\.0\.0\.1:[0-9]+ laddr=127\.0\.0\.1:$port fd=[0-9]+ name= age=[0-9]+ db=0 resp=2\$" ||
  fail "CLIENT LIST: $(cli CLIENT LIST)"
[ "$(cli COMMAND COUNT)" -gt 40 ] || fail 'COMMAND COUNT'
[ "$(cli COMMAND | grep -c '^get$')" -eq 1 ] || fail 'COMMAND'
cli INFO | tr -d '\r' >"$work/info"
for line in '^connected_clients:1$' '^greenlets:[1-9]' '^total_commands_processed:[1-9]' "^tcp_port:$port\$"; do
  has_line "$line" "$work/info" || fail "INFO without $line"
done
# What comes to its end goes: found by nobody, and without being looked for.
cli SET short x PX 1 >"$work/out"
cli SET shorter x PX 1 >"$work/out"
gone() { [ "$(cli GET short)" = '' ]; }
until_true gone
empty() { [ "$(cli DBSIZE)" -eq 0 ]; }
until_true empty


# -- redis-benchmark

for pipeline in 1 16; do
  redis-benchmark -p "$port" -q -n 300 -c 20 -P $pipeline -r 50 --csv \
    -t ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,spop,lrange,mset >"$work/bench" 2>&1 || fail "redis-benchmark -P $pipeline"
  [ "$(grep -c '^"[A-Z]' "$work/bench")" -eq 17 ] || { fail "redis-benchmark -P $pipeline:"; cat "$work/bench"; }
  ! grep -i error "$work/bench" || fail "redis-benchmark -P $pipeline"
done


# -- The protocol: what is sent is printf's format, and so is what is to come.

says() {
  printf -- "$1" | raw >"$work/out" || fail "talk: $1"
  printf -- "$2" | cmp - "$work/out" || { fail "after $1:"; head -c 300 "$work/out"; }
}
says 'PING\r\n' '+PONG\r\n'
says 'ping "a\\x41\\n\\"b"\n\r\n\necho '"'it\\\\'s'"'\r\n' '$5\r\naA\n"b\r\n$4\r\nit'"'"'s\r\n'
says 'PING "a\r\n' '-ERR Protocol error: unbalanced quotes in request\r\n'
says 'PING "a"b\r\nPING\r\n' '-ERR Protocol error: unbalanced quotes in request\r\n'
says '*1\r\n$4\r\nPING\r\nPING\r\n' '+PONG\r\n+PONG\r\n'
says '*0\r\n*-1\r\n*2\r\n$4\r\nECHO\r\n$2\r\n\r\n\r\nPING x\r\n' '$2\r\n\r\n\r\n$1\r\nx\r\n'
# The text of an error is one line, whatever it quotes.
says '*1\r\n$4\r\na\r\nb\r\n' "-ERR unknown command 'a  b', with args beginning with: \r\n"
# An end that is said is answered to the last request; half a request is none.
says '*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPI' '+PONG\r\n'
says '' ''
# What was asked for behind QUIT is not done.
says 'QUIT\r\nSET quit 1\r\n' '+OK\r\n'
[ "$(cli EXISTS quit)" -eq 0 ] || fail 'done after QUIT'
says '*1\r\n$1073741824\r\nabc' '-ERR Protocol error: invalid bulk length\r\n'
says '*1\r\n$9223372036854775807\r\nabc' '-ERR Protocol error: invalid bulk length\r\n'
says '*1000000000\r\n$1\r\na\r\n' '-ERR Protocol error: invalid multibulk length\r\n'
says '*1\r\n*1\r\n$4\r\nPING\r\n' "-ERR Protocol error: expected '\$', got '*'\r\n"
says '*1\r\n:5\r\n' "-ERR Protocol error: expected '\$'\r\n"
says '*1\r\n+PING\r\n' "-ERR Protocol error: expected '\$'\r\n"
says '*2\r\n$4\r\nPING\r\n$-1\r\n' "-ERR Protocol error: expected '\$'\r\n"
for garbage in '*1\r\nxyz\r\nPING\r\n' '*x\r\nPING\r\n' '*1\r\n$x\r\nPING\r\n' '*9999999999\r\n' '*1\r\n$-2\r\n' \
  '*1\r\n\0001\r\n'; do
  printf "$garbage" | raw >"$work/out" || fail "talk: $garbage"
  [ "$(wc -l <"$work/out")" -eq 1 ] && has_line '^-ERR Protocol error' "$work/out" || fail "$garbage: $(cat "$work/out")"
done
head -c 70000 /dev/zero | tr '\0' x >"$work/long"
raw <"$work/long" >"$work/out"
has_line '^-ERR Protocol error: too big inline request' "$work/out" || fail 'a line without end'
{ printf '*1\r\n$'; tr x 1 <"$work/long"; } | raw >"$work/out"
has_line '^-ERR Protocol error' "$work/out" || fail 'a number without end'
head -c 300000 /dev/urandom | raw >"$work/out"
[ "$(cli PING)" = PONG ] || fail 'no answer after noise'

# In small pieces; and large.
for piece in '*3\r' '\n$3\r\nS' 'ET\r\n$' '1\r\nk\r\n$10\r' '\n01234' '56789\r\n*2\r\n$3\r\nGET\r\n$1' '\r\nk\r\n' 'PIN' \
  'G\r\n'; do
  printf "$piece"
  sleep 0.01
done | raw >"$work/out"
printf '+OK\r\n$10\r\n0123456789\r\n+PONG\r\n' | cmp - "$work/out" || fail 'in pieces'
head -c 3000000 /dev/urandom >"$work/large"
cli -x SET large <"$work/large" >"$work/out"
[ "$(cli STRLEN large)" -eq 3000000 ] || fail 'the size of what is large'
cli GET large | head -c 3000000 | cmp - "$work/large" || fail 'what is large'


# -- Clients that do not read, and that are killed

# 60 MB of answers are more than the kernel keeps: they are not composed before they are read, and none is lost.
cli -x SET some >"$work/out" <<END
$(head -c 1497 "$work/long")
END
mkfifo "$work/slow"
processed() { cli INFO | sed -n 's/^total_commands_processed:\([0-9]*\).*/\1/p'; }
memory() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB$/\1/p' /proc/"$daemon"/status 2>/dev/null || echo 0; }
little=$(memory)
before=$(processed)
now=$before
yes 'GET some' | head -n 40000 | raw >"$work/slow" &
others=$!
exec 4<"$work/slow"
stands() {
  last=$now
  now=$(processed)
  [ $((now - last)) -eq 1 ] && [ "$now" -gt $((before + 100)) ]
}
until_true stands
[ $((now - before)) -lt 35000 ] || fail "did $((now - before)) commands for one who does not read"
much=$(memory)
[ $((much - little)) -lt 30000 ] || fail "$((much - little)) KiB more for one who does not read"
[ "$(head -c $((40000 * 1507)) <&4 | tr -d x | tr -d '\r' | grep -c '^\$1498$')" -eq 40000 ] || fail 'answers were lost'
exec 4<&-
wait "$others" || fail 'the slow client failed'

yes 'GET large' | $under "$talk" "$port" >"$work/slow" &
others=$!
exec 4<"$work/slow"
two_clients() { [ "$(cli INFO | sed -n 's/^connected_clients:\([0-9]*\).*/\1/p')" -eq "$1" ]; }
until_true two_clients 2
kill -KILL "$others"
wait "$others" 2>"$work/killed"
exec 4<&-
others=
until_true two_clients 1
stopped


# -- Limits of connections, silence and size; a Unix domain socket; a pid file

start --clients 2 --idle 1 --request 1 --unix "$work/socket" --pid-file "$work/pid"
[ "$(cat "$work/pid")" -eq "$daemon" ] || fail 'the pid file has another number'
run 1 --port 0 --pid-file "$work/pid"
has_line "$daemon" "$work/err" || fail "a second daemon: $(cat "$work/err")"
[ "$(redis-cli -s "$work/socket" PING)" = PONG ] || fail 'no answer by the Unix domain socket'
{ printf '*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048577\r\n'; cat "$work/large"; } | raw >"$work/out"
[ "$(tr -d '\r' <"$work/out")" = '-ERR Protocol error: invalid bulk length' ] || fail "more than a MiB: $(cat "$work/out")"
{
  printf '*5\r\n$4\r\nMSET\r\n$1\r\nk\r\n$600000\r\n'
  head -c 600000 "$work/large"
  printf '\r\n$1\r\nl\r\n$600000\r\n'
} | raw >"$work/out"
[ "$(tr -d '\r' <"$work/out")" = '-ERR Protocol error: invalid bulk length' ] || fail "twice half a MiB: $(cat "$work/out")"
# Two say nothing, and a third waits until they have been sent away for that.
mkfifo "$work/silence"
$under "$talk" "$port" <"$work/silence" >"$work/first" &
others=$!
$under "$talk" "$work/socket" <"$work/silence" >"$work/second" &
others="$others $!"
exec 5>"$work/silence"
[ "$(cli PING)" = PONG ] || fail 'no answer behind the limit'
for each in $others; do wait "$each" || fail 'one who says nothing'; done
exec 5>&-
others=
stopped
[ ! -e "$work/pid" ] || fail 'the pid file is left'


# -- SIGTERM under load: what has been done has been answered, and what has not been answered has not been done.

start --grace 10 --unix "$work/socket"  # whose file has been left
for client in 1 2 3; do
  : >"$work/client.$client"
  yes 'INCR n' | raw >"$work/client.$client" &
  others="$others $!"
done
raw <"$work/slow" >"$work/client.4" &
others="$others $!"
exec 4>"$work/slow"
echo 'INCR n' >&4
busy() {
  for client in 1 2 3; do [ "$(wc -c <"$work/client.$client")" -gt 20000 ] || return 1; done
  [ -s "$work/client.4" ]
}
until_true busy
stopped
for each in $others; do wait "$each" || fail 'a client was cut off'; done
exec 4>&-
others=
cat "$work"/client.* | tr -d ':\r' | sort -n >"$work/numbers"
[ "$(wc -l <"$work/numbers")" -eq "$commands" ] || fail "$commands commands, $(wc -l <"$work/numbers") answers"
[ "$(uniq "$work/numbers" | tail -n 1)" -eq "$commands" ] || fail 'an answer came twice'
[ "$connections" -eq 4 ] || fail "$connections connections"

[ "$failures" -eq 0 ]
