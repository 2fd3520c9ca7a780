# SPDX-License-Identifier: MIT
# From lines "ROUND SERVER WORK FIGURE [CPU BUSY LOAD]" to the table, the targets, bench-hub.tsv and the picture;
# see bench/hub/run. Two servers are compared within each round, and the median of the rounds' ratios is what counts.

function sort_values(count, i, j, t) {
  for (i = 2; i <= count; ++i)
    for (j = i; j > 1 && sorted[j - 1] > sorted[j]; --j) { t = sorted[j]; sorted[j] = sorted[j - 1]; sorted[j - 1] = t }
}

function median_of_sorted(count) {
  return count % 2 ? sorted[(count + 1) / 2] : (sorted[count / 2] + sorted[count / 2 + 1]) / 2
}

# Of `what` (figure, cpu, busy, load) over the rounds; `least` and `most` besides. Nothing where there are none.
function median(what, server, work, r, count) {
  count = 0
  for (r = 1; r <= rounds; ++r) if ((what, server, work, r) in value) sorted[++count] = value[what, server, work, r]
  if (!count) return ""
  sort_values(count)
  least = sorted[1]
  most = sorted[count]
  times = count
  return median_of_sorted(count)
}

# The median of the ratios of the rounds that both have.
function ratio(what, server, work, other, other_work, r, count) {
  count = 0
  for (r = 1; r <= rounds; ++r)
    if ((what, server, work, r) in value && (what, other, other_work, r) in value)
      sorted[++count] = value[what, server, work, r] / value[what, other, other_work, r]
  if (!count) return ""
  sort_values(count)
  return median_of_sorted(count)
}

function two(x) { return x == "" ? "" : sprintf("%.2f", x) }

function show(text, x, relation, limit, met) {
  if (x == "") return
  met = relation == ">=" ? x >= limit : x <= limit
  printf "%-80s %7.3f  %s %-5s %s\n", text, x, relation, limit, met ? "met" : "MISSED"
  if (!met) missed++
}

# Which of `names` has the greatest median.
function best(names, work, i, count, part, m, top, which) {
  count = split(names, part, " ")
  for (i = 1; i <= count; ++i)
    if ((m = median("figure", part[i], work)) != "" && m > top) { top = m; which = part[i] }
  return which
}

function against_best(text, work, names, limit, which) {
  if ((which = best(names, work)) != "") show(text " (" which ")", ratio("figure", "greenlet", work, which, work), ">=", limit)
}

function label(server) {
  if (server == "greenlet") return "libgreenlet-hub"
  if (server == "greenlet_deadline") return "with deadlines"
  if (server == "state_threads") return "State Threads"
  if (server == "httpd") return "examples/httpd"
  if (server == "nginx_uncached") return "nginx, no cache"
  return server == "epoll" ? "epoll alone" : server == "go" ? "Go" : server == "asio" ? "Boost.Asio" : server
}

# One panel: a bar for each server, in their order, at `left`, `top`.
function panel(work, title, format, divide, i, longest, m, y, own) {
  longest = 0
  for (i = 1; i <= servers; ++i) if ((m = median("figure", server[i], work)) != "" && m > longest) longest = m
  if (!longest) return
  printf "<text x=\"%d\" y=\"%d\" font-size=\"13\" font-weight=\"bold\">%s</text>\n", left, top + 12, title >svg
  y = top + 20
  for (i = 1; i <= servers; ++i) {
    if ((server[i] ~ /^(httpd|nginx)/) != (work == "http")) continue
    m = median("figure", server[i], work)
    own = server[i] ~ /^(greenlet|httpd)/
    printf "<text x=\"%d\" y=\"%d\" text-anchor=\"end\"%s>%s</text>", left + 104, y + 11, own ? " font-weight=\"bold\"" : "", label(server[i]) >svg
    if (m != "") {
      printf "<rect x=\"%d\" y=\"%d\" width=\"%.0f\" height=\"13\" rx=\"2\" fill=\"%s\"/>", left + 110, y, 2 + 180 * m / longest, own ? "#2a7f3f" : "#9aa5b1" >svg
      printf "<text x=\"%.0f\" y=\"%d\">" format "</text>\n", left + 116 + 180 * m / longest, y + 11, m / divide >svg
    } else {
      print "" >svg
    }
    y += 17
  }
  if (y + 14 > bottom) bottom = y + 14
}

function picture() {
  printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"740\" height=\"HEIGHT\" font-family=\"sans-serif\" font-size=\"11.5\" fill=\"#222\">\n<rect width=\"740\" height=\"HEIGHT\" fill=\"#fff\"/>\n" >svg
  bottom = top = 14
  left = 16; panel("50", "Thousand round trips/s, 50 connections", "%.0f", 1000)
  left = 384; panel("1000", "the same, 1,000 connections", "%.0f", 1000)
  top = bottom
  left = 16; panel("10000", "the same, 10,000 connections", "%.0f", 1000)
  left = 384; panel("among", "the same, 50 of 10,000 that are open", "%.0f", 1000)
  top = bottom
  left = 16; panel("accept", "Thousand connections accepted/s", "%.1f", 1000)
  left = 384; panel("memory", "KiB of an idle connection", "%.1f", 1)
  top = bottom
  left = 16; panel("http", "Thousand files/s of 612 bytes, by HTTP", "%.0f", 1000)
  printf "<text x=\"16\" y=\"%d\" font-size=\"10.5\" fill=\"#666\">Medians of make bench-hub; %s%s</text>\n</svg>\n", bottom + 6, machine, (disturbed > closed / 10 ? "; others were at work on it" : "") >svg
  close(svg)
  system("sed -i 's/HEIGHT/" bottom + 16 "/g' '" svg "'")
}

{
  if ($1 > rounds) rounds = $1
  if (!(($2) in known)) { known[$2]; server[++servers] = $2 }
  if (!(($3) in known_work)) { known_work[$3]; work[++works] = $3 }
  value["figure", $2, $3, $1] = $4
  if ($5 ~ /^[0-9]/) {
    value["cpu", $2, $3, $1] = $5
    value["busy", $2, $3, $1] = $6
    value["load", $2, $3, $1] = $7
    closed++
    if ($6 < 0.85 && $7 < 0.85) disturbed++
  }
}

# The order of the first round is that of the table, with the peers behind ours.
END {
  unit["calls"] = "calls"; unit["memory"] = "KiB"
  unit["switch"] = unit["start"] = unit["spawn_join"] = unit["hand_over"] = unit["stream"] = "ns"
  print "server\twork\tunit\tmedian\tleast\tmost\trounds\tof_epoll\tcpu_us\tcpu_of_epoll\tserver_busy\tload_busy" >tsv
  printf "%-18s %-10s %-6s %11s %11s %11s %8s %8s %8s %6s %6s\n", "server", "work", "unit", "median", "least", "most", "of epoll", "CPU us", "of epoll", "busy", "load"
  for (w = 1; w <= works; ++w)
    for (s = 1; s <= servers; ++s) {
      name = server[s]
      if ((m = median("figure", name, work[w])) == "") continue
      u = work[w] in unit ? unit[work[w]] : "per s"
      form = u == "per s" ? "%.0f" : "%.2f"
      line = sprintf("%-18s %-10s %-6s %11s %11s %11s", name, work[w], u, sprintf(form, m), sprintf(form, least), sprintf(form, most))
      table = sprintf("%s\t%s\t%s\t%.3f\t%.3f\t%.3f\t%d", name, work[w], u, m, least, most, times)
      of = u == "per s" ? two(ratio("figure", name, work[w], "epoll", work[w])) : ""
      cpu = median("cpu", name, work[w])
      cpu_of = two(ratio("cpu", name, work[w], "epoll", work[w]))
      busy = two(median("busy", name, work[w]))
      generator = two(median("load", name, work[w]))
      line = sprintf("%s %8s %8s %8s %6s %6s", line, of, two(cpu), cpu_of, busy, generator)
      sub(/ +$/, "", line)
      print line
      print table "\t" of "\t" two(cpu) "\t" cpu_of "\t" busy "\t" generator >tsv
    }
  print "\nFigures are medians of the rounds; \"of epoll\" is the median of the ratios within each. CPU: of the server, for each"
  print "round trip or connection. busy, load: which part of the time the server and the generator ran. Memory: private dirty."
  if (disturbed)
    printf "In %d of %d runs neither ran all the time: others were at work on this machine. Rates say little then; CPU us says more.\n", disturbed, closed
  print ""
  show("50 connections, of epoll alone", ratio("figure", "greenlet", "50", "epoll", "50"), ">=", 0.97)
  against_best("50 connections, of the best that has a stack for each", "50", "asio state_threads go gevent", 1)
  against_best("1,000 connections, of the best of epoll and libuv", "1000", "epoll libuv", 0.95)
  against_best("10,000 connections, of the best of epoll and libuv", "10000", "epoll libuv", 0.95)
  show("50 connections, a deadline on every read, of without", ratio("figure", "greenlet_deadline", "50", "greenlet", "50"), ">=", 0.97)
  show("50 active among 10,000, of epoll alone", ratio("figure", "greenlet", "among", "epoll", "among"), ">=", 0.95)
  show("accept, one exchange, close, of epoll alone", ratio("figure", "greenlet", "accept", "epoll", "accept"), ">=", 0.95)
  # The generator may be what bounds that, so:
  x = ratio("cpu", "epoll", "accept", "greenlet", "accept")
  show("the same, by the server\x27s CPU time", x, ">=", 0.95)
  show("calls of the system for each round trip, 50 connections", median("figure", "greenlet", "calls"), "<=", 2.4)
  show("KiB of an idle connection, of 10,000", median("figure", "greenlet", "memory"), "<=", 6)
  show("spawn and join an empty task, of make, run and drop by the core", ratio("figure", "greenlet", "spawn_join", "greenlet", "start"), "<=", 3)
  show("from one greenlet to another by a queue, of a switch", ratio("figure", "greenlet", "hand_over", "greenlet", "switch"), "<=", 4)
  show("612 bytes over HTTP, 50 connections, of nginx", ratio("figure", "httpd", "http", "nginx", "http"), ">=", 0.8)
  show("the same, by the server\x27s CPU time", ratio("cpu", "nginx", "http", "httpd", "http"), ">=", 0.8)
  close(tsv)
  picture()
  exit strict && missed ? 1 : 0
}
